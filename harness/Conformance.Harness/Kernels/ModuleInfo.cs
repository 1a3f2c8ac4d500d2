// SPDX-License-Identifier: MIT
using System.Text;

namespace Conformance.Kernels;

/// <summary>
/// What a module says about itself in its <c>.modinfo</c> section: key=value strings, each ended by a zero byte
/// (include/linux/moduleparam.h, scripts/mod/modpost.c).
/// </summary>
/// <param name="Machine">ELF machine: 62 x86_64, 183 arm64.</param>
/// <param name="Name">The kernel's name for it; empty in modules from before 4.13.</param>
/// <param name="Vermagic">Release and the build options a kernel insists on; its first word is the release.</param>
/// <param name="Depends">Modules whose symbols it uses.</param>
/// <param name="LoadBefore">Modules it asks to have loaded before it (<c>softdep=pre:</c>); it works without them.</param>
/// <param name="LoadAfter">Modules it asks to have loaded after it (<c>softdep=post:</c>).</param>
/// <param name="Layout">The layout it was built for; null when it does not say.</param>
internal sealed record ModuleInfo(
    ushort Machine,
    string Name,
    string Vermagic,
    IReadOnlyList<string> Depends,
    IReadOnlyList<string> LoadBefore,
    IReadOnlyList<string> LoadAfter,
    StructModule? Layout)
{
    /// <summary>The kernel release it was built for.</summary>
    public string Release => Vermagic.Split(' ', 2)[0];

    /// <summary>Reads an uncompressed module.</summary>
    /// <exception cref="InvalidDataException">It is not one; the message completes the sentence "PATH ...".</exception>
    public static ModuleInfo Parse(ReadOnlySpan<byte> elf)
    {
        ElfObject module = new(elf);
        ReadOnlySpan<byte> section = module.Find(".modinfo"u8);
        if (section.IsEmpty)
        {
            throw new InvalidDataException("has no .modinfo section: it is an object file, not a linked module (.ko)");
        }

        string name = "";
        string vermagic = "";
        List<string> depends = [];
        List<string> before = [];
        List<string> after = [];
        foreach (string entry in Encoding.UTF8.GetString(section).Split('\0', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = entry.IndexOf('=');
            if (equals < 0)
            {
                continue;
            }

            string value = entry[(equals + 1)..];
            switch (entry[..equals])
            {
                case "name":
                    name = value;
                    break;
                case "vermagic":
                    vermagic = value.Trim();
                    break;
                case "depends":
                    depends.AddRange(value.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(ModuleName.Canonical));
                    break;
                case "softdep":
                    ReadSoftDependency(value, before, after);
                    break;
            }
        }

        return new ModuleInfo(module.Machine, ModuleName.Canonical(name), vermagic, depends, before, after, StructModule.Read(module));
    }

    private static void ReadSoftDependency(string value, List<string> before, List<string> after)
    {
        List<string>? list = null;
        foreach (string word in value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
        {
            switch (word)
            {
                case "pre:":
                    list = before;
                    break;
                case "post:":
                    list = after;
                    break;
                default:
                    list?.Add(ModuleName.Canonical(word));
                    break;
            }
        }
    }
}

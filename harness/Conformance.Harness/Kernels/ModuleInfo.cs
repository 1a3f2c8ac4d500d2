// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
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
internal sealed record ModuleInfo(
    ushort Machine,
    string Name,
    string Vermagic,
    IReadOnlyList<string> Depends,
    IReadOnlyList<string> LoadBefore,
    IReadOnlyList<string> LoadAfter)
{
    /// <summary>The kernel release it was built for.</summary>
    public string Release => Vermagic.Split(' ', 2)[0];

    /// <summary>Reads an uncompressed module.</summary>
    /// <exception cref="InvalidDataException">It is not one; the message completes the sentence "PATH ...".</exception>
    public static ModuleInfo Parse(ReadOnlySpan<byte> elf)
    {
        if (elf.Length < 64 || !elf.StartsWith("\u007fELF"u8))
        {
            throw new InvalidDataException("is not an ELF file");
        }

        if (elf[4] != 2 || elf[5] != 1)
        {
            throw new InvalidDataException("is not a 64-bit little-endian ELF file");
        }

        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(elf[16..]);
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(elf[18..]);
        if (type != 1)
        {
            throw new InvalidDataException("is an ELF file but not a relocatable one: it is a program, a library or vmlinux, not a module");
        }

        ReadOnlySpan<byte> section = FindSection(elf, ".modinfo"u8);
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

        return new ModuleInfo(machine, ModuleName.Canonical(name), vermagic, depends, before, after);
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

    private static ReadOnlySpan<byte> FindSection(ReadOnlySpan<byte> elf, ReadOnlySpan<byte> wanted)
    {
        ulong table = BinaryPrimitives.ReadUInt64LittleEndian(elf[40..]);
        int size = BinaryPrimitives.ReadUInt16LittleEndian(elf[58..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(elf[60..]);
        int names = BinaryPrimitives.ReadUInt16LittleEndian(elf[62..]);
        if (size < 64 || names >= count || table > (ulong)elf.Length || (ulong)elf.Length - table < (ulong)(size * count))
        {
            throw new InvalidDataException("is a truncated or damaged ELF file");
        }

        ReadOnlySpan<byte> headers = elf[(int)table..];
        ReadOnlySpan<byte> strings = Content(elf, headers[(names * size)..]);
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> header = headers[(i * size)..];
            uint name = BinaryPrimitives.ReadUInt32LittleEndian(header);
            if (name >= strings.Length)
            {
                continue;
            }

            ReadOnlySpan<byte> text = strings[(int)name..];
            int end = text.IndexOf((byte)0);
            if (end >= 0 && text[..end].SequenceEqual(wanted))
            {
                return Content(elf, header);
            }
        }

        return default;
    }

    private static ReadOnlySpan<byte> Content(ReadOnlySpan<byte> elf, ReadOnlySpan<byte> header)
    {
        ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(header[24..]);
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        return offset <= (ulong)elf.Length && length <= (ulong)elf.Length - offset
            ? elf.Slice((int)offset, (int)length)
            : throw new InvalidDataException("is a truncated or damaged ELF file");
    }
}

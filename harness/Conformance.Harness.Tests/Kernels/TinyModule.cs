// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Text;

namespace Conformance.Harness.Tests.Kernels;

/// <summary>Lays out a module of a few hundred bytes: an ELF header, sections, and what modpost writes into .modinfo.</summary>
internal static class TinyModule
{
    public const ushort X86 = 62;
    public const ushort Arm64 = 183;

    public static byte[] Build(string name, string release, ushort machine = X86, string depends = "", params string[] more) =>
        Elf(machine, (".text", 6, [0x90, 0x90, 0x90]), (".modinfo", 2, ModInfo(name, release, depends, more)));

    public static byte[] BuildWithDebugInfo(string name, string release, int size)
    {
        byte[] debug = new byte[size];
        new Random(1).NextBytes(debug);
        return Elf(
            X86,
            (".text", 6, [0x90, 0x90, 0x90]),
            (".debug_info", 0, debug),
            (".rela.debug_info", 0x40, new byte[24]),
            (".modinfo", 2, ModInfo(name, release, "", [])),
            (".debug_str", 0x30, debug[..(size / 2)]),
            (".symtab", 0, new byte[48]));
    }

    public static byte[] Elf(ushort machine, params (string Name, ulong Flags, byte[] Content)[] sections)
    {
        MemoryStream names = new();
        names.WriteByte(0);
        List<(int Name, ulong Flags, long Offset, byte[] Content)> placed = [];
        MemoryStream file = new();
        file.Write(new byte[64]);
        foreach ((string name, ulong flags, byte[] content) in sections.Append((".shstrtab", 0ul, [])))
        {
            int at = (int)names.Position;
            names.Write(Encoding.ASCII.GetBytes(name + '\0'));
            byte[] bytes = name == ".shstrtab" ? names.ToArray() : content;
            Pad(file);
            placed.Add((at, flags, file.Position, bytes));
            file.Write(bytes);
        }

        Pad(file);
        long table = file.Position;
        file.Write(new byte[64]);
        foreach ((int name, ulong flags, long offset, byte[] content) in placed)
        {
            byte[] header = new byte[64];
            BinaryPrimitives.WriteUInt32LittleEndian(header, (uint)name);
            BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(4), 1);
            BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(8), flags);
            BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(24), (ulong)offset);
            BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(32), (ulong)content.Length);
            BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(48), 8);
            file.Write(header);
        }

        byte[] elf = file.ToArray();
        "\u007fELF\u0002\u0001\u0001"u8.CopyTo(elf);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(16), 1);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(18), machine);
        BinaryPrimitives.WriteUInt64LittleEndian(elf.AsSpan(40), (ulong)table);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(58), 64);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(60), (ushort)(placed.Count + 1));
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(62), (ushort)placed.Count);
        return elf;
    }

    private static byte[] ModInfo(string name, string release, string depends, string[] more) =>
        Encoding.ASCII.GetBytes(string.Concat(
            new[] { "license=GPL", $"depends={depends}", "intree=Y", $"name={name}", $"vermagic={release} SMP preempt mod_unload modversions " }
                .Concat(more)
                .Select(entry => entry + '\0')));

    private static void Pad(MemoryStream stream)
    {
        while (stream.Position % 8 != 0)
        {
            stream.WriteByte(0);
        }
    }
}

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

    /// <summary>A module with the structure the kernel reads it by, whose entry point is stored at <paramref name="init"/>.</summary>
    public static byte[] BuildWithStructModule(string name, string release, int size, ulong init)
    {
        byte[] relocation = new byte[24];
        BinaryPrimitives.WriteUInt64LittleEndian(relocation, init);
        BinaryPrimitives.WriteUInt32LittleEndian(relocation.AsSpan(12), 1);
        byte[] symbols = new byte[48];
        BinaryPrimitives.WriteUInt32LittleEndian(symbols.AsSpan(24), 1);
        byte[] elf = Elf(
            X86,
            (".gnu.linkonce.this_module", 3, new byte[size]),
            (".rela.gnu.linkonce.this_module", 0x40, relocation),
            (".symtab", 0, symbols),
            (".strtab", 0, "\0init_module\0"u8.ToArray()),
            (".modinfo", 2, ModInfo(name, release, "", [])));
        int table = (int)BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(40));
        void Link(int section, uint type, uint link, uint info)
        {
            Span<byte> header = elf.AsSpan(table + (section * 64), 64);
            BinaryPrimitives.WriteUInt32LittleEndian(header[4..], type);
            BinaryPrimitives.WriteUInt32LittleEndian(header[40..], link);
            BinaryPrimitives.WriteUInt32LittleEndian(header[44..], info);
        }

        Link(2, 4, link: 3, info: 1);
        Link(3, 2, link: 4, info: 1);
        return elf;
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

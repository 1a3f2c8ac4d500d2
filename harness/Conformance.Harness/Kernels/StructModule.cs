// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kernels;

/// <summary>
/// How big a module believes <c>struct module</c> to be, and where in it its entry points go. Every module carries the structure
/// itself (.gnu.linkonce.this_module), laid out by the configuration it was built with; vermagic does not cover that. A kernel
/// with another layout answers ENOEXEC, or calls whatever lies where it looks for the entry point.
/// </summary>
/// <param name="Size">In bytes.</param>
/// <param name="Init">Offset of the pointer to init_module; null when it has none.</param>
/// <param name="Exit">Offset of the pointer to cleanup_module; null when it has none.</param>
internal readonly record struct StructModule(int Size, ulong? Init, ulong? Exit)
{
    private const uint SHT_RELA = 4;
    private const int RelocationSize = 24;
    private const int SymbolSize = 24;

    /// <summary>Whether a kernel that loads one loads the other, as far as both say.</summary>
    public bool Fits(StructModule other) =>
        Size == other.Size && (Init ?? other.Init) == (other.Init ?? Init) && (Exit ?? other.Exit) == (other.Exit ?? Exit);

    /// <inheritdoc/>
    public override string ToString() => $"{Size} bytes, init at {Offset(Init)}, exit at {Offset(Exit)}";

    /// <summary>Reads it from a module; null when there is none to be found.</summary>
    public static StructModule? Read(ElfObject elf)
    {
        int structure = IndexOf(elf, ".gnu.linkonce.this_module"u8);
        if (structure == 0)
        {
            return null;
        }

        ulong? init = null;
        ulong? exit = null;
        for (int section = 1; section < elf.Count; section++)
        {
            ReadOnlySpan<byte> header = elf.Header(section);
            if (BinaryPrimitives.ReadUInt32LittleEndian(header[4..]) != SHT_RELA || BinaryPrimitives.ReadUInt32LittleEndian(header[44..]) != structure)
            {
                continue;
            }

            int symbols = LinkOf(elf, section);
            ReadOnlySpan<byte> relocations = elf.Content(section);
            for (int at = 0; at + RelocationSize <= relocations.Length; at += RelocationSize)
            {
                ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(relocations[at..]);
                ReadOnlySpan<byte> name = SymbolName(elf, symbols, BinaryPrimitives.ReadUInt32LittleEndian(relocations[(at + 12)..]));
                if (name.SequenceEqual("init_module"u8))
                {
                    init = offset;
                }
                else if (name.SequenceEqual("cleanup_module"u8))
                {
                    exit = offset;
                }
            }
        }

        return new StructModule(elf.Content(structure).Length, init, exit);
    }

    private static string Offset(ulong? offset) => offset is { } o ? $"0x{o:x}" : "none";

    private static int IndexOf(ElfObject elf, ReadOnlySpan<byte> name)
    {
        for (int section = 1; section < elf.Count; section++)
        {
            if (elf.Name(section).SequenceEqual(name))
            {
                return section;
            }
        }

        return 0;
    }

    private static int LinkOf(ElfObject elf, int section)
    {
        uint link = BinaryPrimitives.ReadUInt32LittleEndian(elf.Header(section)[40..]);
        return link < elf.Count ? (int)link : 0;
    }

    private static ReadOnlySpan<byte> SymbolName(ElfObject elf, int table, uint symbol)
    {
        ReadOnlySpan<byte> symbols = elf.Content(table);
        if ((ulong)(symbol + 1L) * SymbolSize > (ulong)symbols.Length)
        {
            return default;
        }

        uint name = BinaryPrimitives.ReadUInt32LittleEndian(symbols[(int)(symbol * SymbolSize)..]);
        ReadOnlySpan<byte> strings = elf.Content(LinkOf(elf, table));
        if (name >= strings.Length)
        {
            return default;
        }

        ReadOnlySpan<byte> text = strings[(int)name..];
        int end = text.IndexOf((byte)0);
        return end < 0 ? default : text[..end];
    }
}

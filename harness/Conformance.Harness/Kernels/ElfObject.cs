// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kernels;

/// <summary>The sections of a 64-bit little-endian relocatable ELF file (elf.h), which is what a module is.</summary>
internal readonly ref struct ElfObject
{
    public const int FileHeaderSize = 64;
    private const ushort ET_REL = 1;
    private const uint SHT_NOBITS = 8;

    private readonly ReadOnlySpan<byte> _file;
    private readonly ReadOnlySpan<byte> _headers;
    private readonly ReadOnlySpan<byte> _names;

    /// <exception cref="InvalidDataException">It is something else; the message completes the sentence "PATH ...".</exception>
    public ElfObject(ReadOnlySpan<byte> file)
    {
        if (file.Length < FileHeaderSize || !file.StartsWith("\u007fELF"u8))
        {
            throw new InvalidDataException("is not an ELF file");
        }

        if (file[4] != 2 || file[5] != 1)
        {
            throw new InvalidDataException("is not a 64-bit little-endian ELF file");
        }

        if (BinaryPrimitives.ReadUInt16LittleEndian(file[16..]) != ET_REL)
        {
            throw new InvalidDataException("is an ELF file but not a relocatable one: it is a program, a library or vmlinux, not a module");
        }

        _file = file;
        Machine = BinaryPrimitives.ReadUInt16LittleEndian(file[18..]);
        HeaderSize = BinaryPrimitives.ReadUInt16LittleEndian(file[58..]);
        Count = BinaryPrimitives.ReadUInt16LittleEndian(file[60..]);
        int names = BinaryPrimitives.ReadUInt16LittleEndian(file[62..]);
        if (HeaderSize < 64 || names >= Count)
        {
            throw Damaged();
        }

        _headers = Slice(BinaryPrimitives.ReadUInt64LittleEndian(file[40..]), (ulong)(HeaderSize * Count));
        _names = Content(names);
    }

    /// <summary>EM_X86_64, EM_AARCH64 ...</summary>
    public ushort Machine { get; }

    /// <summary>Number of sections, counting the empty first one.</summary>
    public int Count { get; }

    /// <summary>Size of a section header, in bytes.</summary>
    public int HeaderSize { get; }

    /// <summary>The section header table.</summary>
    public ReadOnlySpan<byte> Headers => _headers;

    /// <summary>One section header.</summary>
    public ReadOnlySpan<byte> Header(int section) => _headers.Slice(section * HeaderSize, HeaderSize);

    /// <summary>A section's name.</summary>
    public ReadOnlySpan<byte> Name(int section)
    {
        uint offset = BinaryPrimitives.ReadUInt32LittleEndian(Header(section));
        if (offset >= _names.Length)
        {
            throw Damaged();
        }

        ReadOnlySpan<byte> name = _names[(int)offset..];
        int end = name.IndexOf((byte)0);
        return end >= 0 ? name[..end] : throw Damaged();
    }

    /// <summary>What a section occupies in the file; nothing for SHT_NOBITS.</summary>
    public ReadOnlySpan<byte> Content(int section)
    {
        ReadOnlySpan<byte> header = Header(section);
        return BinaryPrimitives.ReadUInt32LittleEndian(header[4..]) == SHT_NOBITS
            ? default
            : Slice(BinaryPrimitives.ReadUInt64LittleEndian(header[24..]), BinaryPrimitives.ReadUInt64LittleEndian(header[32..]));
    }

    /// <summary>The content of the first section of that name; empty when there is none.</summary>
    public ReadOnlySpan<byte> Find(ReadOnlySpan<byte> name)
    {
        for (int section = 1; section < Count; section++)
        {
            if (Name(section).SequenceEqual(name))
            {
                return Content(section);
            }
        }

        return default;
    }

    private static InvalidDataException Damaged() => new("is a truncated or damaged ELF file");

    private ReadOnlySpan<byte> Slice(ulong offset, ulong length) =>
        offset <= (ulong)_file.Length && length <= (ulong)_file.Length - offset
            ? _file.Slice((int)offset, (int)length)
            : throw Damaged();
}

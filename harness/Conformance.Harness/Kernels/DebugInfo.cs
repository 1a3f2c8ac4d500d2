// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kernels;

/// <summary>
/// Takes the debug information out of a module. A developer's build has tens of megabytes of it, which an emulated machine would
/// have to load at every boot, and which the kernel never looks at.
/// </summary>
internal static class DebugInfo
{
    private const ulong SHF_ALLOC = 2;

    // kernel/module_signature.c: a signature follows the ELF file and covers all of it.
    private static ReadOnlySpan<byte> SignatureMarker => "~Module signature appended~\n"u8;

    /// <summary>The module without debug information; the same array when there is none, or when a signature covers it.</summary>
    public static byte[] Remove(byte[] module)
    {
        if (module.AsSpan().EndsWith(SignatureMarker))
        {
            return module;
        }

        ElfObject elf = new(module);
        bool[] dropped = new bool[elf.Count];
        for (int i = 1; i < elf.Count; i++)
        {
            ReadOnlySpan<byte> name = elf.Name(i);
            bool isAllocated = (BinaryPrimitives.ReadUInt64LittleEndian(elf.Header(i)[8..]) & SHF_ALLOC) != 0;
            dropped[i] = !isAllocated && (name.StartsWith(".debug_"u8) || name.StartsWith(".rela.debug_"u8) || name.StartsWith(".gdb_index"u8));
        }

        if (!dropped.Contains(true))
        {
            return module;
        }

        // Section numbers stay as they are, so that no symbol and no link needs changing: a dropped section becomes an empty SHT_NULL.
        byte[] headers = elf.Headers.ToArray();
        MemoryStream output = new(module.Length / 4);
        output.Write(module.AsSpan(0, ElfObject.FileHeaderSize));
        for (int i = 1; i < elf.Count; i++)
        {
            Span<byte> header = headers.AsSpan(i * elf.HeaderSize, elf.HeaderSize);
            if (dropped[i])
            {
                header[4..].Clear();
                continue;
            }

            ulong alignment = Math.Max(1, BinaryPrimitives.ReadUInt64LittleEndian(header[48..]));
            Pad(output, (long)Math.Min(alignment, 4096));
            BinaryPrimitives.WriteUInt64LittleEndian(header[24..], (ulong)output.Position);
            output.Write(elf.Content(i));
        }

        Pad(output, 8);
        long newTable = output.Position;
        output.Write(headers);
        byte[] result = output.ToArray();
        BinaryPrimitives.WriteUInt64LittleEndian(result.AsSpan(40), (ulong)newTable);
        return result;
    }

    private static void Pad(MemoryStream output, long alignment)
    {
        while (output.Position % alignment != 0)
        {
            output.WriteByte(0);
        }
    }
}

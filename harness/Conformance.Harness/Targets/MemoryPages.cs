// SPDX-License-Identifier: MIT
using System.Buffers;
using System.Numerics;
using System.Runtime.InteropServices;

namespace Conformance.Targets;

/// <summary>The memory of a machine as a file: most of its pages are zero and take no room on disk.</summary>
internal static class MemoryPages
{
    private const int PageBytes = 4096;
    private const int BufferBytes = 1 << 20;

    /// <summary>A checksum over the pages that are not all zero and their places, and how many bytes they are.</summary>
    public static (uint Checksum, long Used) Sum(string file)
    {
        uint sum = 0;
        long used = 0;
        foreach ((long offset, ReadOnlyMemory<byte> page) in Used(file))
        {
            used += page.Length;
            sum = BitOperations.Crc32C(sum, (ulong)offset);
            foreach (ulong word in MemoryMarshal.Cast<byte, ulong>(page.Span))
            {
                sum = BitOperations.Crc32C(sum, word);
            }
        }

        return (sum, used);
    }

    /// <summary>Copies the file and leaves holes where it is zero.</summary>
    public static void Copy(string from, string to, CancellationToken cancellation)
    {
        using FileStream target = new(to, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, BufferSize = 0 });
        target.SetLength(new FileInfo(from).Length);
        foreach ((long offset, ReadOnlyMemory<byte> page) in Used(from))
        {
            cancellation.ThrowIfCancellationRequested();
            RandomAccess.Write(target.SafeFileHandle, page.Span, offset);
        }
    }

    private static IEnumerable<(long Offset, ReadOnlyMemory<byte> Page)> Used(string file)
    {
        using FileStream stream = new(file, new FileStreamOptions { Options = FileOptions.SequentialScan, BufferSize = 0 });
        byte[] buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        try
        {
            long at = 0;
            for (int read; (read = stream.ReadAtLeast(buffer.AsSpan(0, BufferBytes), BufferBytes, throwOnEndOfStream: false)) > 0; at += read)
            {
                for (int start = 0; start < read; start += PageBytes)
                {
                    ReadOnlyMemory<byte> page = buffer.AsMemory(start, Math.Min(PageBytes, read - start));
                    if (page.Span.ContainsAnyExcept((byte)0))
                    {
                        yield return (at + start, page);
                    }
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}

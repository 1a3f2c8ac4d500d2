// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.IO.Compression;

namespace Conformance.Kernels;

/// <summary>Reads a module file, compressed or not.</summary>
internal static class ModuleFile
{
    /// <summary>Whether a file is named like a module.</summary>
    public static bool HasModuleName(string path) =>
        path.EndsWith(".ko", StringComparison.Ordinal) || path.EndsWith(".ko.xz", StringComparison.Ordinal)
        || path.EndsWith(".ko.zst", StringComparison.Ordinal) || path.EndsWith(".ko.gz", StringComparison.Ordinal);

    /// <summary>The content, uncompressed.</summary>
    public static async Task<byte[]> ReadAsync(string path, CancellationToken cancellation) =>
        await Compression.UnpackAsync(await File.ReadAllBytesAsync(path, cancellation).ConfigureAwait(false), path, cancellation).ConfigureAwait(false);
}

/// <summary>Undoes the compressions that kernels and modules come in; what is not compressed is returned as it is.</summary>
internal static class Compression
{
    /// <summary>Unpacks by the magic number, not by the name.</summary>
    /// <exception cref="MachineFaultException">The tool for it is missing.</exception>
    /// <exception cref="UsageException">The data is damaged.</exception>
    public static async Task<byte[]> UnpackAsync(byte[] data, string path, CancellationToken cancellation)
    {
        ReadOnlySpan<byte> head = data;
        if (head.StartsWith((ReadOnlySpan<byte>)[0x1F, 0x8B]))
        {
            return await GunzipAsync(data, path, cancellation).ConfigureAwait(false);
        }

        if (head.StartsWith((ReadOnlySpan<byte>)[0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0]))
        {
            return await PipeAsync(data, path, "xz", ["-dc"], "xz-utils", cancellation).ConfigureAwait(false);
        }

        if (head.StartsWith((ReadOnlySpan<byte>)[0x28, 0xB5, 0x2F, 0xFD]))
        {
            return await PipeAsync(data, path, "zstd", ["-dcq"], "zstd", cancellation).ConfigureAwait(false);
        }

        // The frame format, and the legacy one that kernels are wrapped in.
        if (head.StartsWith((ReadOnlySpan<byte>)[0x04, 0x22, 0x4D, 0x18]) || head.StartsWith((ReadOnlySpan<byte>)[0x02, 0x21, 0x4C, 0x18]))
        {
            return await PipeAsync(data, path, "lz4", ["-dcq"], "lz4", cancellation).ConfigureAwait(false);
        }

        if (head.StartsWith((ReadOnlySpan<byte>)[0x5D, 0, 0]))
        {
            return await PipeAsync(data, path, "xz", ["-dc", "--format=lzma"], "xz-utils", cancellation).ConfigureAwait(false);
        }

        return data;
    }

    private static async Task<byte[]> GunzipAsync(byte[] data, string path, CancellationToken cancellation)
    {
        try
        {
            await using GZipStream stream = new(new MemoryStream(data), CompressionMode.Decompress);
            MemoryStream output = new();
            await stream.CopyToAsync(output, cancellation).ConfigureAwait(false);
            byte[] unpacked = output.ToArray();

            // GZipStream takes a file that ends early for one that ends. The last four bytes are the length (RFC 1952).
            return data.Length >= 18 && BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(data.Length - 4)) == (uint)unpacked.Length
                ? unpacked
                : throw new UsageException($"{path} is a truncated gzip file.");
        }
        catch (InvalidDataException e)
        {
            throw new UsageException($"{path} is a damaged gzip file: {e.Message}", e);
        }
    }

    private static async Task<byte[]> PipeAsync(byte[] data, string path, string program, string[] arguments, string package, CancellationToken cancellation)
    {
        MemoryStream output = new();
        (int code, string error) = await Tool.PipeAsync(
            program,
            arguments,
            package,
            new MemoryStream(data),
            stream => stream.CopyToAsync(output, cancellation),
            cancellation).ConfigureAwait(false);
        return code == 0 ? output.ToArray() : throw new UsageException($"{path} cannot be unpacked: {error.Trim()}");
    }
}

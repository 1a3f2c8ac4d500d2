// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace Conformance.Harness.Tests.Kernels;

/// <summary>Files that begin like kernels.</summary>
internal static class TinyImage
{
    public static byte[] BzImage(string release, bool is64Bit = true)
    {
        byte[] image = new byte[0x1000];
        "MZ"u8.CopyTo(image);
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x1FE), 0xAA55);
        "HdrS"u8.CopyTo(image.AsSpan(0x202));
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x206), 0x020F);
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x20E), 0x600);
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x236), (ushort)(is64Bit ? 0x7F : 0));
        Encoding.ASCII.GetBytes($"{release} (builder@machine) #1 SMP\0").CopyTo(image, 0x800);
        return image;
    }

    public static byte[] Arm64(string release)
    {
        byte[] image = new byte[0x1000];
        "ARMd"u8.CopyTo(image.AsSpan(56));

        // The kernel holds this format string too, before the banner itself.
        Encoding.ASCII.GetBytes("Linux version %s\0").CopyTo(image, 0x100);
        Encoding.ASCII.GetBytes($"Linux version {release} (builder@machine) #1 SMP\n\0").CopyTo(image, 0x400);
        return image;
    }

    public static byte[] Gzip(byte[] content)
    {
        MemoryStream output = new();
        using (GZipStream stream = new(output, CompressionLevel.Fastest))
        {
            stream.Write(content);
        }

        return output.ToArray();
    }

    /// <summary>An EFI program that unpacks itself (drivers/firmware/efi/libstub/zboot-header.S).</summary>
    public static byte[] Zboot(byte[] payload, int claimed = -1)
    {
        byte[] image = new byte[0x200 + payload.Length];
        "MZ"u8.CopyTo(image);
        "zimg"u8.CopyTo(image.AsSpan(4));
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(8), 0x200);
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(12), (uint)(claimed < 0 ? payload.Length : claimed));
        "gzip\0"u8.CopyTo(image.AsSpan(24));
        payload.CopyTo(image, 0x200);
        return image;
    }
}

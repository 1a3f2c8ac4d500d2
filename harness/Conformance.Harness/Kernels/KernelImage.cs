// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Text;

namespace Conformance.Kernels;

/// <summary>What a file turned out to be.</summary>
/// <param name="Release">What uname -r will print; null when the image does not say.</param>
/// <param name="Unwrapped">The bootable image, when the file is only a wrapping of it; null when the file itself boots.</param>
internal sealed record KernelImage(KernelArchitecture Architecture, string? Release, byte[]? Unwrapped)
{
    private const int BootFlagOffset = 0x1FE;
    private const int ArmMagicOffset = 56;

    /// <summary>
    /// Recognises a bootable image: x86 (Documentation/arch/x86/boot.rst) or arm64 (Documentation/arch/arm64/booting.rst), the
    /// latter also compressed, plainly or as a self-unpacking EFI program, which QEMU does not unpack itself.
    /// </summary>
    /// <exception cref="UsageException">It is something else; the message says what, and what to give instead.</exception>
    public static async Task<KernelImage> IdentifyAsync(string path, CancellationToken cancellation)
    {
        byte[] data = await File.ReadAllBytesAsync(path, cancellation).ConfigureAwait(false);
        if (TryRead(data, path) is { } image)
        {
            return image;
        }

        byte[] payload = data;
        if (IsZboot(data))
        {
            uint offset = BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(8));
            uint size = BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(12));
            if (offset > data.Length || size > data.Length - offset)
            {
                throw new UsageException($"{path} is a truncated EFI kernel image.");
            }

            payload = data.AsSpan((int)offset, (int)size).ToArray();
        }

        byte[] unpacked = await Compression.UnpackAsync(payload, path, cancellation).ConfigureAwait(false);
        if (!ReferenceEquals(unpacked, data) && TryRead(unpacked, path) is { } inner)
        {
            return inner with { Unwrapped = unpacked };
        }

        throw new UsageException($"{path} {Describe(data, unpacked)}");
    }

    private static KernelImage? TryRead(byte[] data, string path)
    {
        ReadOnlySpan<byte> span = data;
        if (span.Length > 0x250 && BinaryPrimitives.ReadUInt16LittleEndian(span[BootFlagOffset..]) == 0xAA55 && span[0x202..].StartsWith("HdrS"u8))
        {
            ushort protocol = BinaryPrimitives.ReadUInt16LittleEndian(span[0x206..]);
            bool is64Bit = protocol >= 0x020C && (BinaryPrimitives.ReadUInt16LittleEndian(span[0x236..]) & 1) != 0;
            if (!is64Bit)
            {
                throw new UsageException($"{path} is a 32-bit x86 kernel; the suites run on 64-bit kernels (CONFIG_64BIT=y).");
            }

            return new KernelImage(KernelArchitecture.X86_64, BzImageRelease(span), null);
        }

        if (span.Length > 64 && span[ArmMagicOffset..].StartsWith("ARMd"u8))
        {
            return new KernelImage(KernelArchitecture.Arm64, BannerRelease(span), null);
        }

        return null;
    }

    private static string? BzImageRelease(ReadOnlySpan<byte> data)
    {
        int offset = BinaryPrimitives.ReadUInt16LittleEndian(data[0x20E..]) + 0x200;
        return offset > 0x200 && offset < data.Length ? FirstWord(data[offset..]) : null;
    }

    // The arm64 header has no version; the banner the kernel prints first is in the image as it is.
    private static string? BannerRelease(ReadOnlySpan<byte> data)
    {
        ReadOnlySpan<byte> banner = "Linux version "u8;
        for (int at = data.IndexOf(banner); at >= 0;)
        {
            ReadOnlySpan<byte> rest = data[(at + banner.Length)..];
            if (rest.Length > 0 && char.IsAsciiDigit((char)rest[0]))
            {
                return FirstWord(rest);
            }

            int next = rest.IndexOf(banner);
            at = next < 0 ? -1 : at + banner.Length + next;
        }

        return null;
    }

    private static string? FirstWord(ReadOnlySpan<byte> text)
    {
        int end = text[..Math.Min(text.Length, 256)].IndexOfAny((byte)' ', (byte)0, (byte)'\n');
        return end > 0 ? Encoding.ASCII.GetString(text[..end]) : null;
    }

    private static bool IsZboot(ReadOnlySpan<byte> data) =>
        data.Length > 64 && data.StartsWith("MZ"u8) && data[4..].StartsWith("zimg"u8);

    private static string Describe(ReadOnlySpan<byte> data, ReadOnlySpan<byte> unpacked)
    {
        if (data.IsEmpty)
        {
            return "is empty.";
        }

        if (data.StartsWith("\u007fELF"u8) && data.Length > 20)
        {
            return BinaryPrimitives.ReadUInt16LittleEndian(data[16..]) == 1
                ? "is an object file or a module. To swap a module of a kernel: --kernel KERNEL --module NAME.ko=PATH."
                : "is an ELF file (vmlinux?), which is not what a boot loader takes. Give arch/x86/boot/bzImage or arch/arm64/boot/Image from the same build, or the build tree itself.";
        }

        if (data.StartsWith("!<arch>\n"u8))
        {
            return "is a package. Unpack it (dpkg-deb -x) and give the vmlinuz in it with ',modules=DIR', or name Debian's kernel as debian:VERSION.";
        }

        if (data.StartsWith("070701"u8) || unpacked.StartsWith("070701"u8))
        {
            return "is an initramfs, not a kernel. The suite makes its own; give the vmlinuz beside it.";
        }

        if (data.StartsWith("MZ"u8))
        {
            return "is an EFI program but not a Linux kernel for x86_64 or arm64. From a unified kernel image, take its .linux section (objcopy -O binary --only-section=.linux).";
        }

        return "is not a kernel image. Give a bzImage (x86_64) or an Image (arm64), as make or a distribution's vmlinuz has it.";
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class KernelImageTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task BzImageTellsItsRelease()
    {
        KernelImage image = await IdentifyAsync(TinyImage.BzImage("6.12.117+deb13-amd64"));

        image.Should().Be(new KernelImage(KernelArchitecture.X86_64, "6.12.117+deb13-amd64", null));
    }

    [Fact]
    public async Task Arm64ImageIsKnownByItsBanner()
    {
        KernelImage image = await IdentifyAsync(TinyImage.Arm64("7.2.13+deb14-arm64"));

        image.Should().Be(new KernelImage(KernelArchitecture.Arm64, "7.2.13+deb14-arm64", null));
    }

    [Fact]
    public async Task WrappedArm64ImageIsUnwrapped()
    {
        byte[] inner = TinyImage.Arm64("6.12.1");

        (await IdentifyAsync(TinyImage.Gzip(inner))).Unwrapped.Should().Equal(inner);
        (await IdentifyAsync(TinyImage.Zboot(TinyImage.Gzip(inner)))).Unwrapped.Should().Equal(inner);
    }

    public static TheoryData<byte[], string> OtherFiles()
    {
        byte[] vmlinux = TinyModule.Build("x", "1");
        vmlinux[16] = 2;
        byte[] program = new byte[0x1000];
        "MZ"u8.CopyTo(program);
        return new()
        {
            { [], "*is empty." },
            { vmlinux, "*vmlinux*arch/x86/boot/bzImage*" },
            { TinyModule.Build("kvm", "6.12"), "*is an object file or a module*--module NAME.ko=PATH*" },
            { "!<arch>\ndebian-binary"u8.ToArray(), "*is a package*debian:VERSION*" },
            { "070701000000"u8.ToArray(), "*is an initramfs, not a kernel*" },
            { TinyImage.Gzip("070701000000"u8.ToArray()), "*is an initramfs, not a kernel*" },
            { program, "*EFI program but not a Linux kernel*" },
            { "#!/bin/sh\n"u8.ToArray(), "*is not a kernel image*" },
            { TinyImage.BzImage("6.12", is64Bit: false), "*32-bit x86 kernel*" },
            { TinyImage.Zboot(TinyImage.Gzip(TinyImage.Arm64("6.12")), claimed: 1 << 20), "*truncated EFI kernel image*" },
            { TinyImage.Zboot(TinyImage.Gzip(new byte[100])), "*EFI program but not a Linux kernel*" },
            { TinyImage.Gzip(TinyImage.Arm64("6.12"))[..30], "*is a truncated gzip file." },
        };
    }

    [Theory]
    [MemberData(nameof(OtherFiles))]
    public async Task AnythingElseIsNamedForWhatItIs(byte[] content, string message)
    {
        Func<Task> identify = () => IdentifyAsync(content);

        (await identify.Should().ThrowAsync<UsageException>().WithMessage(message)).Which.Message.Should().StartWith(_folder["image"]);
    }

    private Task<KernelImage> IdentifyAsync(byte[] content)
    {
        File.WriteAllBytes(_folder["image"], content);
        return KernelImage.IdentifyAsync(_folder["image"], CancellationToken.None);
    }
}

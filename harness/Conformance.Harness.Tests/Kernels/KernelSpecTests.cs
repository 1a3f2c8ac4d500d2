// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class KernelSpecTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("debian:6.12", "6.12")]
    [InlineData("debian:7", "7")]
    [InlineData("debian:6.12.95", "6.12.95")]
    [InlineData("debian:7.3-rc7", "7.3~rc7")]
    [InlineData("debian:7.3~rc7", "7.3~rc7")]
    [InlineData("debian:6.12.117+deb12-amd64", "6.12.117+deb12-amd64")]
    [InlineData("debian:6.12.117-1~deb12u1", "6.12.117-1~deb12u1")]
    [InlineData("debian:5.10.0-46", "5.10.0-46")]
    public void DebianNamesAVersion(string text, string version) =>
        KernelSpec.Parse(text).Should().BeOfType<KernelSpec.Debian>().Which.Version.Should().Be(version);

    [Theory]
    [InlineData("debian:6.12:arm64", KernelArchitecture.Arm64)]
    [InlineData("debian:6.12:amd64", KernelArchitecture.X86_64)]
    [InlineData("debian:6.12", null)]
    public void DebianMayNameAnArchitecture(string text, KernelArchitecture? architecture) =>
        KernelSpec.Parse(text).Should().BeOfType<KernelSpec.Debian>().Which.Architecture.Should().Be(architecture);

    [Fact]
    public void FileIsAnImage()
    {
        string path = _folder["bzImage"];
        File.WriteAllText(path, "");

        KernelSpec.ImageFile image = KernelSpec.Parse(path).Should().BeOfType<KernelSpec.ImageFile>().Subject;

        image.Path.Should().Be(path);
        image.Modules.Should().BeNull();
    }

    [Fact]
    public void ImageMayHaveModules()
    {
        File.WriteAllText(_folder["bzImage"], "");

        KernelSpec spec = KernelSpec.Parse($"{_folder["bzImage"]},modules={_folder.Path}");

        spec.Should().BeOfType<KernelSpec.ImageFile>().Which.Modules.Should().Be(_folder.Path);
    }

    [Fact]
    public void PathMayHoldAComma()
    {
        File.WriteAllText(_folder["a,b"], "");

        KernelSpec.Parse(_folder["a,b"]).Should().BeOfType<KernelSpec.ImageFile>();
    }

    [Fact]
    public void DirectoryIsABuildTree() =>
        KernelSpec.Parse(_folder.Path + "/").Should().BeOfType<KernelSpec.BuildTree>();

    [Fact]
    public void HostIsThisMachine() => KernelSpec.Parse("host").Should().BeOfType<KernelSpec.Host>();

    [Fact]
    public void SshNamesAMachine() =>
        KernelSpec.Parse("ssh:root@board").Should().BeOfType<KernelSpec.Ssh>().Which.Destination.Should().Be("root@board");

    [Fact]
    public void TextIsKept() => KernelSpec.Parse("debian:7.3-rc7").ToString().Should().Be("debian:7.3-rc7");

    [Theory]
    [InlineData("", "*kernel is empty*debian:6.12*")]
    [InlineData("debian:", "*which version?*debian:6.12*")]
    [InlineData("debian:latest", "*'latest' is not a kernel version*")]
    [InlineData("debian:6.12:riscv64", "*'riscv64' is not an architecture*debian:6.12:amd64*")]
    [InlineData("debian:6.12; rm", "*not a kernel version*")]
    [InlineData("ssh:", "*ssh:root@board*")]
    [InlineData("ssh:-oProxyCommand=x", "*does not start with '-'*")]
    [InlineData("ssh:a b", "*ssh:root@board*")]
    [InlineData("6.12", "*write debian:6.12.")]
    [InlineData("v6.12", "*write debian:6.12.")]
    [InlineData("debian-6.12", "*write debian:6.12.")]
    [InlineData("ubuntu:6.8", "*'ubuntu:' is not a source of kernels*debian:VERSION*")]
    [InlineData("/no/such/bzImage", "*no file or directory '/no/such/bzImage'*")]
    public void BadTextSaysWhatToWrite(string text, string message)
    {
        Action parse = () => KernelSpec.Parse(text);

        parse.Should().Throw<UsageException>().WithMessage(message);
    }

    [Theory]
    [InlineData("nowhere", "*no module directory 'nowhere'*modules_install*")]
    [InlineData("/proc/version", "*is a file*--module NAME.ko=PATH*")]
    public void BadModuleDirectorySaysWhatToGive(string modules, string message)
    {
        File.WriteAllText(_folder["bzImage"], "");
        Action parse = () => KernelSpec.Parse($"{_folder["bzImage"]},modules={modules}");

        parse.Should().Throw<UsageException>().WithMessage(message);
    }

    [Fact]
    public void BuildTreeTakesNoOtherModules()
    {
        Action parse = () => KernelSpec.Parse($"{_folder.Path},modules={_folder.Path}");

        parse.Should().Throw<UsageException>().WithMessage("*brings its own modules*");
    }
}

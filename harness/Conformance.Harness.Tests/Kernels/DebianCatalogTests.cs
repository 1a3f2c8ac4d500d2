// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class DebianCatalogTests
{
    private const long Whole = 100_000_000;

    [Theory]
    [InlineData("7", "7.2.13+deb14-amd64")]
    [InlineData("6", "6.18.15+deb13-amd64")]
    [InlineData("6.12", "6.12.117+deb13-amd64")]
    [InlineData("6.12.95", "6.12.95+deb13-amd64")]
    [InlineData("6.1", "6.1.0-56-amd64")]
    [InlineData("5.10", "5.10.0-46-amd64")]
    [InlineData("7.3", "7.3-amd64")]
    [InlineData("7.3~rc7", "7.3-amd64")]
    [InlineData("6.12.117+deb12", "6.12.117+deb12-amd64")]
    [InlineData("6.12.95+deb13-amd64", "6.12.95+deb13-amd64")]
    [InlineData("5.10.0-45", "5.10.0-45-amd64")]
    [InlineData("6.12.117-1~deb12u1", "6.12.117+deb12-amd64")]
    public void NewestMatchIsTaken(string wanted, string release) =>
        Archive().Match(wanted, KernelArchitecture.X86_64)[0].Release.Should().Be(release);

    [Theory]
    [InlineData("6.2")]
    [InlineData("6.12.9")]
    [InlineData("6.1.0-56-arm64")]
    public void NumberIsNotAPrefixOfAnother(string wanted) =>
        Archive().Match(wanted, KernelArchitecture.X86_64).Should().BeEmpty();

    [Fact]
    public void SecurityUpdateComesBeforeTheSuiteItUpdates() =>
        Archive().Match("6.12", KernelArchitecture.X86_64).Select(k => $"{k.Version} {k.Suite}").Should().Equal(
            "6.12.117-1 trixie-security",
            "6.12.117-1~deb12u1 bookworm-security",
            "6.12.95-1 trixie",
            "6.12.94-1~bpo12+1 bookworm-backports");

    [Fact]
    public void ReleaseCandidateComesLast() =>
        Archive().Match("7", KernelArchitecture.X86_64).Select(k => k.Release).Should().Equal("7.2.13+deb14-amd64", "7.3-amd64");

    [Theory]
    [InlineData("linux-image-6.12.1+deb13-rt-amd64")]
    [InlineData("linux-image-6.12.1+deb13-cloud-amd64")]
    [InlineData("linux-image-6.12.1+deb13-arm64-16k")]
    [InlineData("linux-image-6.12.1+deb13-arm64-16k-unsigned")]
    [InlineData("linux-image-6.12.1+deb13-amd64-dbg")]
    [InlineData("linux-image-6.12-amd64-signed-template")]
    [InlineData("linux-image-amd64")]
    [InlineData("linux-headers-6.12.1+deb13-amd64")]
    [InlineData("linux-modules-6.12.1+deb13-cloud-amd64")]
    [InlineData("linux-image-5.10.0-46-rt-amd64")]
    public void OtherFlavoursAreNoKernelsOfOurs(string name) => DebianPackage.Classify(name).Should().BeNull();

    [Fact]
    public void PackageOfDependenciesIsNoKernel() =>
        new DebianCatalog([Package("linux-image-6.12-amd64", "6.12.117-1", 1476)]).Kernels.Should().BeEmpty();

    [Fact]
    public void SplitKernelNeedsItsModules() =>
        new DebianCatalog(
        [
            Package("linux-image-7.1.1-amd64", "7.1.1-1", 1900),
            Package("linux-binary-7.1.1-amd64", "7.1.1-1", 14_000_000),
        ]).Kernels.Should().BeEmpty();

    [Fact]
    public void SplitKernelIsPutTogether() =>
        Archive().Match("7.2", KernelArchitecture.X86_64)[0].Packages.Select(p => p.Name).Should().Equal(
            "linux-binary-7.2.13+deb14-amd64",
            "linux-modules-7.2.13+deb14-amd64",
            "linux-base-7.2.13+deb14-amd64");

    [Fact]
    public void UnsignedIsTakenOnlyAlone()
    {
        DebianCatalog catalog = new(
        [
            Package("linux-image-6.1.0-1-amd64-unsigned", "6.1.1-1", Whole),
            Package("linux-image-6.1.0-2-amd64-unsigned", "6.1.2-1", Whole),
            Package("linux-image-6.1.0-2-amd64", "6.1.2-1", Whole),
            Package("linux-binary-unsigned-7.3.4-amd64", "7.3.4-1", 14_000_000),
            Package("linux-modules-7.3.4-amd64", "7.3.4-1", Whole),
        ]);

        catalog.Kernels.Select(k => $"{k.Release} {k.Packages[0].Name}").Should().BeEquivalentTo(
            "6.1.0-1-amd64 linux-image-6.1.0-1-amd64-unsigned",
            "6.1.0-2-amd64 linux-image-6.1.0-2-amd64",
            "7.3.4-amd64 linux-binary-unsigned-7.3.4-amd64");
    }

    [Fact]
    public void SeriesAreListedOldestFirst() =>
        Archive().Series(KernelArchitecture.X86_64).Should().Equal("5.10.262", "6.1.192", "6.12.117", "6.18.15", "7.2.13", "7.3~rc7");

    [Fact]
    public void CacheKeyFollowsTheContent()
    {
        DebianKernel one = Archive().Match("7.2", KernelArchitecture.X86_64)[0];
        DebianKernel other = one with { Packages = [.. one.Packages.Select(p => p with { Sha256 = new string('f', 64) })] };

        one.CacheKey.Should().StartWith("7.2.13+deb14-amd64-").And.NotBe(other.CacheKey);
    }

    private static DebianCatalog Archive() => new(
    [
        Package("linux-image-6.12.94+deb12-amd64", "6.12.94-1~bpo12+1", Whole, "bookworm-backports"),
        Package("linux-image-6.12.95+deb13-amd64", "6.12.95-1", Whole, "trixie"),
        Package("linux-image-6.12.117+deb12-amd64", "6.12.117-1~deb12u1", Whole, "bookworm-security"),
        Package("linux-image-6.12.117+deb13-amd64", "6.12.117-1", Whole, "trixie-security"),
        Package("linux-image-6.12.117+deb13-arm64", "6.12.117-1", Whole, "trixie-security"),
        Package("linux-image-6.18.15+deb13-amd64", "6.18.15-1~bpo13+1", Whole, "trixie-backports"),
        Package("linux-image-6.1.0-55-amd64", "6.1.192-1", Whole),
        Package("linux-image-6.1.0-56-amd64", "6.1.192-2", Whole),
        Package("linux-image-6.1.0-56-arm64", "6.1.192-2", Whole),
        Package("linux-image-6.1.0-0.deb11.52-amd64", "6.1.180-1~deb11u1", Whole),
        Package("linux-image-5.10.0-45-amd64", "5.10.259-1", Whole),
        Package("linux-image-5.10.0-46-amd64", "5.10.262-1", Whole),
        Package("linux-binary-7.2.13+deb14-amd64", "7.2.13-1", 14_000_000, "sid"),
        Package("linux-modules-7.2.13+deb14-amd64", "7.2.13-1", Whole, "sid"),
        Package("linux-base-7.2.13+deb14-amd64", "7.2.13-1", 470_000, "sid"),
        Package("linux-image-7.2.13+deb14-amd64", "7.2.13-1", 1892, "sid"),
        Package("linux-binary-7.3-amd64", "7.3~rc7-1~exp1", 14_000_000, "experimental"),
        Package("linux-modules-7.3-amd64", "7.3~rc7-1~exp1", Whole, "experimental"),
    ]);

    private static DebianPackage Package(string name, string version, long size, string suite = "sid") =>
        new(name, version, name.Contains("arm64") ? "arm64" : "amd64", suite, "http://mirror/debian/", $"pool/{name}.deb", size, Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(System.Text.Encoding.ASCII.GetBytes(name + version))));
}

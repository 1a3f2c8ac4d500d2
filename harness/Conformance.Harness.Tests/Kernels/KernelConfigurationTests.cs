// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class KernelConfigurationTests
{
    private const string Enough = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_BINFMT_ELF=y\nCONFIG_PCI=y\nCONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_CONSOLE=y\n";

    [Theory]
    [InlineData("VIRTIO_PCI", 'm')]
    [InlineData("PCI", 'y')]
    [InlineData("KVM", 'n')]
    [InlineData("LOCALVERSION", 'n')]
    public void OptionIsBuiltInModularOrOff(string option, char value) =>
        KernelConfiguration.Parse(Enough + "# CONFIG_KVM is not set\nCONFIG_LOCALVERSION=\"-x\"\n")[option].Should().Be(value);

    [Fact]
    public void SufficientKernelHasNoObstacles() => KernelConfiguration.Parse(Enough).Obstacles.Should().BeEmpty();

    [Fact]
    public void MissingOptionsAreNamed() =>
        KernelConfiguration.Parse(Enough.Replace("CONFIG_BLK_DEV_INITRD=y", "").Replace("CONFIG_VIRTIO_CONSOLE=y", "# CONFIG_VIRTIO_CONSOLE is not set"))
            .Obstacles.Should().Equal("CONFIG_BLK_DEV_INITRD", "CONFIG_VIRTIO_CONSOLE");

    [Fact]
    public void DoubtsSayWhatFollows()
    {
        IReadOnlyList<string> doubts = KernelConfiguration.Parse(Enough + "CONFIG_KVM=m\n").Doubts(KernelArchitecture.Arm64);

        doubts.Should().Contain("CONFIG_VFIO_PCI is off: every claim about VFIO is skipped");
        doubts.Should().NotContain(d => d.Contains("CONFIG_KVM") || d.Contains("INTEL_IOMMU"));
    }
}

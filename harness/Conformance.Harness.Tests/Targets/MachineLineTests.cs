// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

public sealed class MachineLineTests
{
    [Theory]
    [InlineData(KernelArchitecture.X86_64)]
    [InlineData(KernelArchitecture.Arm64)]
    public void MachineIsBuiltOfPartsThatCanBeSaved(KernelArchitecture architecture)
    {
        string line = string.Join(' ', MachineLine.For(architecture).Machine(new MachineOptions { Iommu = true, Devices = ["e1000e"] }, null));
        line.Should().Contain("tcg,thread=single").And.Contain("-m 512M").And.NotContain("amd-iommu")
            .And.Contain(architecture == KernelArchitecture.Arm64 ? "iommu=smmuv3" : "intel-iommu,intremap=on")
            .And.Contain("-device pcie-root-port,id=port0,slot=1,chassis=1 -device e1000e,bus=port0,romfile=");
    }

    [Fact]
    public void MemoryFileIsSharedOnlyByTheMachineThatIsSaved()
    {
        MachineLine line = MachineLine.For(KernelArchitecture.X86_64);
        line.Machine(new MachineOptions(), new MemoryFile("/a,b", Shared: true)).Should().Contain("memory-backend-file,id=ram,size=512M,mem-path=/a,,b,share=on");
        line.Machine(new MachineOptions(), new MemoryFile("/a", Shared: false)).Should().Contain("memory-backend-file,id=ram,size=512M,mem-path=/a,share=off");
    }

    [Theory]
    [InlineData("nvme,serial=1", "nvme")]
    [InlineData("edu", "edu")]
    [InlineData("e1000e", null)]
    public void DevicesWithoutSavedStateAreKnown(string device, string? unsaved) =>
        MachineLine.Unsaved(new MachineOptions { Devices = ["e1000e", device] }).Should().Be(unsaved);

    [Theory]
    [InlineData("nokaslr", 5)]
    [InlineData("quiet", 5)]
    [InlineData("loglevel=3", 5)]
    [InlineData("nokaslr loglevel=8", 8)]
    [InlineData("debug", 10)]
    public void NoArgumentOfTheUserHidesWarnings(string added, int level) =>
        MachineLine.For(KernelArchitecture.X86_64).CommandLine(new MachineOptions { ExtraKernelArguments = [added] })
            .Should().StartWith("panic=-1 ").And.EndWith($" {added} loglevel={level} printk.time=1 printk.devkmsg=on");
}

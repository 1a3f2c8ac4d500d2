// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class LevelInfoTests(KernelUnderTest kernel)
{
    private static readonly Spi s_spi = new(41);

    [Fact]
    [Clause("arm-level-info/reads-the-lines")]
    public async Task LinesReadAsTheyAre()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(irqs: 96);
        foreach (uint intid in new uint[] { 32, 41, 63, 64, 95 })
        {
            await vm.Gic.ConfigureAsync(new Spi(intid), edge: false);
            await vm.IrqLineAsync(new Spi(intid), true);
        }

        // An edge triggered interrupt has no level.
        await vm.IrqLineAsync(new Spi(50), true);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(0x8000_0201);
        (await vm.Gic.ReadLinesAsync(64)).Should().Be(0x8000_0001);
        (await vm.Gic.ReadLinesAsync(0)).Should().Be(0);
        await vm.IrqLineAsync(new Spi(41), false);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(0x8000_0001);
    }

    [Theory]
    [InlineData(1u, Errno.EINVAL)]
    [InlineData(31u, Errno.EINVAL)]
    [InlineData(48u, Errno.EINVAL)]
    [InlineData(64u, Errno.None)]
    [InlineData(96u, Errno.None)]
    [InlineData(992u, Errno.None)]
    [Clause("arm-level-info/multiple-of-32")]
    [Clause("arm-level-info/out-of-range-is-ignored")]
    public async Task FirstInterruptIsAMultipleOfThirtyTwo(uint first, Errno expected)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(irqs: 96);
        (await vm.Gic.TryWriteLinesAsync(0, first, uint.MaxValue)).Should().Be(expected);
        (Errno error, uint lines) = await vm.Gic.TryReadLinesAsync(0, first);
        error.Should().Be(expected);
        if (expected == Errno.None)
        {
            // The SPIs are edge triggered from the start, so none of the lines that were set reads as a level.
            lines.Should().Be(0);
        }
    }

    [Theory]
    [InlineData(1u)]
    [InlineData(0x3fffffu)]
    [Clause("arm-level-info/only-line-level")]
    public async Task OtherInformationIsRefused(uint info)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        (await vm.Gic.TryReadLinesAsync(0, 32, info)).Error.Should().Be(Errno.EINVAL);
        (await vm.Gic.TryWriteLinesAsync(0, 32, 0, info)).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-level-info/sgis-are-ignored")]
    public async Task SgisHaveNoLines()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.WriteLinesAsync(0, uint.MaxValue);
        (await vm.Gic.ReadLinesAsync(0)).Should().Be(0xffff_0000);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("SGIs are not raised, and no PPI is enabled");
    }

    [Fact]
    [Clause("arm-level-info/ppis-per-vcpu")]
    public async Task PpisHaveLinesPerVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.WriteLinesAsync(0, 0x0010_0000, vcpuId: 1);
        (await vm.Gic.ReadLinesAsync(0, 0)).Should().Be(0);
        (await vm.Gic.ReadLinesAsync(0, 1)).Should().Be(0x0010_0000);
    }

    [Fact]
    [Clause("arm-level-info/write-makes-pending")]
    public async Task LineSetByTheAttributeIsTaken()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi, edge: false, vcpuId: 1);
        await vm.Gic.WriteLinesAsync(32, 1u << 9);
        await vm.Vcpus[1].SetHandlerAsync(s_spi, HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)));
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_spi);
        await vm.Gic.WriteLinesAsync(32, 0);
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-level-info/before-the-configuration")]
    public async Task LineMayBeSetBeforeTheInterruptIsLevel()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.WriteLinesAsync(32, 1u << 9);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(0);
        await vm.Gic.ConfigureAsync(s_spi, edge: false);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(1u << 9);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>ISPENDR and ICPENDR: the latch and the line, as user space and as the guest see them.</summary>
public sealed class PendingLatchTests(KernelUnderTest kernel)
{
    private const uint Bit = 1u << 9;
    private const uint Set = Gicd.Ispendr + 4;
    private const uint Clear = Gicd.Icpendr + 4;
    private static readonly Spi s_spi = new(41);

    [Fact]
    [Clause("arm-pending/user-space-sees-the-latch")]
    public async Task UserSpaceSeesTheLatchWithoutTheLine()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.ConfigureAsync(s_spi, edge: false);
        await vm.IrqLineAsync(s_spi, true);
        (await vm.Gic.ReadDistributorAsync(Set)).Should().Be(0, "a line is not latched");
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LoadDistributor(Set)).Add(Arm64Command.LoadDistributor(Clear)));
        results.Select(r => r.Value).Should().Equal([Bit, Bit], "the guest sees latch or line");
    }

    [Fact]
    [Clause("arm-pending/user-space-sees-the-latch")]
    public async Task EdgeIsLatched()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        (await vm.Gic.ReadDistributorAsync(Set)).Should().Be(Bit);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
        (await vm.Gic.ReadDistributorAsync(Set)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-pending/user-space-write-replaces")]
    public async Task UserSpaceWriteReplacesTheLatches()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.Gic.EnableAsync(new Spi(42));
        await vm.Gic.WriteDistributorAsync(Set, Bit);
        (await vm.Gic.ReadDistributorAsync(Set)).Should().Be(Bit);
        await vm.Gic.WriteDistributorAsync(Set, 2 * Bit);
        (await vm.Gic.ReadDistributorAsync(Set)).Should().Be(2 * Bit, "a bit that is not written is cleared");
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(42));
    }

    [Fact]
    [Clause("arm-pending/icpendr-of-user-space")]
    public async Task ClearRegisterIsNothingToUserSpace()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        (await vm.Gic.ReadDistributorAsync(Clear)).Should().Be(0);
        await vm.Gic.WriteDistributorAsync(Clear, Bit);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("arm-pending/guest-sets-and-clears")]
    public async Task GuestSetsAndClearsTheLatch(bool edge)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi, edge);
        await vm.Gic.EnableAsync(new Spi(43), edge);
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.StoreDistributor(Set, Bit | (4 * Bit)), Arm64Command.StoreDistributor(Clear, 4 * Bit),
            Arm64Command.StoreDistributor(Set, 0))).Should().Equal([s_spi], "the other was cleared again, and zeroes do nothing");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("a latched level is pending once");
    }

    [Fact]
    [Clause("arm-pending/clear-does-not-lower-the-line")]
    public async Task ClearingTheLatchDoesNotLowerTheLine()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.IrqLineAsync(s_spi, true);
        await vm.Vcpus[0].SetHandlerAsync(s_spi, HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(Arm64Command.StoreDistributor(Clear, Bit))
            .Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)));
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_spi);
        await vm.IrqLineAsync(s_spi, false);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-pending/private-interrupts")]
    public async Task PrivateInterruptsAreLatchedPerVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(new Ppi(20), vcpuId: 1);
        await vm.Gic.WriteRedistributorAsync(1, Gicr.Ispendr0, (1u << 20) | (1u << 3));
        (await vm.Gic.ReadRedistributorAsync(1, Gicr.Ispendr0)).Should().Be((1u << 20) | (1u << 3));
        (await vm.Gic.ReadRedistributorAsync(0, Gicr.Ispendr0)).Should().Be(0);
        (await vm.Gic.ReadRedistributorAsync(1, Gicr.Icpendr0)).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEquivalentTo(new IntId[] { new Ppi(20), new Sgi(3) });
    }

    [Fact]
    [Clause("arm-pending/private-interrupts")]
    public async Task GuestLatchesPrivateInterruptsOfAnotherVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Ispendr0, (1u << 3) | (1u << 4)))
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Icpendr0, 1u << 4)));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(new Sgi(3));
    }

    [Fact]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task GuestsWriteWakesAnotherVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi, vcpuId: 1);
        await vm.Vcpus[1].HaltUntilTakenAsync(s_spi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Set, Bit)));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_spi);
    }
}

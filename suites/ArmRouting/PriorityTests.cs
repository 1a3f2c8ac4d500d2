// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class PriorityTests(KernelUnderTest kernel)
{
    [Theory]
    [InlineData(3)]
    [InlineData(12)]
    [Clause("arm-priority/higher-first")]
    [Clause("arm-msi/more-lpis-than-list-registers")]
    public async Task HigherPrioritiesAreTakenFirst(int count)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        // Raised from the lowest priority to the highest; 12 are more than there are list registers.
        for (int n = 0; n < count; n++)
        {
            await vm.Gic.EnableAsync(new Spi((uint)(40 + n)), priority: (byte)(0xd0 - (n * 8)));
        }

        for (int n = 0; n < count; n++)
        {
            await vm.PulseAsync(new Spi((uint)(40 + n)));
        }

        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(Enumerable.Range(0, count).Reverse().Select(n => (IntId)new Spi((uint)(40 + n))));
    }

    [Fact]
    [Clause("arm-priority/higher-first")]
    public async Task HigherPrioritiesAreTakenFirstWhateverTheirNumber()
    {
        const int Most = 17;
        await using Vm vm = await kernel.CreateGicVmAsync();
        for (int n = 0; n < Most; n++)
        {
            await vm.Gic.EnableAsync(new Spi((uint)(40 + n)), priority: (byte)(0xd0 - (n * 8)));
        }

        // One, two, three and so on, among them as many as there are list registers, raised from the lowest priority up while the guest does nothing.
        var script = new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn);
        for (uint count = 1; count <= Most; count++)
        {
            script.Add(GuestCommand.Ask()).Add(GuestCommand.SpinUntil(new GuestCondition(vm.Vcpus[0].TakenAddress(new Spi(40)), Comparison.AtLeast, count)));
        }

        await vm.Vcpus[0].StartAsync(script.Add(GuestCommand.InterruptsOff));
        var expected = new List<IntId>();
        for (int count = 1; count <= Most; count++)
        {
            await vm.Vcpus[0].NextExitAsync();
            for (int n = 0; n < count; n++)
            {
                await vm.PulseAsync(new Spi((uint)(40 + n)));
            }

            expected.AddRange(Enumerable.Range(0, count).Reverse().Select(n => (IntId)new Spi((uint)(40 + n))));
            await vm.Vcpus[0].ResumeAsync();
        }

        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(expected);
    }

    [Fact]
    [Clause("arm-priority/preemption")]
    public async Task HigherPriorityPreemptsAHandler()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        Spi low = new(40), high = new(41), lower = new(42);
        await vm.Gic.EnableAsync(low, priority: 0x80);
        await vm.Gic.EnableAsync(high, priority: 0x40);
        await vm.Gic.EnableAsync(lower, priority: 0xc0);
        uint others = (1u << 9) | (1u << 10);
        await vm.Vcpus[0].SetHandlersAsync(new HandlerTable().Set(new ApicVector(((IntId)low).Slot),
            HandlerPolicy.Default with { Nest = true, Actions = [HandlerAction.Store(Arm64Layout.Distributor + Gicd.Ispendr + 4, others)] }));
        await vm.PulseAsync(low);
        await vm.Vcpus[0].ExecuteAsync(vm.Vcpus[0].TakeScript());
        InterruptLog log = await vm.Vcpus[0].ReadLogAsync();
        log.Where(r => r.IntId != Vcpu.FenceSgi).Select(r => (r.IntId, r.Depth)).Should().Equal(((IntId)low, 1), ((IntId)high, 2), ((IntId)lower, 1));
    }

    [Theory]
    [InlineData(0x80, false)]
    [InlineData(0x88, true)]
    [Clause("arm-priority/mask")]
    public async Task OnlyPrioritiesAboveTheMaskAreTaken(byte mask, bool taken)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(new Spi(40), priority: 0x80);
        await vm.PulseAsync(new Spi(40));
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(mask)).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(GuestCommand.InterruptsOff));
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(taken ? [new Spi(40)] : Array.Empty<IntId>());
    }

    [Fact]
    [Clause("arm-priority/masked-does-not-wake")]
    public async Task InterruptBelowTheMaskDoesNotWakeAHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(new Spi(40), priority: 0x80);
        await vm.Gic.EnableAsync(new Spi(41), priority: 0x40);
        await vm.Vcpus[0].StartAsync(new GuestScript().Add(Arm64Command.EnableGic(priorityMask: 0x80)).Add(GuestCommand.HaltOnce()));
        await vm.Vcpus[0].WaitUntilHaltingAsync();
        await vm.Vcpus[0].WaitUntilBlockedAsync();
        await vm.PulseAsync(new Spi(40));
        // The kick made it look; it must have gone back to sleep, and wakes for the second only.
        await vm.Vcpus[0].WaitUntilBlockedAsync();
        await vm.PulseAsync(new Spi(41));
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(new Spi(41));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(40));
    }

    [Fact]
    [Clause("arm-priority/active-does-not-wake")]
    public async Task ActiveInterruptDoesNotWakeAHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(new Spi(40));
        await vm.Gic.EnableAsync(new Spi(41));
        await vm.PulseAsync(new Spi(40));
        await vm.Vcpus[0].StartAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.HaltUntilTaken(new Spi(40), quiet: true)).Add(GuestCommand.HaltOnce()));
        await vm.Vcpus[0].WaitUntilHaltingAsync();
        // Active and pending again: it must wait for its deactivation, and so must the vCPU for something else.
        await vm.PulseAsync(new Spi(40));
        await vm.Vcpus[0].WaitUntilBlockedAsync();
        await vm.PulseAsync(new Spi(41));
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(new Spi(40), new Spi(41));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("arm-priority/any-ends-a-halt")]
    public async Task InterruptAboveTheMaskEndsAHaltWhicheverCameLast(bool first)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        Spi masked = new(40), above = new(41);
        await vm.Gic.EnableAsync(masked, priority: 0x80);
        await vm.Gic.EnableAsync(above, priority: 0x40);
        await vm.PulseAsync(first ? above : masked);
        await vm.PulseAsync(first ? masked : above);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(priorityMask: 0x80)).Add(Arm64Command.Suspend, out int suspend));
        results[suspend].Value.Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(above, masked);
    }

    [Fact]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task InterruptThatAnotherVcpuDeactivatedWakesAHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        var spi = new Spi(40);
        await vm.Gic.EnableAsync(spi);
        await vm.PulseAsync(spi);
        await vm.Vcpus[0].StartAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.HaltUntilTaken(spi, quiet: true)).Add(GuestCommand.HaltOnce()));
        await vm.Vcpus[0].WaitUntilHaltingAsync();
        await vm.Vcpus[0].WaitUntilBlockedAsync();
        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Bit(Gicd.Icactiver, spi), Gicd.Mask(spi))));
        await vm.Vcpus[0].WaitUntilBlockedAsync();
        // It is queued for the vCPU still, which has not run since.
        await vm.PulseAsync(spi);
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(spi, spi);
    }

    [Fact]
    [Clause("arm-priority/disabled-has-no-place")]
    public async Task DisabledInterruptDoesNotHoldBackOneOfHighPriority()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        Spi[] low = [.. Enumerable.Range(40, 16).Select(n => new Spi((uint)n))];
        Spi disabled = new(60), high = new(61);
        foreach (Spi spi in low)
        {
            await vm.Gic.EnableAsync(spi, priority: 0x80);
        }

        await vm.Gic.EnableAsync(disabled, priority: 0x10);
        await vm.Gic.EnableAsync(high, priority: 0x20);
        // It has taken one, so its handler is mapped; it takes the others when it comes back, before anything can make KVM look once more.
        await vm.PulseAsync(high);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(high);
        await vm.Vcpus[0].StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Ask())
            .Add(GuestCommand.InterruptsOff).AddRange(vm.Vcpus[0].Fence()));
        await vm.Vcpus[0].NextExitAsync();
        foreach (Spi spi in low.Append(disabled).Append(high))
        {
            await vm.PulseAsync(spi);
        }

        await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Icenabler, disabled), Gicd.Mask(disabled));
        await vm.Vcpus[0].ResumeAsync();
        await vm.Vcpus[0].FinishAsync();
        IntId[] taken = await vm.Vcpus[0].TakenAsync();
        taken.Should().HaveCount(17).And.NotContain(disabled);
        taken[0].Should().Be((IntId)high);
    }

    [Fact]
    [Clause("arm-priority/refill")]
    public async Task ListRegistersAreFilledAgainAsTheyRunEmpty()
    {
        const int Count = 12;
        await using Vm vm = await kernel.CreateGicVmAsync();
        for (uint n = 0; n < Count; n++)
        {
            await vm.Gic.EnableAsync(new Spi(40 + n), priority: (byte)(0x20 + (n * 8)));
        }

        // The guest reads memory without an exit of its own; a bound in reads, not in time, for what the GIC's maintenance interrupt does.
        var last = new Spi(40 + Count - 1);
        var script = new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn);
        var spins = new List<int>();
        for (uint round = 1; round <= 4; round++)
        {
            script.Add(GuestCommand.Ask())
                .Add(GuestCommand.SpinUntil(new GuestCondition(vm.Vcpus[0].TakenAddress(last), Comparison.AtLeast, round), mostReads: 2_000), out int spin);
            spins.Add(spin);
        }

        await vm.Vcpus[0].StartAsync(script.Add(GuestCommand.InterruptsOff));
        for (int round = 0; round < spins.Count; round++)
        {
            await vm.Vcpus[0].NextExitAsync();
            for (uint n = 0; n < Count; n++)
            {
                await vm.PulseAsync(new Spi(40 + n));
            }

            await vm.Vcpus[0].ResumeAsync();
        }

        ScriptResults results = await vm.Vcpus[0].FinishAsync();
        spins.Select(s => results[s].Result2).Should().AllBeEquivalentTo(1ul, "the last was taken while the guest was looking");
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(Enumerable.Range(0, Count * spins.Count).Select(n => (IntId)new Spi((uint)(40 + (n % Count)))));
    }

    [Fact]
    [Clause("arm-priority/five-bits")]
    public async Task PrioritiesHaveFiveBits()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreDistributor(Gicd.Ipriorityr + 40, 0xffdd_bb97))
            .Add(Arm64Command.LoadDistributor(Gicd.Ipriorityr + 40))
            .Add(Arm64Command.StoreDistributor(Gicd.Ipriorityr + 42, 0x4f, AccessWidth.Byte))
            .Add(Arm64Command.LoadDistributor(Gicd.Ipriorityr + 40))
            .Add(Arm64Command.LoadDistributor(Gicd.Ipriorityr + 42, AccessWidth.Byte))
            .Add(Arm64Command.StoreRedistributor(0, Gicr.Ipriorityr0 + 20, 0x1122_3344))
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Ipriorityr0 + 20))
            .Add(Arm64Command.LoadDistributor(Gicd.Ipriorityr + 20)));
        results.Where(r => r.Index is 1 or 3 or 4 or 6 or 7).Select(r => r.Value).Should().Equal(0xf8d8_b890, 0xf848_b890, 0x48, 0x1020_3040, 0);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>The virtual timer's PPI, which the host's own interrupt is mapped to: its line is the physical one.</summary>
public sealed class TimerTests(KernelUnderTest kernel)
{
    // ICC_HPPIR1_EL1.
    private const ulong NothingPending = 1023;
    private static readonly Ppi s_timer = new(27);

    [Fact]
    [Clause("arm-timer/level")]
    public async Task ExpiredTimerInterruptsUntilItIsTurnedOff()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_timer, vcpuId: 0);
        await vm.Vcpus[0].SetHandlerAsync(s_timer, HandlerPolicy.Default with { ReturnMasked = true });
        for (uint n = 0; n < 3; n++)
        {
            await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic())
                .Add(Arm64Command.Write(IccRegister.CntvCval, 0)).Add(Arm64Command.Write(IccRegister.CntvCtl, 1))
                .Add(Arm64Command.HaltUntilTaken(s_timer, (2 * n) + 1)).Add(GuestCommand.InterruptsOff)
                .Add(Arm64Command.HaltUntilTaken(s_timer, (2 * n) + 2)).Add(GuestCommand.InterruptsOff)
                .Add(Arm64Command.Write(IccRegister.CntvCtl, 0)).Add(Arm64Command.LeaveAndReturn));
            (await vm.Vcpus[0].TakenAsync()).Should().Equal([s_timer, s_timer], "it is high after the first EOI still");
            (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("it was turned off");
        }
    }

    [Fact]
    [Clause("arm-timer/turned-off-unseen")]
    public async Task TimerThatWasTurnedOffBeforeItWasTakenExpiresAgain()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_timer, vcpuId: 0);
        await vm.Vcpus[0].SetHandlerAsync(s_timer, HandlerPolicy.Default with { Actions = [HandlerAction.WriteRegister(IccRegister.CntvCtl, 0)] });
        // All in one run of the vCPU: it is pending while interrupts are off, is turned off, and expires while the guest reads memory.
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic())
            .Add(Arm64Command.Write(IccRegister.CntvCval, 0)).Add(Arm64Command.Write(IccRegister.CntvCtl, 1)).Add(Arm64Command.LeaveAndReturn)
            .Add(Arm64Command.Write(IccRegister.CntvCtl, 0)).Add(Arm64Command.LeaveAndReturn)
            .Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1))
            .Add(Arm64Command.Write(IccRegister.CntvCtl, 1))
            .Add(GuestCommand.SpinUntil(new GuestCondition(vm.Vcpus[0].TakenAddress(s_timer), Comparison.AtLeast, 1), mostReads: 20_000), out int spin)
            .Add(GuestCommand.InterruptsOff));
        results[spin].Result2.Should().Be(1);
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_timer);
    }

    [Fact]
    [Clause("arm-timer/wakes")]
    public async Task TimerWakesAHaltedVcpuEachTime()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_timer, vcpuId: 0);
        await vm.Vcpus[0].SetHandlerAsync(s_timer, HandlerPolicy.Default with { Actions = [HandlerAction.WriteRegister(IccRegister.CntvCtl, 0)] });
        for (uint n = 1; n <= 3; n++)
        {
            await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic())
                .Add(Arm64Command.Write(IccRegister.CntvTval, 200_000)).Add(Arm64Command.Write(IccRegister.CntvCtl, 1))
                .Add(Arm64Command.HaltUntilTaken(s_timer, n)).Add(GuestCommand.InterruptsOff));
            (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_timer);
        }
    }

    [Fact]
    [Clause("arm-timer/disabled")]
    public async Task DisabledTimerInterruptWaits()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Vcpus[0].SetHandlerAsync(s_timer, HandlerPolicy.Default with { Actions = [HandlerAction.WriteRegister(IccRegister.CntvCtl, 0)] });
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.Write(IccRegister.CntvCval, 0), Arm64Command.Write(IccRegister.CntvCtl, 1))).Should().BeEmpty();
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.StoreRedistributor(0, Gicr.Isenabler0, 1u << (int)s_timer.Value))).Should().Equal(s_timer);
    }

    [Fact]
    [Clause("arm-timer/turned-off-while-disabled")]
    public async Task TimerThatWasTurnedOffWhileItsInterruptWasDisabledIsNotTaken()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Vcpus[0].SetHandlerAsync(s_timer, HandlerPolicy.Default with { Actions = [HandlerAction.WriteRegister(IccRegister.CntvCtl, 0)] });
        // It has taken an interrupt and read the redistributor, so that what it needs is mapped.
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.LoadRedistributor(0, Gicr.Isenabler0))).Should().BeEmpty();
        // All in one run of the vCPU: KVM sees it expire, and not that it is turned off.
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic())
            .Add(Arm64Command.Write(IccRegister.CntvCval, 0)).Add(Arm64Command.Write(IccRegister.CntvCtl, 1)).Add(Arm64Command.LeaveAndReturn)
            .Add(Arm64Command.Write(IccRegister.CntvCtl, 0))
            .Add(Arm64Command.StoreRedistributor(0, Gicr.Isenabler0, 1u << (int)s_timer.Value)).Add(Arm64Command.Read(IccRegister.Hppir1), out int highest)
            .Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(Arm64Command.Write(IccRegister.CntvCtl, 1))
            .Add(GuestCommand.SpinUntil(new GuestCondition(vm.Vcpus[0].TakenAddress(s_timer), Comparison.AtLeast, 1), mostReads: 20_000), out int spin)
            .Add(GuestCommand.InterruptsOff));
        results[highest].Value.Should().Be(NothingPending, "it was off when it was enabled");
        results[spin].Result2.Should().Be(1, "it expired again");
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_timer);
    }
}

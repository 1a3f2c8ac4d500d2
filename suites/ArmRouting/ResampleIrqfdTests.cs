// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class ResampleIrqfdTests(KernelUnderTest kernel)
{
    private const uint Gsi = 9;
    private static readonly Spi s_spi = new(41);

    /// <summary>Leaves the guest, for a write that changes nothing, before it acknowledges.</summary>
    private static readonly HandlerPolicy s_exiting = HandlerPolicy.Default with { Actions = [HandlerAction.Store(Arm64Layout.Distributor + Gicd.Typer, 0)] };

    // Between acknowledge and EOI the guest stays in the guest: only the list register knows that the interrupt was active.
    [Theory]
    [InlineData(9u, 9u)]
    [InlineData(9u, 30u)]
    [Clause("arm-irqfd/resample/eoi-notifies-and-lowers")]
    public Task EoiLowersTheLineAndNotifiesOnce(uint gsi, uint pin) => TakeThreeTimesAsync(gsi, pin, HandlerPolicy.Default);

    // Between acknowledge and EOI the guest exits once, and KVM sees the interrupt active.
    [Theory]
    [InlineData(9u, 9u)]
    [InlineData(9u, 30u)]
    [Clause("arm-irqfd/resample/eoi-after-an-exit")]
    public Task EoiAfterAnExitLowersTheLineAndNotifiesOnce(uint gsi, uint pin) => TakeThreeTimesAsync(gsi, pin, s_exiting);

    [Fact]
    [Clause("arm-irqfd/resample/until-eoi")]
    public async Task LineStaysHighUntilTheEoi()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await vm.Vcpus[0].SetHandlerAsync(s_spi, HandlerPolicy.Default with { Acknowledge = Acknowledgement.Never });
        await eventfd.SignalAsync();
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn)
            .Add(Arm64Command.HaltUntilTaken(s_spi)).Add(GuestCommand.InterruptsOff));
        (await resamplefd.ReadAsync()).Should().BeNull();
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(1u << 9);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EndOfInterrupt(s_spi)).Add(Arm64Command.LeaveAndReturn));
        (await resamplefd.ReadAsync()).Should().Be(1);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-irqfd/resample/deactivation-with-split-eoi")]
    public async Task WithSplitEoiItIsTheDeactivationThatCounts()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await eventfd.SignalAsync();
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(GuestCommand.InterruptsOn)
            .Add(Arm64Command.HaltUntilTaken(s_spi)).Add(GuestCommand.InterruptsOff));
        (await resamplefd.ReadAsync()).Should().BeNull("the priority was dropped, the interrupt is still active");
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.Deactivate(s_spi)).Add(Arm64Command.LeaveAndReturn));
        (await resamplefd.ReadAsync()).Should().Be(1);
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-irqfd/resample/shared-line")]
    public async Task SharersAreAllNotified()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd first = await kernel.CreateEventFdAsync();
        await using EventFd firstResample = await kernel.CreateEventFdAsync();
        await using EventFd second = await kernel.CreateEventFdAsync();
        await using EventFd secondResample = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.AssignResampleIrqfdAsync(Gsi, first, firstResample);
        await vm.AssignResampleIrqfdAsync(Gsi, second, secondResample);
        await second.SignalAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
        (await firstResample.ReadAsync()).Should().Be(1);
        (await secondResample.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("arm-irqfd/resample/other-lines-are-left-alone")]
    public async Task EoiOfAnotherInterruptNotifiesNobody()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.Gic.EnableAsync(new Spi(42), edge: false);
        await vm.Gic.EnableAsync(new Spi(43));
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await vm.PulseAsync(new Spi(43));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(43));
        (await resamplefd.ReadAsync()).Should().BeNull("an edge of another interrupt was acknowledged");
        await vm.IrqLineAsync(new Spi(42), true);
        await vm.Vcpus[0].SetHandlerAsync(new Spi(42), HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(Arm64Command.LeaveAndReturn));
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(new Spi(42));
        (await resamplefd.ReadAsync()).Should().BeNull("a level of another interrupt was acknowledged");
    }

    [Fact]
    [Clause("arm-irqfd/resample/edge-does-not-notify")]
    public async Task EdgeInterruptIsNotResampled()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: true);
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await eventfd.SignalAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
        (await resamplefd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("arm-irqfd/resample/last-deassign-lowers")]
    public async Task LastDeassignLowersTheLine()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await eventfd.SignalAsync();
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(1u << 9);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-irqfd/resample/wakes-and-repeats")]
    public Task RunningGuestIsInterruptedAgainAfterEachEoi() => InterruptFourTimesAsync(HandlerPolicy.Default);

    [Fact]
    [Clause("arm-irqfd/resample/wakes-and-repeats")]
    [Clause("arm-irqfd/resample/eoi-after-an-exit")]
    public Task RunningGuestIsInterruptedAgainAfterEachEoiAfterAnExit() => InterruptFourTimesAsync(s_exiting);

    private async Task TakeThreeTimesAsync(uint gsi, uint pin, HandlerPolicy policy)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        Spi spi = Spi.FromPin(pin);
        await vm.Gic.EnableAsync(spi, edge: false);
        await vm.Vcpus[0].SetHandlerAsync(spi, policy);
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(gsi, 0, pin));
        await vm.AssignResampleIrqfdAsync(gsi, eventfd, resamplefd);
        for (int n = 0; n < 3; n++)
        {
            await eventfd.SignalAsync();
            (await vm.Gic.ReadLinesAsync(32)).Should().Be(1u << (int)pin, "the signal asserts the line");
            (await resamplefd.ReadAsync()).Should().BeNull("nobody acknowledged yet");
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(spi);
            (await resamplefd.ReadAsync()).Should().Be(1);
            (await vm.Gic.ReadLinesAsync(32)).Should().Be(0, "the acknowledgement lowers the line");
        }
    }

    private async Task InterruptFourTimesAsync(HandlerPolicy policy)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.Vcpus[0].SetHandlerAsync(s_spi, policy);
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await vm.Vcpus[0].HaltUntilTakenAsync(s_spi, times: 4);
        for (int n = 0; n < 4; n++)
        {
            await eventfd.SignalAsync();
            (await resamplefd.WaitAsync()).Should().Be(1);
        }

        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_spi, s_spi, s_spi, s_spi);
    }
}

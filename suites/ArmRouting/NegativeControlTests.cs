// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>Claims that are wrong on purpose: each must fail, or this suite's green means nothing.</summary>
public sealed class NegativeControlTests(KernelUnderTest kernel)
{
    [Fact]
    [NegativeControl]
    public async Task InterruptOfAnotherPinIsNoticed()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(Spi.FromPin(9));
        await vm.Gic.EnableAsync(Spi.FromPin(10));
        await vm.AssignIrqfdAsync(10, eventfd);
        await eventfd.SignalAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(Spi.FromPin(9));
    }

    [Fact]
    [NegativeControl]
    public async Task MessageForAnotherVcpuIsNoticed()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(new DeviceId(1), new EventId(2), new Lpi(8195), vcpuId: 1);
        await vm.SignalMsiAsync(new DeviceId(1), new EventId(2));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8195));
    }

    [Fact]
    [NegativeControl]
    public async Task AcknowledgementThatNeverCameIsNoticed()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        Spi spi = Spi.FromPin(9);
        await vm.Gic.EnableAsync(spi, edge: false);
        await vm.AssignResampleIrqfdAsync(9, eventfd, resamplefd);
        await vm.Vcpus[0].SetHandlerAsync(spi, HandlerPolicy.Default with { Acknowledge = Acknowledgement.Never });
        await eventfd.SignalAsync();
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn)
            .Add(Arm64Command.HaltUntilTaken(spi)).Add(GuestCommand.InterruptsOff));
        (await resamplefd.ReadAsync()).Should().Be(1);
    }
}

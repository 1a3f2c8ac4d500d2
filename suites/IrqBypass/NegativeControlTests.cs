// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Claims that are wrong on purpose: each must fail, or this suite's green means nothing.</summary>
public sealed class NegativeControlTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private static readonly ApicVector Vector = new(0x41);
    private static readonly ApicVector Fence = new(0x31);

    [Fact]
    [NegativeControl]
    public async Task RouteToAnotherVectorIsNoticed()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, new ApicVector(0x42))));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.RunUntilHaltedAsync();
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Fence));

        ApicVector[] taken = await vm.ReadInterruptLogAsync(until: Fence);
        taken.Should().Equal(Vector, Fence);
    }

    [Fact]
    [NegativeControl]
    public async Task SignalLostOnAnUnboundEventfdIsNoticed()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vector)));
        await vm.RunUntilHaltedAsync();
        await eventfd.SignalAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Fence));

        ApicVector[] taken = await vm.ReadInterruptLogAsync(until: Fence);
        taken.Should().Equal(Vector, Fence);
    }

    [Fact]
    [NegativeControl]
    public async Task GuestThatAcknowledgesNothingIsNoticed()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.Vcpus[0].StartAsync(new GuestScript()
            .Handle(Vector, HandlerPolicy.Default with { Acknowledge = Acknowledgement.Never, Notify = true })
            .Handle(Fence, HandlerPolicy.Default with { Notify = true })
            .Add(GuestCommand.EnableApic())
            .Add(GuestCommand.InterruptsOn)
            .Add(GuestCommand.HaltUntilTaken(Vector))
            .Add(GuestCommand.Ask()));
        await vm.Vcpus[0].WaitUntilHaltingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vector));
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Fence));
        await vm.Vcpus[0].NextExitAsync();

        // The vector stays in service, and the fence's class is below it.
        InterruptLog log = await vm.Vcpus[0].ReadLogAsync();
        log.Vectors.Should().Equal(Vector, Fence);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.ArmRouting;

public sealed class IrqchipRouteTests(KernelUnderTest kernel)
{
    // KVM_IRQCHIP_NUM_PINS: INTIDs 32 to 1019.
    private const uint Pins = 1020 - 32;

    [Theory]
    [InlineData(0u, 0u)]
    [InlineData(8u, 8u)]
    [InlineData(300u, 8u)]
    [InlineData(8u, 63u)]
    [InlineData(4095u, 31u)]
    [Clause("arm-routing/irqchip/spi-is-pin-plus-32")]
    [Clause("arm-routing/irqchip/gsi-is-only-a-name")]
    public async Task SignalRaisesTheSpiOfThePin(uint gsi, uint pin)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await EnableAllAsync(vm);
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(gsi, 0, pin));
        await vm.AssignIrqfdAsync(gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(Spi.FromPin(pin));
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(95u)]
    [InlineData(223u)]
    [Clause("arm-routing/default/gsi-is-the-pin")]
    public async Task WithoutATableTheGsiIsThePin(uint gsi)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await EnableAllAsync(vm);
        await vm.AssignIrqfdAsync(gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(Spi.FromPin(gsi));
    }

    [Fact]
    [Clause("arm-routing/default/ends-with-the-spis")]
    public async Task DefaultRoutesEndWithTheLastSpi()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(irqs: 96);
        await using EventFd last = await kernel.CreateEventFdAsync();
        await using EventFd beyond = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(new Spi(95));
        await vm.AssignIrqfdAsync(63, last);
        await vm.AssignIrqfdAsync(64, beyond);
        await beyond.SignalAsync();
        await vm.DeassignIrqfdAsync(64, beyond);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await last.SignalAsync();
        await vm.DeassignIrqfdAsync(63, last);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(95));
    }

    [Fact]
    [Clause("arm-routing/default/set-by-init")]
    public async Task InitReplacesRoutesThatWereSetBefore()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.CreateGicAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(8, 0, 20));
        await vm.PlaceGicAsync();
        await EnableAllAsync(vm);
        await vm.AssignIrqfdAsync(8, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(8, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(40));
    }

    [Theory]
    [InlineData(0u, Pins - 1, Errno.None)]
    [InlineData(0u, Pins, Errno.EINVAL)]
    [InlineData(0u, uint.MaxValue, Errno.EINVAL)]
    [InlineData(1u, 8u, Errno.EINVAL)]
    [InlineData(2u, 8u, Errno.EINVAL)]
    [Clause("arm-routing/irqchip/pin-bound")]
    [Clause("arm-routing/irqchip/only-chip-0")]
    public async Task PinAndChipAreBounded(uint irqchip, uint pin, Errno expected)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(new Spi(45));
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(9, 0, 13));
        (await vm.TrySetGsiRoutingAsync(GsiRoute.Irqchip(9, irqchip, pin))).Should().Be(expected);
        await vm.AssignIrqfdAsync(9, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(9, eventfd);
        IntId[] taken = await vm.Vcpus[0].TakePendingAsync();
        taken.Should().Equal(expected == Errno.None ? [] : new IntId[] { new Spi(45) }, "a refused table leaves the old one");
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(3u)]
    [InlineData(KvmConst.KVM_IRQ_ROUTING_HV_SINT)]
    [InlineData(KvmConst.KVM_IRQ_ROUTING_XEN_EVTCHN)]
    [InlineData(6u)]
    [Clause("arm-routing/table/unknown-type")]
    public async Task OtherKindsOfRouteAreRefused(uint type)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        (await vm.TrySetGsiRoutingAsync(GsiRoute.Raw(new kvm_irq_routing_entry { gsi = 8, type = type }))).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-routing/table/flags")]
    public async Task IrqchipRouteHasNoFlags()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        (await vm.TrySetGsiRoutingAsync(GsiRoute.Raw(new kvm_irq_routing_entry
        {
            gsi = 8, type = KvmConst.KVM_IRQ_ROUTING_IRQCHIP, flags = KvmConst.KVM_MSI_VALID_DEVID, irqchip_pin = 8,
        }))).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-routing/irqchip/pin-without-an-spi-injects-nothing")]
    public async Task PinBeyondTheAllocatedSpisInjectsNothing()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(irqs: 64);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(new Spi(63));
        foreach (uint pin in new[] { 32u, 33u, 200u, Pins - 1 })
        {
            await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(9, 0, pin));
            await vm.AssignIrqfdAsync(9, eventfd);
            await eventfd.SignalAsync();
            await vm.DeassignIrqfdAsync(9, eventfd);
        }

        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(9, 0, 31));
        await vm.AssignIrqfdAsync(9, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(9, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(63));
    }

    [Fact]
    [Clause("arm-routing/no-route-injects-nothing")]
    public async Task IrqfdWithoutARouteInjectsNothing()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await EnableAllAsync(vm);
        await vm.AssignIrqfdAsync(8, eventfd);
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(9, 0, 9));
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(8, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-routing/table/replaced-at-once")]
    public async Task NewTableGoesForTheNextSignal()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await EnableAllAsync(vm);
        await vm.AssignIrqfdAsync(8, eventfd);
        foreach (uint pin in new uint[] { 12, 31, 0 })
        {
            await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(8, 0, pin));
            await eventfd.SignalAsync();
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(Spi.FromPin(pin));
        }
    }

    [Fact]
    [Clause("arm-irqfd/edge/one-interrupt-per-signal")]
    public async Task EachSignalRaisesAnEdgeOnce()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(new Spi(41));
        await vm.AssignIrqfdAsync(9, eventfd);
        for (uint n = 1; n <= 3; n++)
        {
            await eventfd.SignalAsync();
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(41));
        }

        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-irqfd/level/stays-asserted")]
    public async Task SignalWithoutResampleAssertsALevelForGood()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        var spi = new Spi(41);
        await vm.Gic.EnableAsync(spi, edge: false);
        await vm.AssignIrqfdAsync(9, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(9, eventfd);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(1u << 9);
        await vm.IrqLineAsync(spi, false);
        (await vm.Gic.ReadLinesAsync(32)).Should().Be(0);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task SignalWakesTheHaltedVcpuTheSpiIsFor(uint target)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        var spi = new Spi(41);
        await vm.Gic.EnableAsync(spi, vcpuId: target);
        await vm.AssignIrqfdAsync(9, eventfd);
        await vm.Vcpus[(int)target].HaltUntilTakenAsync(spi);
        await eventfd.SignalAsync();
        await vm.Vcpus[(int)target].FinishAsync();
        (await vm.Vcpus[(int)target].TakenAsync()).Should().Equal(spi);
        (await vm.Vcpus[1 - (int)target].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-vgic/inject/interrupts-a-running-vcpu")]
    public async Task SignalInterruptsARunningVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        var spi = new Spi(41);
        await vm.Gic.EnableAsync(spi);
        await vm.AssignIrqfdAsync(9, eventfd);
        await vm.Vcpus[0].SpinUntilTakenAsync(spi);
        await eventfd.SignalAsync();
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(spi);
    }

    [Fact]
    [Clause("arm-routing/table/without-a-gic")]
    public async Task RoutesAreAcceptedBeforeThereIsAGic()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        (await vm.TrySetGsiRoutingAsync(GsiRoute.Irqchip(8, 0, 8))).Should().Be(Errno.None);
    }

    /// <summary>Every SPI enabled, so that a wrong one shows.</summary>
    private static async Task EnableAllAsync(Vm vm)
    {
        (Errno _, uint count) = await vm.Gic.TryGetIrqCountAsync();
        for (uint first = 32; first < count; first += 32)
        {
            await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Isenabler, new IntId(first)), uint.MaxValue);
        }
    }
}

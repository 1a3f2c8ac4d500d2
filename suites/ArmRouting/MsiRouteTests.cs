// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class MsiRouteTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);

    [Fact]
    [Clause("arm-msi/route/device-and-event-select-the-lpi")]
    public async Task SignalledIrqfdRaisesTheRoutedLpiOnce()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        // The first signal goes the long way and fills the translation cache.
        for (int n = 0; n < 3; n++)
        {
            await vm.Vcpus[1].HaltUntilTakenAsync(s_lpi, (uint)n + 1);
            await eventfd.SignalAsync();
            await vm.Vcpus[1].FinishAsync();
        }

        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi, s_lpi, s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-msi/route/every-field-counts")]
    public async Task RouteCarriesTheWholeDeviceAndEvent()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        // Devices and events that share their low bytes, the routed one among them.
        DeviceId device = new(0x1112);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapDevice(device, vm.Its.Itt(device), 10));
        await vm.Its.MapAsync(device, s_event, new Lpi(8201));
        await vm.Its.MapAsync(device, new EventId(0x305), new Lpi(8202));
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(device, new EventId(0x305))));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8202));
    }

    // When the last resampling irqfd of a GSI goes, KVM lowers the line of that GSI.
    [Fact]
    [Clause("arm-msi/route/has-no-line")]
    public async Task LoweringAMessageRaisesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "the event is mapped");
    }

    public static TheoryData<string> Fields() => ["device", "event", "upper address", "lower address", "no device id"];

    [Theory]
    [MemberData(nameof(Fields))]
    [Clause("arm-msi/route/every-field-counts")]
    public async Task RouteWithOneWrongFieldRaisesNothing(string field)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        // Both device 0 and the right one have the event, so that a field that is dropped shows as the wrong LPI.
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(new DeviceId(0), s_event, new Lpi(8201));
        MsiMessage right = vm.Its.Message(s_device, s_event);
        MsiMessage wrong = field switch
        {
            "device" => right with { DeviceId = s_device.Value + 1 },
            "event" => right with { Data = s_event.Value + 1 },
            "upper address" => right with { Address = right.Address | (1ul << 32) },
            "lower address" => right with { Address = right.Address + 0x100_0000 },
            _ => right with { DeviceId = null },
        };
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        for (int n = 0; n < 2; n++)
        {
            await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, wrong));
            await eventfd.SignalAsync();
            await vm.DeassignIrqfdAsync(Gsi, eventfd);
            (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty(n == 0 ? "the cache is empty" : "the right one is in the cache");
            await vm.AssignIrqfdAsync(Gsi, eventfd);
            await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, right));
            await eventfd.SignalAsync();
            await vm.DeassignIrqfdAsync(Gsi, eventfd);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
            await vm.AssignIrqfdAsync(Gsi, eventfd);
        }
    }

    [Fact]
    [Clause("arm-msi/route/upper-address")]
    public async Task RouteToAnItsAboveFourGigabytes()
    {
        const ulong High = 0x9_0804_0000;
        await using Vm vm = await kernel.CreateBlankItsVmAsync(itss: 0);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        Its its = await vm.CreateItsAsync();
        (await its.TrySetAddressAsync(High)).Should().Be(Errno.None);
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync();
        await its.ConfigureAsync();
        await its.MapAsync(s_device, s_event, s_lpi);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, new MsiMessage(High + Gits.Translater, s_event.Value) { DeviceId = s_device.Value }));
        for (int n = 0; n < 2; n++)
        {
            await vm.AssignIrqfdAsync(Gsi, eventfd);
            await eventfd.SignalAsync();
            await vm.DeassignIrqfdAsync(Gsi, eventfd);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        }
    }

    [Fact]
    [Clause("arm-msi/route/accepted-without-an-its")]
    public async Task RouteWithoutAnItsIsAcceptedAndRaisesNothing()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Gic.EnableAsync(new Spi(32 + Gsi));
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, new MsiMessage(Arm64Layout.Its + Gits.Translater, 1) { DeviceId = 1 }));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [Clause("arm-routing/table/flags")]
    public async Task MsiRouteTakesOnlyTheDeviceIdFlag(uint flags)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        (await vm.TrySetGsiRoutingAsync(GsiRoute.Raw(new kvm_irq_routing_entry { gsi = Gsi, type = KvmConst.KVM_IRQ_ROUTING_MSI, flags = flags }))).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-msi/route/before-the-mapping")]
    public async Task RouteSetBeforeTheMappingWorksAfterIt()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();

        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("what came before the mapping is lost");
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-routing/table/replaced-at-once")]
    public async Task GsiMovesBetweenLpiAndSpi()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        var spi = new Spi(50);
        await vm.Gic.EnableAsync(spi);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        for (int n = 0; n < 2; n++)
        {
            await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(Gsi, 0, spi.Pin));
            await eventfd.SignalAsync();
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(spi);

            await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
            await vm.Vcpus[0].HaltUntilTakenAsync(s_lpi, (uint)n + 1);
            await eventfd.SignalAsync();
            await vm.Vcpus[0].FinishAsync();
            (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_lpi);
        }
    }

    [Fact]
    [Clause("arm-irqfd/deassign-drains")]
    public async Task NothingComesAfterDeassign()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "the long way ends before deassign does");
        await eventfd.SignalAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await eventfd.ReadAsync()).Should().Be(1);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>MAPD, MAPC, MAPTI, MAPI and DISCARD.</summary>
public sealed class ItsMappingTests(KernelUnderTest kernel)
{
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);
    private static readonly CollectionId s_collection = new(0);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-its/commands/by-guest-or-attribute")]
    public async Task CommandsRunWhoeverWritesThem(bool byGuest)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi);
        ItsCommand[] commands =
        [
            vm.Its.MapDevice(s_device), ItsCommand.MapCollection(s_collection, 0), ItsCommand.MapEvent(s_device, s_event, s_lpi, s_collection),
            ItsCommand.Synchronise(), ItsCommand.Raise(s_device, s_event),
        ];
        if (byGuest)
        {
            (await vm.Vcpus[0].TakePendingAsync(vm.Its.ByGuest(commands))).Should().Equal(s_lpi);
        }
        else
        {
            await vm.Its.IssueAsync(commands);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        }

        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be((ulong)commands.Length * ItsCommand.Size);
    }

    [Fact]
    [Clause("arm-its/mapd/unmapping-forgets-the-events")]
    public async Task UnmappedDeviceRaisesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(new DeviceId(0x13), s_event, new Lpi(8201));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);

        await vm.Its.IssueAsync(ItsCommand.UnmapDevice(s_device));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "also when it was cached");
        (await vm.SignalMsiAsync(new DeviceId(0x13), s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8201));

        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "a device that is mapped again has no events");
    }

    [Fact]
    [Clause("arm-its/mapd/again-forgets-the-events")]
    public async Task MappingADeviceAgainForgetsItsEvents()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-its/mapd/unmapping-the-unmapped")]
    public async Task UnmappingAnUnmappedDeviceChangesNothingElse()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.UnmapDevice(new DeviceId(0x13)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
    }

    [Theory]
    [InlineData(8191u, true)]
    [InlineData(8192u, false)]
    [InlineData(0xffffu, false)]
    [InlineData(0x1_0000u, false)]
    [InlineData(0x1_0012u, false)]
    [Clause("arm-its/mapd/device-table-bound")]
    public async Task DeviceIdIsBoundedByTheDeviceTable(uint device, bool mapped)
    {
        // One page of 64 KiB holds 8192 entries of 8 bytes.
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(device), s_event, s_lpi);
        (await vm.SignalMsiAsync(new DeviceId(device), s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Theory]
    [InlineData(0x3fffu, true)]
    [InlineData(0x4000u, false)]
    [Clause("arm-its/mapd/device-table-bound")]
    public async Task MorePagesHoldMoreDevices(uint device, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.SecondLevel(0), pages: 2));
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.MapAsync(new DeviceId(device), s_event, s_lpi);
        (await vm.SignalMsiAsync(new DeviceId(device), s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Theory]
    [InlineData(0xffffu, true)]
    [InlineData(0x1_0000u, false)]
    [Clause("arm-its/mapd/device-table-bound")]
    public async Task DeviceIdHasSixteenBitsHoweverBigTheTable(uint device, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        // Nine pages of 64 KiB hold 73728 entries.
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.SecondLevel(13), pages: 9));
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.MapAsync(new DeviceId(device), s_event, s_lpi);
        (await vm.SignalMsiAsync(new DeviceId(device), s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Theory]
    [InlineData(0x0012u, true)]
    [InlineData(0x1fffu, true)]
    [InlineData(0x2000u, false)]
    [InlineData(0x4000u, true)]
    [InlineData(0x5fffu, true)]
    [InlineData(0x6000u, false)]
    [InlineData(0xffffu, false)]
    [InlineData(0x1_0000u, false)]
    [Clause("arm-its/mapd/indirect-table")]
    public async Task IndirectTableReachesDevicesOfItsValidPages(uint device, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        // Level 1: page 0 and page 2 of 8192 devices are there, page 1 is not, page 3 lies where no memory is.
        byte[] level1 = new byte[32];
        BitConverter.TryWriteBytes(level1, Gits.Valid | vm.Its.SecondLevel(0));
        BitConverter.TryWriteBytes(level1.AsSpan(8), vm.Its.SecondLevel(1));
        BitConverter.TryWriteBytes(level1.AsSpan(16), Gits.Valid | vm.Its.SecondLevel(1));
        BitConverter.TryWriteBytes(level1.AsSpan(24), Gits.Valid | 0x20_0000_0000);
        await vm.WriteMemoryAsync(vm.Its.DeviceTable, level1);
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.DeviceTable, indirect: true));
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.MapAsync(new DeviceId(device), s_event, s_lpi);
        (await vm.SignalMsiAsync(new DeviceId(device), s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Fact]
    [Clause("arm-its/mapd/table-must-be-memory")]
    public async Task DeviceTableOutsideMemoryMapsNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(0x20_0000_0000));
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
    }

    [Theory]
    [InlineData(8191u, true)]
    [InlineData(8192u, false)]
    [Clause("arm-its/mapd/table-must-be-memory")]
    public async Task DeviceWhoseEntryIsNotInMemoryIsNotMapped(uint device, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        // The first of its two pages is the last of memory.
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(Arm64Layout.ScratchEnd - 0x1_0000, pages: 2));
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.MapAsync(new DeviceId(device), s_event, s_lpi);
        (await vm.SignalMsiAsync(new DeviceId(device), s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Theory]
    [InlineData(16, true)]
    [InlineData(17, false)]
    [InlineData(32, false)]
    [Clause("arm-its/mapd/event-bits")]
    public async Task DeviceHasAtMostSixteenEventBits(int bits, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi);
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device, bits), ItsCommand.MapCollection(s_collection, 0), ItsCommand.MapEvent(s_device, s_event, s_lpi, s_collection));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Theory]
    [InlineData(1, 1u, true)]
    [InlineData(1, 2u, false)]
    [InlineData(5, 31u, true)]
    [InlineData(5, 32u, false)]
    [InlineData(5, 0x1_0005u, false)]
    [InlineData(16, 0xffffu, true)]
    [InlineData(16, 0x1_0000u, false)]
    [Clause("arm-its/mapti/event-bound")]
    public async Task EventIdIsBoundedByTheDevicesBits(int bits, uint @event, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapDevice(s_device, vm.Its.SecondLevel(0), bits), ItsCommand.MapCollection(s_collection, 0),
            ItsCommand.MapEvent(s_device, new EventId(@event), s_lpi, s_collection));
        (await vm.SignalMsiAsync(s_device, new EventId(@event))).Should().Be(mapped ? 1 : 0);
    }

    [Fact]
    [Clause("arm-its/mapti/table-must-be-memory")]
    public async Task EventWhoseEntryIsNotInMemoryIsNotMapped()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi);
        // Room for 512 events before memory ends.
        ulong table = Arm64Layout.ScratchEnd - 0x1000;
        await vm.Its.IssueAsync(ItsCommand.MapDevice(s_device, table, 16), ItsCommand.MapCollection(s_collection, 0),
            ItsCommand.MapEvent(s_device, new EventId(511), s_lpi, s_collection), ItsCommand.MapEvent(s_device, new EventId(512), new Lpi(8201), s_collection));
        (await vm.SignalMsiAsync(s_device, new EventId(511))).Should().Be(1);
        (await vm.SignalMsiAsync(s_device, new EventId(512))).Should().Be(0);
    }

    [Theory]
    [InlineData(0u, false)]
    [InlineData(40u, false)]
    [InlineData(8191u, false)]
    [InlineData(8192u, true)]
    [InlineData(65535u, true)]
    [InlineData(65536u, false)]
    [InlineData(0x8000_2000u, false)]
    [Clause("arm-its/mapti/lpi-bound")]
    public async Task LpiIsBoundedByThePropertyTable(uint lpi, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        if (mapped)
        {
            await vm.Gic.ConfigureAsync(new Lpi(lpi));
        }

        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapCollection(s_collection, 0), ItsCommand.MapEvent(s_device, s_event, new Lpi(lpi), s_collection));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(mapped ? 1 : 0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(mapped ? [new Lpi(lpi)] : Array.Empty<IntId>());
    }

    [Theory]
    [InlineData(14, 16383u, true)]
    [InlineData(14, 16384u, false)]
    [InlineData(32, 65535u, true)]
    [InlineData(32, 65536u, false)]
    [Clause("arm-its/mapti/lpi-bound")]
    public async Task LpiIsBoundedByTheBitsOfPropbaser(int bits, uint lpi, bool mapped)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(bits);
        await vm.Its.ConfigureAsync();
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapCollection(s_collection, 0), ItsCommand.MapEvent(s_device, s_event, new Lpi(lpi), s_collection));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Fact]
    [Clause("arm-its/mapti/needs-the-device")]
    public async Task EventOfAnUnmappedDeviceIsNotMapped()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(s_collection, 0), ItsCommand.MapEvent(s_device, s_event, s_lpi, s_collection), vm.Its.MapDevice(s_device));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-its/mapti/again-changes-nothing")]
    public async Task SecondMappingOfAnEventChangesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, s_event, new Lpi(8300));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.Its.IssueAsync(ItsCommand.DiscardEvent(s_device, s_event));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "there is no second mapping behind the first");
    }

    [Fact]
    [Clause("arm-its/mapti/two-events-one-lpi")]
    public async Task TwoEventsShareAnLpiOrTheFirstKeepsIt()
    {
        var (other, otherEvent) = (new DeviceId(0x13), new EventId(1));
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(other, otherEvent, s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        // The architecture leaves it open; kernels do either.
        long shared = await vm.SignalMsiAsync(other, otherEvent);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(shared == 1 ? [s_lpi] : Array.Empty<IntId>());
        await vm.Its.IssueAsync(ItsCommand.DiscardEvent(s_device, s_event));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
        (await vm.SignalMsiAsync(other, otherEvent)).Should().Be(shared, "the first event's end changes nothing for the second");
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(shared == 1 ? [s_lpi] : Array.Empty<IntId>());
        await vm.Its.MapAsync(other, otherEvent, s_lpi);
        (await vm.SignalMsiAsync(other, otherEvent)).Should().Be(1, "nobody else has the LPI");
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(8192u, 16, true)]
    [InlineData(8191u, 16, false)]
    [InlineData(5u, 16, false)]
    [Clause("arm-its/mapi/event-is-the-lpi")]
    public async Task MapiTakesTheEventIdForTheLpi(uint @event, int bits, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        if (mapped)
        {
            await vm.Gic.ConfigureAsync(new Lpi(@event));
        }

        await vm.Its.IssueAsync(ItsCommand.MapDevice(s_device, vm.Its.SecondLevel(0), bits), ItsCommand.MapCollection(s_collection, 0),
            ItsCommand.MapInterrupt(s_device, new EventId(@event), s_collection));
        (await vm.SignalMsiAsync(s_device, new EventId(@event))).Should().Be(mapped ? 1 : 0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(mapped ? [new Lpi(@event)] : Array.Empty<IntId>());
    }

    [Fact]
    [Clause("arm-its/mapc/after-mapti")]
    public async Task CollectionMayBeMappedAfterItsEvents()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Gic.ConfigureAsync(s_lpi);
        var collection = new CollectionId(3);
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapEvent(s_device, s_event, s_lpi, collection));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "the collection targets nobody");
        await vm.Its.IssueAsync(ItsCommand.MapCollection(collection, 1));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-its/mapc/unmapping-silences")]
    public async Task UnmappedCollectionRaisesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(new Lpi(8201));
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(9), 0), ItsCommand.MapEvent(s_device, new EventId(6), new Lpi(8201), new CollectionId(9)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);

        await vm.Its.IssueAsync(ItsCommand.UnmapCollection(s_collection));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "also when it was cached");
        (await vm.SignalMsiAsync(s_device, new EventId(6))).Should().Be(1, "another collection is not concerned");
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8201));

        await vm.Its.IssueAsync(ItsCommand.MapCollection(s_collection, 0));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "its events do not come back with it");
    }

    [Fact]
    [Clause("arm-its/mapc/retargets")]
    public async Task MappingACollectionAgainMovesItsEvents()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(new Lpi(8201));
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(9), 0), ItsCommand.MapEvent(s_device, new EventId(6), new Lpi(8201), new CollectionId(9)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);

        await vm.Its.IssueAsync(ItsCommand.MapCollection(s_collection, 1));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.SignalMsiAsync(s_device, new EventId(6))).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([new Lpi(8201)], "another collection is not concerned");
    }

    [Fact]
    [Clause("arm-its/mapc/unknown-vcpu")]
    public async Task CollectionOfAVcpuThatIsNotThereIsNotMapped()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Gic.ConfigureAsync(s_lpi);
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapCollection(s_collection, 2), ItsCommand.MapEvent(s_device, s_event, s_lpi, s_collection));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(s_collection, 1), ItsCommand.MapCollection(s_collection, 2));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1, "a refused MAPC leaves the mapping there was");
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(8191u, true)]
    [InlineData(8192u, false)]
    [InlineData(0xffffu, false)]
    [Clause("arm-its/mapc/collection-table-bound")]
    public async Task CollectionIsBoundedByTheCollectionTable(uint collection, bool mapped)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi);
        // Once by MAPC, once by MAPTI, which makes a collection that is not there yet.
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapCollection(new CollectionId(collection), 0),
            ItsCommand.MapEvent(s_device, s_event, s_lpi, new CollectionId(collection)), ItsCommand.MapCollection(new CollectionId(collection), 0));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(mapped ? 1 : 0);
    }

    [Fact]
    [Clause("arm-its/discard/forgets-the-event")]
    public async Task DiscardedEventRaisesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, new EventId(6), new Lpi(8201));
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.SignalMsiAsync(s_device, new EventId(6));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo(new IntId[] { s_lpi, new Lpi(8201) });

        await vm.Its.IssueAsync(ItsCommand.DiscardEvent(s_device, s_event));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0, "also when it was cached");
        (await vm.SignalMsiAsync(s_device, new EventId(6))).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8201));
        await vm.Its.MapAsync(s_device, s_event, new Lpi(8210));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([new Lpi(8210)], "the event is free for another LPI");
    }

    [Theory]
    [InlineData(0x12u, 6u)]
    [InlineData(0x13u, 5u)]
    [Clause("arm-its/discard/unmapped")]
    public async Task DiscardOfAnUnmappedEventChangesNothing(uint device, uint @event)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.DiscardEvent(new DeviceId(device), new EventId(@event)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/discard/clears-its-entry")]
    [FixedBy("7602ffd1d5e8", "KVM: arm64: vgic-its: Clear ITE when DISCARD frees an ITE")]
    public async Task DiscardClearsTheSavedEntry()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, new EventId(6), new Lpi(8201));
        await vm.Its.SaveTablesAsync();
        ulong entry = vm.Its.Itt(s_device) + (8 * s_event.Value);
        byte[] saved = await vm.ReadMemoryAsync(entry, 16);
        BitConverter.ToUInt64(saved).Should().NotBe(0);
        await vm.Its.IssueAsync(ItsCommand.DiscardEvent(s_device, s_event));
        byte[] after = await vm.ReadMemoryAsync(entry, 16);
        BitConverter.ToUInt64(after).Should().Be(0);
        after.Skip(8).Should().Equal(saved.Skip(8), "the next event's entry is left alone");
    }

    [Fact]
    [Clause("arm-its/mapd/clears-its-entry")]
    [FixedBy("e9649129d33d", "KVM: arm64: vgic-its: Clear DTE when MAPD unmaps a device")]
    public async Task UnmappingADeviceClearsItsSavedEntry()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(new DeviceId(0x13), s_event, new Lpi(8201));
        await vm.Its.SaveTablesAsync();
        ulong entry = vm.Its.DeviceTable + (8 * s_device.Value);
        byte[] saved = await vm.ReadMemoryAsync(entry, 16);
        (BitConverter.ToUInt64(saved) >> 63).Should().Be(1);
        await vm.Its.IssueAsync(ItsCommand.UnmapDevice(s_device));
        byte[] after = await vm.ReadMemoryAsync(entry, 16);
        BitConverter.ToUInt64(after).Should().Be(0);
        after.Skip(8).Should().Equal(saved.Skip(8), "the next device's entry is left alone");
    }

    [Fact]
    [Clause("arm-its/discard/pending-lpi-of-a-freed-event")]
    public async Task PendingLpiOfADiscardedEventIsGoneWithItsLastReference()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.Its.IssueAsync(ItsCommand.DiscardEvent(s_device, s_event));
        // Already queued for the vCPU, it may be taken once; what must not be is a second time, or after a new mapping.
        (await vm.Vcpus[0].TakePendingAsync()).Length.Should().BeLessThanOrEqualTo(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }
}

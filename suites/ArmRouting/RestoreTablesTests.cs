// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>KVM_DEV_ARM_ITS_RESTORE_TABLES from tables written by hand.</summary>
public sealed class RestoreTablesTests(KernelUnderTest kernel)
{
    private const uint Device = 0x12;
    private const uint Event = 5;
    private static readonly Lpi s_lpi = new(8200);

    [Fact]
    [Clause("arm-its-restore/mappings-come-back")]
    public async Task MappingsComeFromTheTables()
    {
        // They differ in every bit that the table has room for.
        const ushort First = 0x1509, Second = 0x0af4;
        await using Vm vm = await WithTablesAsync(vcpus: 2);
        await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(1, First)), (1, SaveTablesTests.Cte(0, Second)), (2, 0));
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, SaveTablesTests.Dte(3, Itt(vm, 0), 4)), ((int)Device + 3, SaveTablesTests.Dte(0, Itt(vm, 1), 5)));
        await WriteAsync(vm, Itt(vm, 0), (5, SaveTablesTests.Ite(7, 8200, First)), (12, SaveTablesTests.Ite(0, 8205, Second)));
        await WriteAsync(vm, Itt(vm, 1), (31, SaveTablesTests.Ite(0, 8210, First)));
        await vm.Its.RestoreTablesAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.SignalMsiAsync(new DeviceId(Device), new EventId(5))).Should().Be(1);
        (await vm.SignalMsiAsync(new DeviceId(Device), new EventId(12))).Should().Be(1);
        (await vm.SignalMsiAsync(new DeviceId(Device + 3), new EventId(31))).Should().Be(1);
        (await vm.SignalMsiAsync(new DeviceId(Device), new EventId(6))).Should().Be(0);
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEquivalentTo(new IntId[] { new Lpi(8200), new Lpi(8210) });
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8205));
    }

    public static TheoryData<string, Errno> Inconsistencies() => new()
    {
        { "nothing wrong", Errno.None },
        { "collection of a vCPU that is not there", Errno.EINVAL },
        { "collection without a target", Errno.None },
        { "collection twice", Errno.EEXIST },
        { "collection beyond the table", Errno.EINVAL },
        { "event of an unknown collection", Errno.EINVAL },
        { "LPI below 8192", Errno.EINVAL },
        { "next event beyond the device", Errno.EINVAL },
        { "last event of the device", Errno.None },
        { "seventeen event bits", Errno.EINVAL },
        { "sixteen event bits", Errno.None },
        { "table outside memory", Errno.EFAULT },
        { "device is not valid", Errno.None },
    };

    [Theory]
    [MemberData(nameof(Inconsistencies))]
    [Clause("arm-its-restore/inconsistent-tables")]
    public async Task InconsistentTablesAreRefused(string what, Errno expected)
    {
        if (what == "seventeen event bits")
        {
            kernel.RequireChange("its-restore-event-bits");
        }

        await using Vm vm = await WithTablesAsync(vcpus: 2);
        var collections = new List<(int, ulong)> { (0, SaveTablesTests.Cte(1, 9)), (1, 0) };
        ulong device = SaveTablesTests.Dte(0, Itt(vm, 0), 5);
        ulong ite = SaveTablesTests.Ite(0, s_lpi.Value, 9);
        int entry = (int)Event;
        switch (what)
        {
            case "collection of a vCPU that is not there":
                collections[0] = (0, SaveTablesTests.Cte(2, 9));
                break;
            case "collection without a target":
                collections[0] = (0, SaveTablesTests.Cte(uint.MaxValue, 9));
                break;
            case "collection twice":
                collections[1] = (1, SaveTablesTests.Cte(0, 9));
                collections.Add((2, 0));
                break;
            case "collection beyond the table":
                collections[1] = (1, SaveTablesTests.Cte(0, 8192));
                collections.Add((2, 0));
                break;
            case "event of an unknown collection":
                ite = SaveTablesTests.Ite(0, s_lpi.Value, 8);
                break;
            case "LPI below 8192":
                ite = SaveTablesTests.Ite(0, 8191, 9);
                break;
            case "next event beyond the device":
                ite = SaveTablesTests.Ite(27, s_lpi.Value, 9);
                break;
            case "last event of the device":
                entry = 31;
                break;
            case "seventeen event bits":
                device = SaveTablesTests.Dte(0, Itt(vm, 0), 17);
                break;
            case "sixteen event bits":
                device = SaveTablesTests.Dte(0, Itt(vm, 0), 16);
                break;
            case "table outside memory":
                device = SaveTablesTests.Dte(0, 0x20_0000_0000, 5);
                break;
            case "device is not valid":
                device &= ~(1ul << 63);
                break;
        }

        await WriteAsync(vm, vm.Its.CollectionTable, [.. collections]);
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, device));
        await WriteAsync(vm, Itt(vm, 0), (entry, ite));
        (await vm.Its.TryRestoreTablesAsync()).Should().Be(expected);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        bool mapped = expected == Errno.None && what is not ("collection without a target" or "device is not valid");
        (await vm.SignalMsiAsync(new DeviceId(Device), new EventId((uint)entry))).Should().Be(mapped ? 1 : 0);
        if (expected != Errno.None)
        {
            // Nothing is left behind: once the tables are right they can be restored, and no collection is there twice.
            await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(1, 9)), (1, 0));
            await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, SaveTablesTests.Dte(0, Itt(vm, 0), 5)));
            await WriteAsync(vm, Itt(vm, 0), (entry, SaveTablesTests.Ite(0, s_lpi.Value, 9)));
            (await vm.Its.TryRestoreTablesAsync()).Should().Be(Errno.None);
            (await vm.SignalMsiAsync(new DeviceId(Device), new EventId((uint)entry))).Should().Be(1);
        }
    }

    [Theory]
    [InlineData("collection", Errno.EEXIST)]
    [InlineData("device", Errno.EFAULT)]
    [InlineData("event", Errno.EINVAL)]
    [Clause("arm-its-restore/inconsistent-tables")]
    public async Task EntriesBeforeAnInconsistentOneDoNotStay(string what, Errno expected)
    {
        const ulong Untouched = 0xa5a5_a5a5_a5a5_a5a5;
        await using Vm vm = await WithTablesAsync(vcpus: 1);
        await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(0, 9)), (1, what == "collection" ? SaveTablesTests.Cte(0, 9) : 0), (2, 0));
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, SaveTablesTests.Dte(1, Itt(vm, 0), 4)));
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device + 1, SaveTablesTests.Dte(0, what == "device" ? 0x20_0000_0000 : Itt(vm, 1), 4)));
        await WriteAsync(vm, Itt(vm, 0), ((int)Event, SaveTablesTests.Ite(0, s_lpi.Value, 9)));
        await WriteAsync(vm, Itt(vm, 1), ((int)Event, SaveTablesTests.Ite(0, what == "event" ? 8191u : 8201u, 9)));
        (await vm.Its.TryRestoreTablesAsync()).Should().Be(expected);

        // What the ITS knows is what it saves.
        await WriteAsync(vm, vm.Its.CollectionTable, (0, Untouched));
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, Untouched), ((int)Device + 1, Untouched));
        await vm.Its.SaveTablesAsync();
        (await SaveTablesTests.WordsAsync(vm, vm.Its.CollectionTable, 0)).Should().Equal([0ul], "there is no collection");
        (await SaveTablesTests.WordsAsync(vm, vm.Its.DeviceTable, (int)Device, (int)Device + 1)).Should().Equal([Untouched, Untouched], "there is no device");
    }

    [Fact]
    [Clause("arm-its-restore/indirect")]
    public async Task IndirectDeviceTableIsWalked()
    {
        await using Vm vm = await WithTablesAsync(vcpus: 1, indirect: true);
        // Page 0 is absent, page 1 holds a device at its first entry and one at its last.
        await WriteAsync(vm, vm.Its.DeviceTable, (1, Gits.Valid | vm.Its.SecondLevel(0)));
        await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(0, 9)), (1, 0));
        await WriteAsync(vm, vm.Its.SecondLevel(0), (0, SaveTablesTests.Dte(8191, Itt(vm, 0), 4)), (8191, SaveTablesTests.Dte(0, Itt(vm, 1), 4)));
        await WriteAsync(vm, Itt(vm, 0), (1, SaveTablesTests.Ite(0, 8200, 9)));
        await WriteAsync(vm, Itt(vm, 1), (2, SaveTablesTests.Ite(0, 8201, 9)));
        await vm.Its.RestoreTablesAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.SignalMsiAsync(new DeviceId(8192), new EventId(1))).Should().Be(1);
        (await vm.SignalMsiAsync(new DeviceId(16383), new EventId(2))).Should().Be(1);
        (await vm.SignalMsiAsync(new DeviceId(0), new EventId(1))).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo(new IntId[] { new Lpi(8200), new Lpi(8201) });
    }

    [Theory]
    [InlineData(7, Errno.None)]
    [InlineData(8, Errno.EINVAL)]
    [Clause("arm-its-restore/inconsistent-tables")]
    public async Task DeviceIdHasAtMostSixteenBits(int page, Errno expected)
    {
        await using Vm vm = await WithTablesAsync(vcpus: 1, indirect: true);
        // 8192 devices to a page of the second level.
        await WriteAsync(vm, vm.Its.DeviceTable, (page, Gits.Valid | vm.Its.SecondLevel(0)));
        await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(0, 9)), (1, 0));
        await WriteAsync(vm, vm.Its.SecondLevel(0), ((int)Device, SaveTablesTests.Dte(0, Itt(vm, 0), 4)));
        await WriteAsync(vm, Itt(vm, 0), ((int)Event, SaveTablesTests.Ite(0, s_lpi.Value, 9)));
        (await vm.Its.TryRestoreTablesAsync()).Should().Be(expected);
    }

    [Fact]
    [Clause("arm-its-restore/scan-stops-at-the-last")]
    public async Task ScanStopsAtTheLastEntry()
    {
        await using Vm vm = await WithTablesAsync(vcpus: 1);
        await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(0, 9)), (1, 0), (2, SaveTablesTests.Cte(0, 7)));
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, SaveTablesTests.Dte(0, Itt(vm, 0), 4)), ((int)Device + 1, SaveTablesTests.Dte(0, Itt(vm, 1), 4)));
        await WriteAsync(vm, Itt(vm, 0), (5, SaveTablesTests.Ite(0, 8200, 9)), (6, SaveTablesTests.Ite(0, 8201, 7)));
        await WriteAsync(vm, Itt(vm, 1), (5, SaveTablesTests.Ite(0, 8202, 9)));
        await vm.Its.RestoreTablesAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.SignalMsiAsync(new DeviceId(Device), new EventId(5))).Should().Be(1);
        (await vm.SignalMsiAsync(new DeviceId(Device), new EventId(6))).Should().Be(0, "behind an entry that says it is the last");
        (await vm.SignalMsiAsync(new DeviceId(Device + 1), new EventId(5))).Should().Be(0, "behind a device that says it is the last");
    }

    [Fact]
    [Clause("arm-its-restore/pending-and-configuration")]
    public async Task RestoredLpiTakesOverConfigurationAndPendingBit()
    {
        await using Vm vm = await WithTablesAsync(vcpus: 1);
        await WriteAsync(vm, vm.Its.CollectionTable, (0, SaveTablesTests.Cte(0, 9)), (1, 0));
        await WriteAsync(vm, vm.Its.DeviceTable, ((int)Device, SaveTablesTests.Dte(0, Itt(vm, 0), 4)));
        await WriteAsync(vm, Itt(vm, 0), (5, SaveTablesTests.Ite(1, 8200, 9)), (6, SaveTablesTests.Ite(1, 8201, 9)), (7, SaveTablesTests.Ite(0, 8202, 9)));
        await vm.Gic.ConfigureAsync(new Lpi(8202), enabled: false);
        await vm.WriteMemoryAsync(Vgic.PendingTable(0) + 1025, new byte[] { 0x05 });
        await vm.Its.RestoreTablesAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([new Lpi(8200)], "8202 is pending but disabled, 8201 not pending");
    }

    private static ulong Itt(Vm vm, int n) => vm.Its.SecondLevel(3) + ((ulong)n * 0x800);

    private static async Task WriteAsync(Vm vm, ulong table, params (int Entry, ulong Value)[] entries)
    {
        foreach ((int entry, ulong value) in entries)
        {
            byte[] bytes = new byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
            await vm.WriteMemoryAsync(table + ((ulong)entry * 8), bytes);
        }
    }

    private async Task<Vm> WithTablesAsync(int vcpus, bool indirect = false)
    {
        Vm vm = await kernel.CreateBlankItsVmAsync(vcpus);
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync();
        for (uint lpi = 8200; lpi < 8216; lpi++)
        {
            await vm.Gic.ConfigureAsync(new Lpi(lpi));
        }

        await vm.Its.WriteAsync(Gits.Cbaser, vm.Its.QueueBase);
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.DeviceTable, indirect: indirect));
        await vm.Its.WriteAsync(Gits.BaserCollections, Its.TableBase(vm.Its.CollectionTable));
        return vm;
    }
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>KVM_DEV_ARM_ITS_SAVE_TABLES: the bytes of the table ABI, revision 0.</summary>
public sealed class SaveTablesTests(KernelUnderTest kernel)
{
    private const ulong Poison = 0xa5a5_a5a5_a5a5_a5a5;
    private static readonly DeviceId s_device = new(0x12);

    [Fact]
    [Clause("arm-its-save/entries")]
    public async Task TablesHaveTheDocumentedEntries()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await PoisonAsync(vm.Its);
        var far = new DeviceId(0x112);
        await vm.Its.IssueAsync(
            vm.Its.MapDevice(far, 9), vm.Its.MapDevice(s_device, 4),
            ItsCommand.MapCollection(new CollectionId(7), 1), ItsCommand.MapCollection(new CollectionId(3), 0),
            ItsCommand.MapEvent(far, new EventId(300), new Lpi(8999), new CollectionId(3)), ItsCommand.MapEvent(far, new EventId(2), new Lpi(8200), new CollectionId(7)),
            ItsCommand.MapEvent(s_device, new EventId(15), new Lpi(8201), new CollectionId(7)));
        await vm.Its.SaveTablesAsync();

        (await WordsAsync(vm, vm.Its.DeviceTable, 0x11, 0x12, 0x13, 0x112, 0x113)).Should().Equal(
            Poison, Dte(next: 0x100, vm.Its.Itt(s_device), 4), Poison, Dte(next: 0, vm.Its.Itt(far), 9), Poison);
        (await WordsAsync(vm, vm.Its.Itt(s_device), 14, 15)).Should().Equal(Poison, Ite(0, 8201, 7));
        (await WordsAsync(vm, vm.Its.Itt(far), 1, 2, 3, 299, 300, 301)).Should().Equal(Poison, Ite(298, 8200, 7), Poison, Poison, Ite(0, 8999, 3), Poison);
        (await WordsAsync(vm, vm.Its.CollectionTable, 0, 1, 2, 3)).Should().Equal(Cte(1, 7), Cte(0, 3), 0, Poison);
    }

    [Fact]
    [Clause("arm-its-save/next-offset-is-capped")]
    public async Task DistanceToTheNextDeviceIsCapped()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.SetLpiTablesAsync();
        // Five pages: device ids up to 40959, more than 14 bits apart.
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.SecondLevel(0), pages: 5));
        await vm.Its.WriteAsync(Gits.BaserCollections, Its.TableBase(vm.Its.CollectionTable));
        await vm.Its.WriteAsync(Gits.Cbaser, vm.Its.QueueBase);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.IssueAsync(vm.Its.MapDevice(new DeviceId(1)), vm.Its.MapDevice(new DeviceId(0x4000)), vm.Its.MapDevice(new DeviceId(0x8001)));
        await vm.Its.SaveTablesAsync();
        ulong[] saved = await WordsAsync(vm, vm.Its.SecondLevel(0), 1, 0x4000, 0x8001);
        saved.Select(s => s >> 49 & 0x3fff).Should().Equal(0x3fff, 0x3fff, 0);
    }

    [Fact]
    [Clause("arm-its-save/collections-end")]
    public async Task CollectionTableEndsWithAZeroEntry()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await PoisonAsync(vm.Its);
        await vm.Its.SaveTablesAsync();
        (await WordsAsync(vm, vm.Its.CollectionTable, 0, 1)).Should().Equal(0, Poison);
        (await WordsAsync(vm, vm.Its.DeviceTable, 0, 1)).Should().Equal([Poison, Poison], "no device, nothing written");
    }

    [Fact]
    [Clause("arm-its-save/collection-without-a-target")]
    public async Task CollectionWithoutATargetIsSavedAsSuch()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapEvent(s_device, new EventId(1), new Lpi(8200), new CollectionId(5)));
        await vm.Its.SaveTablesAsync();
        (await WordsAsync(vm, vm.Its.CollectionTable, 0, 1)).Should().Equal(Cte(uint.MaxValue, 5), 0);
    }

    [Fact]
    [Clause("arm-its-save/event-without-a-collection")]
    public async Task EventWhoseCollectionIsGoneIsSavedAsInvalid()
    {
        kernel.RequireChange("its-save-unmapped-collection");
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, new EventId(1), new Lpi(8200));
        await vm.Its.SaveTablesAsync();
        await vm.Its.IssueAsync(ItsCommand.UnmapCollection(new CollectionId(0)));
        (await vm.Its.TrySaveTablesAsync()).Should().Be(Errno.None);
        (await WordsAsync(vm, vm.Its.Itt(s_device), 1)).Should().Equal(0ul);
    }

    [Fact]
    [Clause("arm-its-save/invalid-tables")]
    public async Task TablesThatAreNotValidAreNotWritten()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Its.TrySaveTablesAsync()).Should().Be(Errno.None);
        (await vm.Its.TryRestoreTablesAsync()).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("arm-its-save/indirect")]
    public async Task DevicesOfAnIndirectTableAreSavedInTheirPages()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.SetLpiTablesAsync();
        byte[] level1 = new byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(level1, Gits.Valid | vm.Its.SecondLevel(0));
        BinaryPrimitives.WriteUInt64LittleEndian(level1.AsSpan(8), Gits.Valid | vm.Its.SecondLevel(1));
        await vm.WriteMemoryAsync(vm.Its.DeviceTable, level1);
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.DeviceTable, indirect: true));
        await vm.Its.WriteAsync(Gits.BaserCollections, Its.TableBase(vm.Its.CollectionTable));
        await vm.Its.WriteAsync(Gits.Cbaser, vm.Its.QueueBase);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.IssueAsync(vm.Its.MapDevice(new DeviceId(3)), vm.Its.MapDevice(new DeviceId(8192 + 4), 7));
        await vm.Its.SaveTablesAsync();
        (await WordsAsync(vm, vm.Its.SecondLevel(0), 3)).Should().Equal(Dte(8192 + 1, vm.Its.Itt(new DeviceId(3)), 5));
        (await WordsAsync(vm, vm.Its.SecondLevel(1), 4)).Should().Equal(Dte(0, vm.Its.Itt(new DeviceId(8192 + 4)), 7));
    }

    [Fact]
    [Clause("arm-its-save/unreachable-device-is-skipped")]
    [FixedBy("cc5d96036e01", "KVM: arm64: vgic-its: Skip unreachable devices instead of failing the save")]
    public async Task DeviceWhosePageTheGuestTookAwayIsSkipped()
    {
        kernel.RequireChange("its-save-skips-unreachable");
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.SetLpiTablesAsync();
        byte[] level1 = new byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(level1, Gits.Valid | vm.Its.SecondLevel(0));
        BinaryPrimitives.WriteUInt64LittleEndian(level1.AsSpan(8), Gits.Valid | vm.Its.SecondLevel(1));
        await vm.WriteMemoryAsync(vm.Its.DeviceTable, level1);
        await vm.Its.WriteAsync(Gits.BaserDevices, Its.TableBase(vm.Its.DeviceTable, indirect: true));
        await vm.Its.WriteAsync(Gits.BaserCollections, Its.TableBase(vm.Its.CollectionTable));
        await vm.Its.WriteAsync(Gits.Cbaser, vm.Its.QueueBase);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.IssueAsync(vm.Its.MapDevice(new DeviceId(3)), vm.Its.MapDevice(new DeviceId(8192 + 4)));
        await vm.WriteMemoryAsync(vm.Its.DeviceTable + 8, new byte[8]);
        (await vm.Its.TrySaveTablesAsync()).Should().Be(Errno.None);
        (await WordsAsync(vm, vm.Its.SecondLevel(0), 3)).Should().Equal([Dte(0, vm.Its.Itt(new DeviceId(3)), 5)], "the skipped device is not the next one");
    }

    [Fact]
    [Clause("arm-lpi/pending-table/saved")]
    public async Task PendingTableIsSavedBitByBit()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        for (uint n = 0; n < 4; n++)
        {
            await vm.Its.MapAsync(s_device, new EventId(n), new Lpi(8200 + n), vcpuId: n / 2);
        }

        // Stale bits that must go, bits of others that must stay, and the first kilobyte, which is not the GIC's.
        await vm.WriteMemoryAsync(Vgic.PendingTable(0) + 1025, new byte[] { 0xf2 });
        await vm.WriteMemoryAsync(Vgic.PendingTable(0), new byte[] { 0x77 });
        await vm.WriteMemoryAsync(Vgic.PendingTable(1) + 1024, new byte[] { 0x81, 0x01, 0x55 });
        await vm.SignalMsiAsync(s_device, new EventId(0));
        await vm.SignalMsiAsync(s_device, new EventId(3));
        await vm.Gic.SavePendingTablesAsync();
        (await vm.ReadMemoryAsync(Vgic.PendingTable(0) + 1024, 3)).Should().Equal(0, 0xf1, 0);
        (await vm.ReadMemoryAsync(Vgic.PendingTable(0), 1)).Should().Equal(0x77);
        (await vm.ReadMemoryAsync(Vgic.PendingTable(1) + 1024, 3)).Should().Equal(0x81, 0x09, 0x55);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([new Lpi(8200)], "saving takes nothing away");
    }

    internal static ulong Dte(ulong next, ulong itt, int bits) => (1ul << 63) | (next << 49) | (itt >> 8 << 5) | (uint)(bits - 1);

    internal static ulong Ite(ulong next, uint lpi, uint collection) => (next << 48) | ((ulong)lpi << 16) | collection;

    internal static ulong Cte(uint vcpuId, uint collection) => (1ul << 63) | ((ulong)vcpuId << 16) | collection;

    internal static async Task<ulong[]> WordsAsync(Vm vm, ulong table, params int[] entries)
    {
        var words = new List<ulong>();
        foreach (int entry in entries)
        {
            words.Add(BinaryPrimitives.ReadUInt64LittleEndian(await vm.ReadMemoryAsync(table + ((ulong)entry * 8), 8)));
        }

        return [.. words];
    }

    private static async Task PoisonAsync(Its its)
    {
        byte[] poison = new byte[0x1000];
        poison.AsSpan().Fill(0xa5);
        await its.Vm.WriteMemoryAsync(its.DeviceTable, poison);
        await its.Vm.WriteMemoryAsync(its.CollectionTable, poison);
        await its.Vm.WriteMemoryAsync(its.Itt(new DeviceId(0x112)), poison);
        await its.Vm.WriteMemoryAsync(its.Itt(s_device), poison.AsMemory(0, 0x200));
    }
}

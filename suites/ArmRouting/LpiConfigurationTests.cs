// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>The LPI configuration and pending tables, and what makes the GIC look at them again.</summary>
public sealed class LpiConfigurationTests(KernelUnderTest kernel)
{
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly EventId s_other = new(6);
    private static readonly Lpi s_lpi = new(8200);
    private static readonly Lpi s_otherLpi = new(8205);

    public enum Refresh
    {
        Inv,
        Invall,
        Invlpir,
        Invallr,
    }

    [Theory]
    [InlineData(Refresh.Inv)]
    [InlineData(Refresh.Invall)]
    [InlineData(Refresh.Invlpir)]
    [InlineData(Refresh.Invallr)]
    [Clause("arm-lpi/configuration/read-again-when-told")]
    public async Task DisabledLpiIsTakenOnceItIsEnabledAndInvalidated(Refresh how)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "the table was not looked at again");

        await RefreshAsync(vm, how);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("now it is disabled");
        await vm.Gic.ConfigureAsync(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("enabled in the table only");
        await RefreshAsync(vm, how);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "it was pending all the time");
    }

    [Theory]
    [InlineData(Refresh.Inv)]
    [InlineData(Refresh.Invall)]
    [InlineData(Refresh.Invlpir)]
    [InlineData(Refresh.Invallr)]
    [Clause("arm-lpi/configuration/only-what-is-named")]
    public async Task OnlyWhatIsNamedIsReadAgain(Refresh how)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        // One more LPI on the same vCPU, and one on the other.
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, s_other, s_otherLpi);
        await vm.Its.MapAsync(s_device, new EventId(7), new Lpi(8300), vcpuId: 1);
        await vm.Gic.ConfigureAsync(s_otherLpi, enabled: false);
        await vm.Gic.ConfigureAsync(new Lpi(8300), enabled: false);
        await RefreshAsync(vm, how);
        await vm.SignalMsiAsync(s_device, s_other);
        await vm.SignalMsiAsync(s_device, new EventId(7));
        bool wholeVcpu = how is Refresh.Invall or Refresh.Invallr;
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(wholeVcpu ? Array.Empty<IntId>() : [s_otherLpi]);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(new Lpi(8300));
    }

    [Fact]
    [Clause("arm-lpi/configuration/read-when-mapped")]
    public async Task ConfigurationIsReadWhenTheLpiIsMapped()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapCollection(new CollectionId(0), 0), ItsCommand.MapEvent(s_device, s_event, s_lpi, new CollectionId(0)));
        await vm.Gic.ConfigureAsync(s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1, "a disabled LPI is translated all the same");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-lpi/configuration/priority")]
    public async Task PriorityComesFromTheTable(bool invalidated)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi, priority: invalidated ? (byte)0x20 : (byte)0x80);
        await vm.Its.MapAsync(s_device, s_other, s_otherLpi, priority: 0x40);
        if (invalidated)
        {
            await vm.Gic.ConfigureAsync(s_lpi, priority: 0x80);
            await vm.Its.IssueAsync(ItsCommand.Invalidate(s_device, s_event));
        }

        await vm.SignalMsiAsync(s_device, s_event);
        await vm.SignalMsiAsync(s_device, s_other);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_otherLpi, s_lpi);
    }

    [Fact]
    [Clause("arm-lpi/configuration/priority")]
    public async Task LpiBelowThePriorityMaskWaits()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi, priority: 0x90);
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(priorityMask: 0x90)).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1))
            .Add(GuestCommand.InterruptsOff).Add(Arm64Command.Read(IccRegister.Hppir1)))).Should().NotBeNull();
        (await vm.Vcpus[0].TakenAsync()).Should().BeEmpty("a mask of 0x90 lets only higher priorities through");
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData("event", 0x12u, 7u)]
    [InlineData("device", 0x13u, 5u)]
    [Clause("arm-lpi/inv/unmapped")]
    public async Task InvOfAnUnmappedEventReadsNothing(string what, uint device, uint @event)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        await vm.Its.IssueAsync(ItsCommand.Invalidate(new DeviceId(device), new EventId(@event)));
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], $"the {what} is another");
    }

    [Fact]
    [Clause("arm-lpi/invall/unmapped-collection")]
    public async Task InvallOfAnUnmappedCollectionReadsNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        await vm.Its.IssueAsync(ItsCommand.InvalidateAll(new CollectionId(9)));
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("arm-lpi/invlpir/needs-lpis-enabled")]
    public async Task RedistributorInvalidationNeedsLpisEnabled(bool all)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        // The second redistributor has its LPIs switched off: it does not look.
        await vm.Vcpus[1].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Ctlr, 0))
            .Add(Arm64Command.StoreRedistributor(1, all ? Gicr.Invallr : Gicr.Invlpir, all ? 0 : s_lpi.Value, AccessWidth.Qword)));
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-lpi/invlpir/needs-lpis-enabled")]
    public async Task RedistributorWithLpisOffReadsNoneOfItsOwn()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        await vm.Vcpus[1].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Ctlr, 0))
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Invallr, 0, AccessWidth.Qword))
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Ctlr, Gicr.CtlrEnableLpis)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-lpi/configuration/read-again-when-told")]
    public async Task FirstLpiIsInvalidatedByTheRedistributor()
    {
        var first = new Lpi(8192);
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, first);
        await vm.Gic.ConfigureAsync(first, enabled: false);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreRedistributor(0, Gicr.Invlpir, first.Value, AccessWidth.Qword)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("it is disabled");
    }

    [Theory]
    [InlineData(0xa4u, 8200ul)]
    [InlineData(0xb4u, 0ul)]
    [Clause("arm-lpi/invlpir/upper-half")]
    public async Task UpperHalfOfTheInvalidationRegistersDoesNothing(uint offset, ulong value)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreRedistributor(0, offset, value)));
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-lpi/invlpir/not-an-lpi")]
    public async Task InvalidatingWhatIsNoLpiDoesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.EnableAsync(new Spi(40));
        await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(0, Gicr.Invlpir, 40, AccessWidth.Qword))
            .Add(Arm64Command.StoreRedistributor(0, Gicr.Invlpir, 8191, AccessWidth.Qword))
            .Add(Arm64Command.StoreRedistributor(0, Gicr.Invlpir, 9000, AccessWidth.Qword))
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Syncr)));
        await vm.PulseAsync(new Spi(40));
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo(new IntId[] { new Spi(40), s_lpi });
    }

    [Fact]
    [Clause("arm-lpi/pending-table/read-when-mapped")]
    public async Task PendingBitIsTakenOverAndConsumedWhenTheLpiIsMapped()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        // Bits of the LPI and of its neighbours, in the table of its vCPU; none of it in the other's.
        ulong at = Vgic.PendingTable(1) + (s_lpi.Value / 8);
        await vm.WriteMemoryAsync(at, new byte[] { 0x81 });
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.ReadMemoryAsync(at, 1)).Should().Equal([(byte)0x80], "its own bit was consumed");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-lpi/pending-table/read-when-mapped")]
    public async Task ClearPendingBitLeavesTheTableAlone()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        ulong at = Vgic.PendingTable(0) + (s_lpi.Value / 8);
        await vm.WriteMemoryAsync(at, new byte[] { 0xfe });
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.ReadMemoryAsync(at, 1)).Should().Equal((byte)0xfe);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-lpi/pending-table/read-when-enabled")]
    [Clause("arm-lpi/pending-table/ptz")]
    public async Task PendingTableIsReadWhenLpisAreEnabled(bool zero)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync(vcpus: 2);
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(enable: false);
        await vm.Its.ConfigureAsync();
        for (uint n = 0; n < 2; n++)
        {
            await vm.Its.MapAsync(s_device, new EventId(n), new Lpi(8200 + n), vcpuId: 0);
            await vm.Its.MapAsync(s_device, new EventId(8 + n), new Lpi(8216 + n), vcpuId: 1);
        }

        // For vCPU 0: the first of its own, and one that is for vCPU 1 and does not count here.
        await vm.WriteMemoryAsync(Vgic.PendingTable(0) + (8200 / 8), new byte[] { 0x01, 0, 0x01 });
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, Vgic.PendingTable(0) | (zero ? Gicr.PendbaserPtz : 0));
        await vm.Gic.EnableLpisAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(zero ? Array.Empty<IntId>() : [new Lpi(8200)], zero ? "the guest vouched for an empty table" : "");
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-lpi/pending-table/read-when-enabled")]
    public async Task EveryLpiHasItsBitInThePendingTable()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(enable: false);
        await vm.Its.ConfigureAsync();
        uint[] mapped = [8192, 8193, 8199, 8200, 8207, 8208, 8216, 9000, 9001], pending = [8193, 8199, 8207, 8216, 8217, 9000];
        for (uint n = 0; n < mapped.Length; n++)
        {
            await vm.Its.MapAsync(s_device, new EventId(n), new Lpi(mapped[n]));
        }

        foreach (IGrouping<uint, uint> place in pending.GroupBy(lpi => lpi / 8))
        {
            await vm.WriteMemoryAsync(Vgic.PendingTable(0) + place.Key, new[] { (byte)place.Sum(lpi => 1 << (int)(lpi % 8)) });
        }

        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, Vgic.PendingTable(0));
        await vm.Gic.EnableLpisAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo(pending.Intersect(mapped).Select(lpi => (IntId)new Lpi(lpi)));
    }

    [Fact]
    [Clause("arm-lpi/pending-table/outside-memory")]
    public async Task PendingTableIsReadAsFarAsItIsMemory()
    {
        const ulong Table = 0x5000_0000, Size = 0x1000;
        Lpi last = new((uint)(Size * 8) - 1), behind = new((uint)(Size * 8));
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(enable: false);
        await vm.Its.ConfigureAsync();
        await vm.Its.MapAsync(s_device, s_event, last);
        await vm.Its.MapAsync(s_device, s_other, behind);

        // What is read last has the bit that would be the next one's.
        Mapping memory = await vm.Session.MapAnonymousAsync(Size, "pending table");
        await memory.WriteAsync(Size - 1, new byte[] { 0x81 });
        (await vm.TrySetMemoryRegionAsync(1, Table, Size, memory.Address)).Should().Be(Errno.None);
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, Table);
        await vm.Gic.EnableLpisAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(last);
    }

    [Fact]
    [Clause("arm-lpi/pending-table/unreadable-when-mapped")]
    public async Task LpiWhosePendingBitIsNotMemoryIsNotMapped()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(enable: false);
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, 0x20_0000_0000);
        await vm.Gic.EnableLpisAsync();
        await vm.Its.ConfigureAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-lpi/configuration/unreadable-when-mapped")]
    public async Task LpiWhoseConfigurationIsNotMemoryIsNotMapped()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(enable: false);
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Propbaser, 0x20_0000_0000 | 15);
        await vm.Gic.EnableLpisAsync();
        await vm.Its.ConfigureAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-lpi/pending-table/ptz")]
    public async Task PtzReadsAsZero()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, Vgic.PendingTable(0) | Gicr.PendbaserPtz);
        // Not cacheable became read-allocate, write-back.
        (await vm.Gic.ReadRedistributor64Async(0, Gicr.Pendbaser)).Should().Be(Vgic.PendingTable(0) | 0x180);
    }

    [Fact]
    [Clause("arm-lpi/disable/retires-pending")]
    public async Task DisablingLpisRetiresThePendingOnes()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, s_other, s_otherLpi, vcpuId: 1);
        await vm.Gic.EnableAsync(new Spi(40));
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.SignalMsiAsync(s_device, s_other);
        await vm.PulseAsync(new Spi(40));
        ScriptResults results = await vm.Vcpus[1].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Ctlr))
            .Add(Arm64Command.StoreRedistributor(0, Gicr.Ctlr, 0))
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Ctlr))
            .Add(Arm64Command.LoadRedistributor(1, Gicr.Ctlr)));
        results[0].Value.Should().Be(Gicr.CtlrEnableLpis | Gicr.CtlrCesIr);
        results[2].Value.Should().Be(Gicr.CtlrCesIr);
        results[3].Value.Should().Be(Gicr.CtlrEnableLpis | Gicr.CtlrCesIr);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([new Spi(40)], "its LPI is gone, an SPI is none");
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal([s_otherLpi], "another redistributor is not concerned");
        (await vm.TrySignalMsiAsync(vm.Its.Message(s_device, s_event))).Error.Should().Be(Uapi.Errno.EBUSY, "also when it was cached");

        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreRedistributor(0, Gicr.Ctlr, Gicr.CtlrEnableLpis)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-lpi/disable/retires-pending")]
    public async Task RetiredLpiIsNotPendingInTheTableOrAfterwards()
    {
        kernel.RequireChange("lpi-disable-clears-latch");
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreRedistributor(0, Gicr.Ctlr, 0)));
        await vm.Gic.SavePendingTablesAsync();
        (await vm.ReadMemoryAsync(Vgic.PendingTable(0) + (s_lpi.Value / 8), 1)).Should().Equal((byte)0);
        // The guest vouches for an empty table, so that nothing is read from it.
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, Vgic.PendingTable(0) | Gicr.PendbaserPtz);
        await vm.Gic.EnableLpisAsync();
        await vm.Its.IssueAsync(ItsCommand.Invalidate(s_device, s_event));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-lpi/enable/needs-an-its")]
    public async Task LpisAreNotEnabledWithoutAnIts()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.WriteRedistributorAsync(0, Gicr.Ctlr, Gicr.CtlrEnableLpis);
        ((await vm.Gic.ReadRedistributorAsync(0, Gicr.Ctlr)) & Gicr.CtlrEnableLpis).Should().Be(0);
    }

    [Fact]
    [Clause("arm-lpi/tables/fixed-while-enabled")]
    public async Task TablesAreFixedWhileLpisAreEnabled()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        ulong properties = await vm.Gic.ReadRedistributor64Async(0, Gicr.Propbaser);
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Propbaser, 0x4180_0000 | 13);
        await vm.Gic.WriteRedistributor64Async(0, Gicr.Pendbaser, 0x4180_0000);
        (await vm.Gic.ReadRedistributor64Async(0, Gicr.Propbaser)).Should().Be(properties);
        (await vm.Gic.ReadRedistributor64Async(0, Gicr.Pendbaser)).Should().Be(Vgic.PendingTable(0) | 0x180);
    }

    private static async Task RefreshAsync(Vm vm, Refresh how)
    {
        switch (how)
        {
            case Refresh.Inv:
                await vm.Its.IssueAsync(ItsCommand.Invalidate(s_device, s_event));
                break;
            case Refresh.Invall:
                await vm.Its.IssueAsync(ItsCommand.InvalidateAll(new CollectionId(0)));
                break;
            case Refresh.Invlpir:
                await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreRedistributor(0, Gicr.Invlpir, s_lpi.Value, AccessWidth.Qword)));
                break;
            default:
                await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreRedistributor(0, Gicr.Invallr, 0, AccessWidth.Qword)));
                break;
        }
    }
}

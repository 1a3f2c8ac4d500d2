// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>MOVI, MOVALL, INT, CLEAR, SYNC and commands that are none.</summary>
public sealed class ItsMovementTests(KernelUnderTest kernel)
{
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-its/movi/new-vcpu-only")]
    public async Task MovedEventReachesOnlyTheNewVcpu(bool cached)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, new EventId(6), new Lpi(8201));
        if (cached)
        {
            await vm.SignalMsiAsync(s_device, s_event);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        }

        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.SignalMsiAsync(s_device, new EventId(6))).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([new Lpi(8201)], "the other event stays");
    }

    [Fact]
    [Clause("arm-its/movi/belongs-to-the-new-collection")]
    public async Task MovedEventFollowsItsNewCollection()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 3);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)),
            ItsCommand.MapCollection(new CollectionId(0), 2));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal([s_lpi], "the old collection went elsewhere");
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 2));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[2].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/movi/translated-anew")]
    public async Task MovedEventIsTranslatedAnew()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Gic.WriteRedistributorAsync(1, Gicr.Ctlr, 0);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)));
        (await vm.TrySignalMsiAsync(vm.Its.Message(s_device, s_event))).Error.Should().Be(Errno.EBUSY, "LPIs are disabled on the new vCPU");
    }

    [Fact]
    [Clause("arm-its/movi/pending-state-moves")]
    public async Task PendingLpiMovesWithItsEvent()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Gic.ConfigureAsync(s_lpi, enabled: false);
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device), ItsCommand.MapCollection(new CollectionId(0), 0), ItsCommand.MapCollection(new CollectionId(1), 1),
            ItsCommand.MapEvent(s_device, s_event, s_lpi, new CollectionId(0)));
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.Gic.ConfigureAsync(s_lpi);
        await vm.Its.IssueAsync(ItsCommand.Move(s_device, s_event, new CollectionId(1)), ItsCommand.Invalidate(s_device, s_event));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/movi/pending-state-moves")]
    public async Task QueuedLpiMovesWithItsEvent()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)));
        // It was queued for vCPU 0: it goes over when vCPU 0 has come out of the guest.
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.LeaveAndReturn)).Should().BeEmpty();
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData("event", 0x12u, 6u, 1u)]
    [InlineData("device", 0x13u, 5u, 1u)]
    [InlineData("collection", 0x12u, 5u, 2u)]
    [Clause("arm-its/movi/unmapped")]
    public async Task MoveOfWhatIsNotMappedChangesNothing(string what, uint device, uint @event, uint collection)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(new DeviceId(device), new EventId(@event), new CollectionId(collection)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], $"the {what} is not mapped");
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-its/movi/unmapped")]
    public async Task MoveFromAnUnmappedCollectionChangesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.UnmapCollection(new CollectionId(0)),
            ItsCommand.Move(s_device, s_event, new CollectionId(1)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-its/movi/unmapped")]
    public async Task MoveIntoACollectionWithoutATargetChangesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        // MAPTI makes collection 7 without a target.
        await vm.Its.IssueAsync(ItsCommand.MapEvent(s_device, new EventId(6), new Lpi(8201), new CollectionId(7)), ItsCommand.Move(s_device, s_event, new CollectionId(7)));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/movall/everything-of-one-vcpu")]
    public async Task MoveAllMovesEverythingOfOneVcpu()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 3);
        for (uint n = 0; n < 3; n++)
        {
            await vm.Its.MapAsync(s_device, new EventId(n), new Lpi(8200 + n), vcpuId: n);
            await vm.SignalMsiAsync(s_device, new EventId(n));
        }

        await vm.Its.IssueAsync(ItsCommand.MoveAll(fromVcpuId: 0, toVcpuId: 2));
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.LeaveAndReturn)).Should().BeEmpty();
        IntId[] ofTheOther = await vm.Vcpus[1].TakePendingAsync(Arm64Command.LeaveAndReturn);
        IntId[] moved = await vm.Vcpus[2].TakePendingAsync();
        moved.Should().Contain([new Lpi(8200), new Lpi(8202)]);
        if (kernel.Has("its-movall-source"))
        {
            ofTheOther.Should().Equal(new Lpi(8201));
            moved.Should().HaveCount(2);
        }
    }

    [Fact]
    [Clause("arm-its/mapc/retargets")]
    public async Task MappingAnotherCollectionLeavesWhatMoveAllMoved()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 3);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 0);
        await vm.Its.MapAsync(s_device, new EventId(6), new Lpi(8201), vcpuId: 1);
        await vm.Its.IssueAsync(ItsCommand.MoveAll(fromVcpuId: 0, toVcpuId: 2), ItsCommand.MapCollection(new CollectionId(1), 1));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[2].TakePendingAsync()).Should().Contain((IntId)s_lpi);
    }

    [Theory]
    [InlineData(0u, 2u)]
    [InlineData(2u, 1u)]
    [InlineData(0u, 0u)]
    [Clause("arm-its/movall/bad-vcpus")]
    public async Task MoveAllOfUnknownOrEqualVcpusChangesNothing(uint from, uint to)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.Its.IssueAsync(ItsCommand.MoveAll(from, to));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-its/int/raises-the-lpi")]
    public async Task IntRaisesTheLpiOnItsVcpu(bool byGuest)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        await vm.Its.MapAsync(s_device, new EventId(6), new Lpi(8201), vcpuId: 1);
        if (byGuest)
        {
            (await vm.Vcpus[0].TakePendingAsync(vm.Its.ByGuest(ItsCommand.Raise(s_device, s_event)))).Should().BeEmpty();
        }
        else
        {
            await vm.Its.IssueAsync(ItsCommand.Raise(s_device, s_event));
        }

        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/int/raises-the-lpi")]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task IntOfOneVcpuWakesAnother()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        await vm.Vcpus[1].HaltUntilTakenAsync(s_lpi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().AddRange(vm.Its.ByGuest(ItsCommand.Raise(s_device, s_event))));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/int/unmapped")]
    public async Task IntOfAnUnmappedEventRaisesNothing()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.Raise(s_device, new EventId(6)), ItsCommand.Raise(new DeviceId(0x13), s_event));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(vm.Its.Next, "commands that fail are behind it all the same");
    }

    [Fact]
    [Clause("arm-its/clear/takes-back")]
    public async Task ClearedEventIsNotPending()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.MapAsync(s_device, new EventId(6), new Lpi(8201));
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.SignalMsiAsync(s_device, new EventId(6));
        await vm.Its.IssueAsync(ItsCommand.ClearEvent(s_device, s_event));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8201));
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "the mapping stays");
    }

    [Theory]
    [InlineData(0x12u, 6u)]
    [InlineData(0x13u, 5u)]
    [Clause("arm-its/clear/unmapped")]
    public async Task ClearOfAnUnmappedEventChangesNothing(uint device, uint @event)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.Its.IssueAsync(ItsCommand.ClearEvent(new DeviceId(device), new EventId(@event)));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(0x00ul)]
    [InlineData(0x02ul)]
    [InlineData(0x06ul)]
    [InlineData(0x07ul)]
    [InlineData(0x10ul)]
    [InlineData(0x21ul)]
    [InlineData(0x29ul)]
    [InlineData(0xfful)]
    [Clause("arm-its/commands/unknown-is-skipped")]
    public async Task UnknownCommandIsSkipped(ulong number)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.IssueAsync(ItsCommand.Raw(number | (0x12ul << 32), 5, 0, 0), ItsCommand.Raise(s_device, s_event));
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(vm.Its.Next);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
    }

    [Fact]
    [Clause("arm-its/sync/is-done-at-once")]
    public async Task SyncOfAnyVcpuIsDoneAtOnce()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.IssueAsync(ItsCommand.Synchronise(), ItsCommand.Synchronise(77));
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(64);
        (await vm.Its.ReadAsync(Gits.Ctlr) & Gits.CtlrQuiescent).Should().Be(Gits.CtlrQuiescent);
    }
}

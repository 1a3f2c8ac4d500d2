// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Targets;
using Conformance.Uapi;
using Conformance.Vfio;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>
/// A device's MSI-X entry that the host's own ITS turns into the guest's LPI (GICv4). That it does shows in the kernel's count of the
/// entry's interrupts, which does not move.
/// </summary>
public sealed class DirectInjectionTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);

    [Fact]
    [Clause("arm-gicv4/no-host-interrupt")]
    public async Task MappedEventIsInjectedWithoutAHostInterrupt()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd, vcpuId: 1);
        long before = await HostInterruptsAsync(vm.Session);
        for (uint n = 1; n <= 3; n++)
        {
            await nic.RaiseAsync(IrqIndex.Msix);
            (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        }

        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-gicv4/doorbell")]
    public async Task DirectInterruptWakesAHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd, vcpuId: 1);
        long before = await HostInterruptsAsync(vm.Session);
        for (uint n = 1; n <= 2; n++)
        {
            await HaltUntilTakenAsync(vm.Vcpus[1], n);
            await nic.RaiseAsync(IrqIndex.Msix);
            await vm.Vcpus[1].FinishAsync();
            (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_lpi);
        }

        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
    }

    [Fact]
    [Clause("arm-gicv4/waits-for-the-distributor")]
    public async Task HaltedVcpuIsWokenWhenTheDistributorIsEnabled()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd, vcpuId: 1);
        Skipping.UnlessCapability(await TrapsWfiAsync(vm.Session), "kvm-arm.wfi_trap_policy", "a guest that waits by itself rings no doorbell");
        await vm.Gic.WriteDistributorAsync(Gicd.Ctlr, 0);
        await HaltUntilTakenAsync(vm.Vcpus[1]);
        long before = (await DoorbellsAsync(vm.Session)).Sum(Count);
        await nic.RaiseAsync(IrqIndex.Msix);
        await AwaitDoorbellAsync(vm.Session, before);
        // It looked at the doorbell and went back to sleep.
        await vm.Vcpus[1].WaitUntilBlockedAsync();
        (await vm.ReadMemoryAsync(vm.Vcpus[1].TakenAddress(s_lpi), 4)).Should().Equal([0, 0, 0, 0], "the distributor is disabled");
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Ctlr, Gicd.CtlrEnableGroup1)));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-gicv4/spi-route-goes-through-the-host")]
    [FixedBy("a0d7e2fc61ab", "KVM: arm64: vgic-v4: Only attempt vLPI mapping for actual MSIs")]
    public async Task SpiRouteGoesThroughTheHost()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenNicAsync(eventfd);
        var spi = new Spi(50);
        await vm.Gic.EnableAsync(spi);
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(Gsi, 0, spi.Pin));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await vm.Vcpus[0].HaltUntilTakenAsync(spi);
        await nic.RaiseAsync(IrqIndex.Msix);
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(spi);
        (await HostInterruptsAsync(vm.Session)).Should().Be(before + 1);
    }

    [Fact]
    [Clause("arm-gicv4/unmapped-event-goes-through-the-host")]
    public async Task EventMappedAfterTheIrqfdGoesThroughTheHost()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenNicAsync(eventfd);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        long before = await HostInterruptsAsync(vm.Session);
        await vm.Vcpus[0].HaltUntilTakenAsync(s_lpi);
        await nic.RaiseAsync(IrqIndex.Msix);
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_lpi);
        (await HostInterruptsAsync(vm.Session)).Should().Be(before + 1);
    }

    [Fact]
    [Clause("arm-gicv4/movi")]
    public async Task MovedEventIsInjectedIntoTheOtherVcpu()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)));
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
    }

    [Fact]
    [Clause("arm-gicv4/signal-msi")]
    public async Task SignalledMessageOfADirectEventIsTaken()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        for (int n = 0; n < 2; n++)
        {
            (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        }
    }

    [Fact]
    [Clause("arm-gicv4/deassign")]
    public async Task AfterDeassignTheEventfdIsSignalledAgain()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await eventfd.WaitAsync()).Should().Be(1);
        (await HostInterruptsAsync(vm.Session)).Should().Be(before + 1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-gicv4/movi")]
    [Clause("arm-gicv4/doorbell")]
    public async Task MovedEventWakesTheOtherVcpu()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)));
        await HaltUntilTakenAsync(vm.Vcpus[1]);
        await nic.RaiseAsync(IrqIndex.Msix);
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_lpi);
        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
    }

    [Fact]
    [Clause("arm-gicv4/mapc")]
    public async Task EventFollowsItsCollection()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(0), 1));
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
    }

    [Fact]
    [Clause("arm-gicv4/movall")]
    public async Task EventIsMovedWithAllOthers()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await vm.Its.IssueAsync(ItsCommand.MoveAll(fromVcpuId: 0, toVcpuId: 1));
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
    }

    [Fact]
    [Clause("arm-gicv4/configuration")]
    public async Task DisabledEventWaitsUntilItIsEnabledAndInvalidated()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        await ConfigureAsync(vm, enabled: false);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await ConfigureAsync(vm, enabled: true);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-gicv4/configuration")]
    public async Task EventThatIsDisabledBeforehandStaysSo()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenRoutedNicAsync(vm, eventfd);
        await ConfigureAsync(vm, enabled: false);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await ConfigureAsync(vm, enabled: true);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(0xc0, false)]
    [InlineData(0x40, true)]
    [Clause("arm-gicv4/configuration")]
    public async Task DirectEventIsTakenByItsPriority(byte priority, bool first)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenRoutedNicAsync(vm, eventfd);
        await vm.Gic.ConfigureAsync(s_lpi, priority: priority);
        await vm.Its.IssueAsync(ItsCommand.Invalidate(s_device, s_event));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        var spi = new Spi(50);
        await vm.Gic.EnableAsync(spi, priority: 0x80);
        await vm.PulseAsync(spi);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(first ? [s_lpi, spi] : new IntId[] { spi, s_lpi });
    }

    [Fact]
    [Clause("arm-gicv4/follows-its-vcpu")]
    public async Task RunningVcpuIsReachedOnEachProcessor()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        int[] processors = await vm.Session.ProcessorsAsync();
        Skipping.UnlessHardware(processors.Length > 1, "a second processor", $"{processors.Length} processor");
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        uint times = 0;
        foreach (int processor in new[] { processors[0], processors[1], processors[0], processors[1] })
        {
            await vm.Session.StayOnProcessorAsync(processor, vm.Vcpus[0].ThreadId!.Value);
            await vm.Vcpus[0].SpinUntilTakenAsync(s_lpi, ++times);
            await nic.RaiseAsync(IrqIndex.Msix);
            await vm.Vcpus[0].FinishAsync();
            (await vm.Vcpus[0].TakenAsync()).Should().Equal([s_lpi], $"the vCPU is on processor {processor}");
        }
    }

    [Fact]
    [Clause("arm-gicv4/follows-its-vcpu")]
    public async Task DoorbellStaysWithItsVcpu()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await RequireDirectInjectionAsync(vm.Session);
        int[] processors = await vm.Session.ProcessorsAsync();
        Skipping.UnlessHardware(processors.Length > 1, "a second processor", $"{processors.Length} processor");
        await vm.Vcpus[0].TakePendingAsync();
        string irq = (await DoorbellsAsync(vm.Session)).Should().ContainSingle("there is one vCPU").Which.Split(':')[0].Trim();
        foreach (int processor in new[] { processors[0], processors[1], processors[0] })
        {
            await vm.Session.StayOnProcessorAsync(processor, vm.Vcpus[0].ThreadId!.Value);
            await vm.Vcpus[0].TakePendingAsync();
            // Where the vPE is mapped is where its doorbell goes.
            (await vm.Session.ReadFileAsync($"/proc/irq/{irq}/smp_affinity_list"))!.Trim().Should().Be($"{processor}");
        }
    }

    [Fact]
    [Clause("arm-gicv4/no-doorbell-without-an-its")]
    public async Task VmWithoutAnItsHasNoDoorbells()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await RequireDirectInjectionAsync(vm.Session);
        Skipping.UnlessHardware(await kernel.TargetAsync() is EmulatedTarget, "GICv4.0", "GICv4.1 has doorbells for SGIs, too");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await DoorbellsAsync(vm.Session)).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-gicv4/pending-state-is-handed-over")]
    public async Task EventThatIsPendingBeforehandIsTaken()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenRoutedNicAsync(vm, eventfd);
        await vm.SignalMsiAsync(s_device, s_event);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-gicv4/pending-state-is-handed-over")]
    public async Task DisabledEventThatIsPendingBeforehandIsTakenWhenItIsEnabled()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenRoutedNicAsync(vm, eventfd);
        await ConfigureAsync(vm, enabled: false);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("it is disabled");
        await ConfigureAsync(vm, enabled: true);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-gicv4/commands")]
    public async Task ClearTakesBackWhatTheDeviceRaised()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        await nic.RaiseAsync(IrqIndex.Msix);
        await vm.Its.IssueAsync(ItsCommand.ClearEvent(s_device, s_event));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.Its.IssueAsync(ItsCommand.Raise(s_device, s_event));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicv4/unmapping")]
    public async Task UnmappedEventRaisesNothingMore(bool device)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.Its.IssueAsync(device ? ItsCommand.UnmapDevice(s_device) : ItsCommand.DiscardEvent(s_device, s_event));
        long before = await HostInterruptsAsync(vm.Session);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await HostInterruptsAsync(vm.Session)).Should().Be(before + 1, "the host takes it again");
    }

    [Fact]
    [Clause("arm-gicv4/deassign")]
    public async Task EventIsDirectAgainAfterASecondAssign()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "KVM injects it again");
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        await nic.RaiseAsync(IrqIndex.Msix);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        (await HostInterruptsAsync(vm.Session)).Should().Be(before);
    }

    [Fact]
    [Clause("arm-gicv4/save-needs-41")]
    public async Task TablesWithADirectEventAreNotSaved()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenDirectNicAsync(vm, eventfd);
        (await vm.Its.TrySaveTablesAsync()).Should().Be(Errno.EACCES);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Its.TrySaveTablesAsync()).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("arm-gicv4/no-host-interrupt")]
    [Clause("arm-gicv4/without-it-through-the-host")]
    public async Task EveryInterruptOfAMappedEventIsTakenOnceEitherWay()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        bool direct = (await DoorbellsAsync(vm.Session)).Length > 0;
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice nic = await OpenNicAsync(eventfd);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        long before = await HostInterruptsAsync(vm.Session);
        for (uint n = 1; n <= 3; n++)
        {
            await HaltUntilTakenAsync(vm.Vcpus[0], n);
            await nic.RaiseAsync(IrqIndex.Msix);
            await vm.Vcpus[0].FinishAsync();
            (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_lpi);
        }

        (await HostInterruptsAsync(vm.Session)).Should().Be(direct ? before : before + 3, direct ? "the host's ITS injects them" : "there is no GICv4 to inject them");
    }

    /// <summary>A NIC whose MSI-X entry 0 signals an eventfd that only has to be assigned to be injected directly as the event.</summary>
    private async Task<E1000eDevice> OpenRoutedNicAsync(Vm vm, EventFd eventfd, uint vcpuId = 0)
    {
        await RequireDirectInjectionAsync(vm.Session);
        E1000eDevice nic = await OpenNicAsync(eventfd);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        return nic;
    }

    /// <summary>A NIC whose MSI-X entry 0 is injected directly as the event.</summary>
    private async Task<E1000eDevice> OpenDirectNicAsync(Vm vm, EventFd eventfd, uint vcpuId = 0)
    {
        E1000eDevice nic = await OpenRoutedNicAsync(vm, eventfd, vcpuId);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        return nic;
    }

    /// <summary>Enables or disables the event's LPI, and has its configuration read again.</summary>
    private static async Task ConfigureAsync(Vm vm, bool enabled)
    {
        await vm.Gic.ConfigureAsync(s_lpi, enabled);
        await vm.Its.IssueAsync(ItsCommand.Invalidate(s_device, s_event));
    }

    private async Task<E1000eDevice> OpenNicAsync(EventFd eventfd)
    {
        E1000eDevice nic = await E1000eDevice.OpenAsync(kernel, await kernel.SessionAsync());
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfd);
        await nic.PrepareAsync(IrqIndex.Msix);
        // The host's LPI may have been a doorbell of an earlier VM, and still be pending as such: nobody takes that back when the doorbell is freed.
        await eventfd.ReadAsync();
        return nic;
    }

    /// <summary>Skips unless KVM uses GICv4: then a VM with an ITS has a doorbell interrupt per vCPU. The emulated machine has GICv4, so there it is the kernel's choice alone.</summary>
    private async Task RequireDirectInjectionAsync(KernelSession session)
    {
        string line = (await session.ReadFileAsync("/proc/cmdline") ?? "").Trim();
        bool wanted = line.Split(' ').LastOrDefault(w => w.StartsWith("kvm-arm.vgic_v4_enable=", StringComparison.Ordinal)) is { } option && option[^1] is '1' or 'y' or 'Y';
        Skipping.UnlessCapability(wanted, "kvm-arm.vgic_v4_enable", $"command line \"{line}\"");
        if (await kernel.TargetAsync() is not EmulatedTarget)
        {
            Skipping.UnlessHardware((await DoorbellsAsync(session)).Length > 0, "GICv4", "no doorbell of a vCPU in /proc/interrupts");
        }
    }

    private static async Task<string[]> DoorbellsAsync(KernelSession session) =>
        [.. (await session.ReadFileAsync("/proc/interrupts") ?? "").Split('\n').Where(l => l.TrimEnd().EndsWith(" vcpu", StringComparison.Ordinal))];

    /// <summary>
    /// Starts the guest waiting for the event. A vCPU that has direct events and a processor to itself may wait in the guest: KVM does not trap
    /// its WFI then, and its thread does not block.
    /// </summary>
    private async Task HaltUntilTakenAsync(Vcpu vcpu, uint times = 1)
    {
        await vcpu.StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(Arm64Command.HaltUntilTaken(s_lpi, times)));
        await vcpu.WaitUntilHaltingAsync();
        if (await TrapsWfiAsync(vcpu.Vm.Session))
        {
            await vcpu.WaitUntilBlockedAsync();
        }
    }

    private async Task<bool> TrapsWfiAsync(KernelSession session) =>
        kernel.Has("arm-wfi-trap-policy") && (await session.ReadFileAsync("/proc/cmdline") ?? "").Split([' ', '\n']).Contains("kvm-arm.wfi_trap_policy=trap");

    private static async Task AwaitDoorbellAsync(KernelSession session, long before)
    {
        using var patience = new CancellationTokenSource(session.EventPatience);
        while ((await DoorbellsAsync(session)).Sum(Count) == before)
        {
            if (patience.IsCancellationRequested)
            {
                throw new MissingEventException("No doorbell of a vCPU rang.");
            }
        }
    }

    /// <summary>How often the host took the MSI-X entry, on all its processors.</summary>
    private static async Task<long> HostInterruptsAsync(KernelSession session)
    {
        string table = await session.ReadFileAsync("/proc/interrupts") ?? "";
        string line = table.Split('\n').Single(l => l.Contains("vfio-msix[0]", StringComparison.Ordinal));
        return Count(line);
    }

    private static long Count(string line) => line.Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).TakeWhile(w => w.All(char.IsAsciiDigit)).Sum(long.Parse);
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>From a device's register to an eventfd, and through an irqfd to the guest.</summary>
public sealed class DeliveryTests(KernelUnderTest kernel)
{
    private const uint FirstGsi = 24;
    private const ulong GuestBar = 0xe0000000;
    private static readonly ApicVector Fence = new(0x31);

    private static ApicVector VectorOf(uint entry) => new((byte)(0x41 + (entry * 0x11)));

    [Fact]
    [Clause("vfio-irqs/delivery/msix")]
    public async Task EveryMsixEntryReachesItsEventfdOnceAndNoOther()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync((int)E1000eDevice.Entries);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nic.PrepareAsync(IrqIndex.Msix);

        foreach (uint entry in new uint[] { 0, 3, 1, 4, 2, 2, 0 })
        {
            await nic.RaiseAsync(IrqIndex.Msix, entry);
            (await eventfds[entry].WaitAsync()).Should().Be(1);
            (await eventfds.CountsAsync()).Should().Be("- - - - -");
        }
    }

    [Fact]
    [Clause("vfio-irqs/delivery/msi")]
    public async Task MsiReachesItsEventfdOnce()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfd);
        await edu.PrepareAsync(IrqIndex.Msi);
        for (int i = 0; i < 3; i++)
        {
            await edu.RaiseAsync(IrqIndex.Msi);
            (await eventfd.WaitAsync()).Should().Be(1);
            await edu.AcknowledgeAsync(IrqIndex.Msi);
            (await eventfd.ReadAsync()).Should().BeNull();
        }
    }

    [Fact]
    [Clause("vfio-irqs/delivery/msi")]
    public async Task MsiOfADeviceWithMsixReachesItsEventfd()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await nic.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfd);
        await nic.PrepareAsync(IrqIndex.Msi);

        await nic.RaiseAsync(IrqIndex.Msi);

        (await eventfd.WaitAsync()).Should().Be(1);
        (await Interrupts.OfAsync(nic.Vfio)).Should().Equal($"vfio-msi[0]({nic.Vfio})");
    }

    [Theory]
    [InlineData(IrqIndex.Msi, "vfio-msi[0]")]
    [InlineData(IrqIndex.Msix, "vfio-msix[0]")]
    [Clause("vfio-irqs/delivery/claimed")]
    public async Task DeliveredInterruptIsClaimed(IrqIndex index, string handler)
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await nic.Vfio.AttachAsync(index, 0, eventfd);
        await nic.PrepareAsync(index);
        int? before = await Interrupts.UnhandledAsync(nic.Vfio, $"{handler}({nic.Vfio})");
        Skipping.UnlessCapability(before is not null, "/proc/irq/N/spurious", "absent");

        await nic.RaiseAsync(index);
        (await eventfd.WaitAsync()).Should().Be(1);
        // A second one: the count of the first is complete when its handler has run again.
        await nic.RaiseAsync(index);
        (await eventfd.WaitAsync()).Should().Be(1);

        (await Interrupts.UnhandledAsync(nic.Vfio, $"{handler}({nic.Vfio})")).Should().Be(before, "an interrupt that nobody claims is switched off by the kernel after many");
    }

    [Fact]
    [Clause("vfio-irqs/delivery/replaced-eventfd")]
    public async Task ReplacedEventfdGetsTheDevicesInterruptsAndTheOldOneNone()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfds[0]);
        await edu.PrepareAsync(IrqIndex.Msi);
        await edu.RaiseAsync(IrqIndex.Msi);
        (await eventfds[0].WaitAsync()).Should().Be(1);

        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfds[1]);
        await edu.RaiseAsync(IrqIndex.Msi);

        (await eventfds[1].WaitAsync()).Should().Be(1);
        (await eventfds.CountsAsync()).Should().Be("- -");
    }

    [Fact]
    [Clause("vfio-irqs/delivery/guest-vector")]
    public async Task EveryMsixEntryReachesItsVectorOnItsVcpu()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        await using Vm vm = await kernel.CreateVmAsync(vcpus: 2);
        EventFd[] eventfds = await ConnectAsync(nic, vm);
        await vm.RunUntilHaltedAsync();

        for (uint entry = 0; entry < E1000eDevice.Entries; entry++)
        {
            await nic.RaiseAsync(IrqIndex.Msix, entry);
            await vm.Vcpus[(int)entry % 2].ReadInterruptLogAsync(VectorOf(entry));
        }

        await ExpectAllOnceAsync(vm, eventfds);
    }

    [Fact]
    [Clause("vfio-irqs/delivery/guest-raises")]
    [Clause("vfio-regions/mmap/backs-guest-memory")]
    public async Task GuestRaisesEveryEntryThroughABarInItsMemory()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        await using Vm vm = await kernel.CreateVmAsync(vcpus: 2);
        EventFd[] eventfds = await ConnectAsync(nic, vm);
        VfioRegion bar = await nic.Vfio.RegionAsync(nic.RegisterBar);
        Mapping registers = await bar.MapAsync();
        await vm.SetMemoryRegionAsync(1, GuestBar, bar.Size, registers.Address);
        await vm.Vcpus[1].RunUntilHaltedAsync();
        await vm.Vcpus[0].SetHandlersAsync(Vcpu.NotifyingHandlers());

        var script = new GuestScript().Add(GuestCommand.EnableApic(false)).Add(GuestCommand.InterruptsOn);
        for (uint entry = 0; entry < E1000eDevice.Entries; entry++)
        {
            foreach ((ulong offset, uint value) in nic.RaisingWrites(IrqIndex.Msix, entry))
            {
                script.Add(GuestCommand.Store(GuestBar + offset, value));
            }
        }

        script.Add(GuestCommand.HaltUntilLogged(ulong.MaxValue));
        await vm.Vcpus[0].StartAsync(script);
        for (uint entry = 0; entry < E1000eDevice.Entries; entry++)
        {
            await vm.Vcpus[(int)entry % 2].ReadInterruptLogAsync(VectorOf(entry));
        }

        await ExpectAllOnceAsync(vm, eventfds);
    }

    private async Task<EventFd[]> ConnectAsync(E1000eDevice nic, Vm vm)
    {
        EventFd[] eventfds = await kernel.CreateEventFdsAsync((int)E1000eDevice.Entries);
        await vm.SetGsiRoutingAsync([.. eventfds.Select((_, i) => GsiRoute.Msi(FirstGsi + (uint)i, MsiMessage.Fixed((uint)i % 2, VectorOf((uint)i))))]);
        for (uint i = 0; i < eventfds.Length; i++)
        {
            await vm.AssignIrqfdAsync(FirstGsi + i, eventfds[i]);
        }

        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nic.PrepareAsync(IrqIndex.Msix);
        return eventfds;
    }

    // Deassigning drains, and the fence of lower priority is logged last.
    private static async Task ExpectAllOnceAsync(Vm vm, EventFd[] eventfds)
    {
        for (uint i = 0; i < eventfds.Length; i++)
        {
            await vm.DeassignIrqfdAsync(FirstGsi + i, eventfds[i]);
        }

        for (uint vcpu = 0; vcpu < 2; vcpu++)
        {
            await vm.SignalMsiAsync(MsiMessage.Fixed(vcpu, Fence));
            ApicVector[] taken = await vm.Vcpus[(int)vcpu].ReadInterruptLogAsync(Fence);
            taken[..^1].Order().Should().Equal(Enumerable.Range(0, eventfds.Length).Where(e => e % 2 == vcpu).Select(e => VectorOf((uint)e)));
            taken[^1].Should().Be(Fence);
        }
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>KVM_IRQ_ROUTING_XEN_EVTCHN: a GSI, and with it an eventfd, that raises an event channel.</summary>
public sealed class IrqfdXenRouteTests(KernelUnderTest kernel)
{
    private const uint Gsi = 32;

    private static async Task<EventFd> BindAsync(XenDomain domain, uint port, uint vcpu = 0, uint gsi = Gsi)
    {
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(gsi, port, vcpu));
        EventFd eventfd = await domain.Kernel.CreateEventFdAsync();
        await domain.Vm.AssignIrqfdAsync(gsi, eventfd);
        return eventfd;
    }

    public static TheoryData<XenAbi, VcpuState, UpcallPath> Circumstances { get; } = new()
    {
        { XenAbi.Bits64, VcpuState.Halted, UpcallPath.DomainVector },
        { XenAbi.Bits64, VcpuState.Running, UpcallPath.DomainVector },
        { XenAbi.Bits64, VcpuState.NotYetRun, UpcallPath.DomainVector },
        { XenAbi.Bits64, VcpuState.Halted, UpcallPath.VcpuVector },
        { XenAbi.Bits32, VcpuState.Halted, UpcallPath.DomainVector },
        { XenAbi.Bits32, VcpuState.Running, UpcallPath.VcpuVector },
    };

    [Theory]
    [MemberData(nameof(Circumstances))]
    [Clause("kvm-xen/route/irqfd")]
    public async Task SignalledIrqfdDeliversItsPortOnce(XenAbi abi, VcpuState state, UpcallPath upcall)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Upcall = upcall });
        EventFd eventfd = await BindAsync(domain, 66);

        IReadOnlyList<string> log = await domain.ObserveAsync(state, () => eventfd.SignalAsync());

        log.Should().Equal(domain.Delivered(66));
        (await eventfd.ReadAsync()).Should().BeNull("the signal was consumed");
    }

    [Theory]
    [InlineData(XenAbi.Bits64, VcpuState.Halted, UpcallPath.DomainVector)]
    [InlineData(XenAbi.Bits64, VcpuState.Running, UpcallPath.VcpuVector)]
    [InlineData(XenAbi.Bits32, VcpuState.Halted, UpcallPath.DomainVector)]
    [Clause("kvm-xen/route/stale-translation")]
    public async Task SignalAfterAMemslotChangeIsDeliveredOnce(XenAbi abi, VcpuState state, UpcallPath upcall)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Upcall = upcall });
        EventFd eventfd = await BindAsync(domain, 66);

        IReadOnlyList<string> log = await domain.ObserveAsync(state, async () =>
        {
            await domain.MakeTranslationsStaleAsync();
            await eventfd.SignalAsync();
        });

        log.Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/route/stale-translation")]
    public async Task SignalAfterSharedInfoWasDroppedIsDelivered()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await BindAsync(domain, 66);

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.Halted, async () =>
        {
            await domain.SharedInfo.DropAsync();
            await eventfd.SignalAsync();
        });

        log.Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/route/absent-shared-info")]
    public async Task SignalWithoutTheSharedInfoSlotIsLostAndHarmless()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true });
        EventFd eventfd = await BindAsync(domain, 66);
        await domain.RemoveSharedInfoSlotAsync();

        await eventfd.SignalAsync();

        // Deassigning waits for an injection that is under way.
        await domain.Vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await eventfd.ReadAsync()).Should().BeNull("the signal was consumed");
        await domain.AddSharedInfoSlotAsync();
        await domain.Vm.AssignIrqfdAsync(Gsi, eventfd);
        (await domain.ObserveAsync(VcpuState.Halted, () => eventfd.SignalAsync())).Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/evtchn/masked")]
    public async Task SignalForAMaskedPortDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.SharedInfo.MaskAsync(15);
        EventFd eventfd = await BindAsync(domain, 15);
        await domain.HaltAsync();

        await eventfd.SignalAsync();
        await domain.Vm.DeassignIrqfdAsync(Gsi, eventfd);

        (await domain.FenceAsync()).Should().Equal(XenDomain.NothingDelivered);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u);
    }

    [Fact]
    [Clause("kvm-xen/route/line-status")]
    public async Task LineStatusSaysDeliveredCoalescedOrMasked()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.SharedInfo.MaskAsync(70);
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(32, 66), GsiRoute.XenEventChannel(33, 70));

        (await domain.Vm.TryIrqLineStatusAsync(32, asserted: true)).Should().Be((Errno.None, 1), "the event is new");
        (await domain.Vm.TryIrqLineStatusAsync(32, asserted: true)).Should().Be((Errno.None, 0), "the event is pending");
        (await domain.Vm.TryIrqLineStatusAsync(33, asserted: true)).Should().Be((Errno.None, -1), "the port is masked");
        (await domain.Vm.TryIrqLineStatusAsync(33, asserted: true)).Should().Be((Errno.None, 0), "the masked event is pending");
        (await domain.SharedInfo.PendingAsync()).Should().Equal(66u, 70u);
    }

    [Fact]
    [Clause("kvm-xen/route/line-low")]
    public async Task LoweredLineRaisesNothing()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(Gsi, 66));

        (await domain.Vm.TryIrqLineStatusAsync(Gsi, asserted: false)).Should().Be((Errno.None, -1));

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/route/port")]
    public async Task EachRouteRaisesItsOwnPort()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vm.SetGsiRoutingAsync(
            GsiRoute.XenEventChannel(32, 15), GsiRoute.XenEventChannel(33, 66), GsiRoute.XenEventChannel(34, 1), GsiRoute.XenEventChannel(35, 4095));

        foreach ((uint gsi, uint port) in new (uint, uint)[] { (33, 66), (35, 4095), (32, 15), (34, 1) })
        {
            await domain.Vm.IrqLineAsync(gsi, asserted: true);
            (await domain.SharedInfo.PendingAsync()).Should().Equal([port], $"GSI {gsi} is routed there");
            await domain.SharedInfo.FillAsync(0);
        }
    }

    [Fact]
    [Clause("kvm-xen/route/vcpu")]
    public async Task RouteNamesItsVcpuById()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 3, VcpuIds = [0, 2, 1] });
        EventFd eventfd = await BindAsync(domain, 66, vcpu: 2);
        for (int vcpu = 0; vcpu < 3; vcpu++)
        {
            await domain.HaltAsync(vcpu);
        }

        await eventfd.SignalAsync();
        await domain.Vcpus[1].WaitForNotifyAsync();

        (await domain.FenceAsync(1)).Should().Equal(domain.Delivered(66));
        (await domain.FenceAsync(0)).Should().Equal(XenDomain.NothingDelivered);
        (await domain.FenceAsync(2)).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/route/vcpu-created-later")]
    public async Task RouteToAVcpuThatComesLaterDelivers()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await BindAsync(domain, 66, vcpu: 7);
        (await domain.Vm.TryIrqLineStatusAsync(Gsi, asserted: true)).Should().Be((Errno.None, -1), "there is no vCPU 7");
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();

        await domain.AddVcpuAsync(3);
        Vcpu later = await domain.AddVcpuAsync(7);
        await domain.ConfigureVcpuAsync(later.Index);

        for (int round = 0; round < 2; round++)
        {
            (await domain.ObserveAsync(VcpuState.Halted, () => eventfd.SignalAsync(), later.Index)).Should().Equal(domain.Delivered(66));
        }

        (await domain.VcpuInfos[0].ReadAsync()).UpcallPending.Should().Be(0);
        (await domain.VcpuInfos[1].ReadAsync()).UpcallPending.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/route/priority")]
    public async Task RouteWithAnotherPriorityIsRefused()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(Gsi, 66));

        foreach (uint priority in new uint[] { 0, 1, KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL, 0x7fffffff, 0xfffffffe })
        {
            (await domain.Vm.TrySetGsiRoutingAsync(GsiRoute.XenEventChannel(Gsi, 67, priority: priority))).Should().Be(Errno.EINVAL, $"the priority is 0x{priority:x}");
        }

        await domain.Vm.IrqLineAsync(Gsi, asserted: true);
        (await domain.SharedInfo.PendingAsync()).Should().Equal([66u], "the refused table replaced nothing");
    }

    [Fact]
    [Clause("kvm-xen/route/port-out-of-range")]
    [FixedBy("a7f4dff21fd7", "KVM: x86/xen: Allow 'out of range' event channel ports in IRQ routing table.")]
    public async Task RouteToAPortOutOfRangeIsAcceptedAndDeliversNothing()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = XenAbi.Bits32 });
        kernel.RequireChange("xen-route-any-port");

        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(32, 1024), GsiRoute.XenEventChannel(33, 4096), GsiRoute.XenEventChannel(34, uint.MaxValue),
            GsiRoute.XenEventChannel(35, 1023));
        byte[] before = (await domain.SharedInfo.ReadAsync()).Bytes;

        foreach (uint gsi in new uint[] { 32, 33, 34 })
        {
            (await domain.Vm.TryIrqLineStatusAsync(gsi, asserted: true)).Should().Be((Errno.None, -1));
        }

        (await domain.SharedInfo.ReadAsync()).Bytes.Should().Equal(before);
        (await domain.Vm.TryIrqLineStatusAsync(35, asserted: true)).Should().Be((Errno.None, 1));

        // The same table is right for a 64-bit guest.
        await domain.Xen.SetLongModeAsync(true);
        (await domain.Vm.TryIrqLineStatusAsync(32, asserted: true)).Should().Be((Errno.None, 1));
        (await domain.Vm.TryIrqLineStatusAsync(33, asserted: true)).Should().Be((Errno.None, -1));
    }

    [Fact]
    [Clause("kvm-xen/route/change")]
    public async Task ChangedRouteRaisesTheNewPortOnly()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await BindAsync(domain, 66);
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(Gsi, 130));

        (await domain.ObserveAsync(VcpuState.Halted, () => eventfd.SignalAsync())).Should().Equal(domain.Delivered(130));
    }

    [Fact]
    [Clause("kvm-xen/route/change")]
    public async Task DeassignedIrqfdRaisesNothing()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await BindAsync(domain, 66);
        await domain.Vm.DeassignIrqfdAsync(Gsi, eventfd);

        (await domain.ObserveNothingAsync(VcpuState.Halted, () => eventfd.SignalAsync())).Should().Equal(XenDomain.NothingDelivered);
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-xen/route/no-shared-info")]
    public async Task RouteWithoutSharedInfoDeliversNothing()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(Gsi, 66));
        XenDomain.Expect(await domain.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN), "SHARED_INFO off");

        (await domain.Vm.TryIrqLineStatusAsync(Gsi, asserted: true)).Should().Be((Errno.None, -1));
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);
    }
}

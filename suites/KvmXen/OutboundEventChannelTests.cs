// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>KVM_XEN_ATTR_TYPE_EVTCHN: ports that the guest sends on without leaving the kernel.</summary>
public sealed class OutboundEventChannelTests(KernelUnderTest kernel)
{
    private const ulong Send = XenDomain.ArgumentsGpa;
    private const ulong Fault = unchecked((ulong)-14L);

    /// <summary>EVTCHNOP_send as a guest's command.</summary>
    private static GuestCommand SendOn(XenDomain domain, ulong structure = Send) =>
        domain.Hypercall(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, structure);

    private static async Task<ulong> GuestSendsAsync(XenDomain domain, uint port)
    {
        await domain.WriteAsync(Send, port);
        return await domain.CallAsync(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, Send);
    }

    private static async Task GuestSendLeavesAsync(XenDomain domain, uint port)
    {
        await domain.WriteAsync(Send, port);
        GuestExit exit = await domain.CallToUserSpaceAsync(0, XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, Send);
        exit.Run.xen_hcall_input.Should().Be(XenHypercall.EventChannelOp);
        exit.XenParams[..2].Should().Equal(XenHypercall.EventChannelSend, Send);
    }

    private async Task<Vm> CreateBareVmAsync()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await vm.Xen.SetLongModeAsync(true);
        return vm;
    }

    // Delivery

    [Theory]
    [InlineData(XenAbi.Bits64, 127u, 15u)]
    [InlineData(XenAbi.Bits64, 4095u, 4094u)]
    [InlineData(XenAbi.Bits64, 1u, 1023u)]
    [InlineData(XenAbi.Bits32, 127u, 15u)]
    [InlineData(XenAbi.Bits32, 1023u, 1u)]
    [Clause("kvm-xen/outbound/interdomain")]
    [Clause("kvm-xen/hypercall/evtchn-send")]
    public async Task InterdomainSendRaisesTheOtherEnd(XenAbi abi, uint sendPort, uint deliverPort)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        await domain.Xen.BindPortAsync(sendPort, EventChannelType.Interdomain, deliverPort);
        await domain.WriteAsync(Send, sendPort);
        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(SendOn(domain), out int call).Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(deliverPort));
        (await domain.Vcpu.ReadResultsAsync())[call].Value.Should().Be(0);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/outbound/ipi")]
    public async Task IpiRaisesItsPortOnTheOtherVcpu(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Vcpus = 2, VcpuIds = [0, 3] });
        await domain.Xen.BindPortAsync(40, EventChannelType.Ipi, 40, vcpu: 3);

        // The second time the kernel has remembered where the vCPU is.
        for (int round = 0; round < 2; round++)
        {
            await domain.HaltAsync(1);
            (await GuestSendsAsync(domain, 40)).Should().Be(0);
            await domain.Vcpus[1].WaitForNotifyAsync();

            (await domain.FenceAsync(1)).Should().Equal(domain.Delivered(40));
            (await domain.VcpuInfos[0].ReadAsync()).UpcallPending.Should().Be(0);
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/outbound/eventfd")]
    public async Task SendOnAnEventFdPortSignalsIt(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        EventFd a = await kernel.CreateEventFdAsync();
        EventFd b = await kernel.CreateEventFdAsync();
        await domain.Xen.BindEventFdAsync(197, a);
        await domain.Xen.BindEventFdAsync(198, b);

        (await GuestSendsAsync(domain, 197)).Should().Be(0);
        (await a.ReadAsync()).Should().Be(1);
        (await b.ReadAsync()).Should().BeNull();

        (await GuestSendsAsync(domain, 198)).Should().Be(0);
        (await GuestSendsAsync(domain, 198)).Should().Be(0);
        (await a.ReadAsync()).Should().BeNull();
        (await b.ReadAsync()).Should().Be(2);
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty("the port is the sender's end");
    }

    [Fact]
    [Clause("kvm-xen/outbound/eventfd")]
    public async Task EventFdOfAPortCanBeAnIrqfd()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(33, 66));
        await domain.Vm.AssignIrqfdAsync(33, eventfd);
        await domain.Xen.BindEventFdAsync(197, eventfd);
        await domain.WriteAsync(Send, 197);

        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(SendOn(domain)).Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/outbound/keeps-eventfd")]
    public async Task BoundPortKeepsItsEventFd()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Xen.BindEventFdAsync(197, eventfd);
        await using KernelFd other = await eventfd.DuplicateAsync();
        await eventfd.CloseAsync();

        (await GuestSendsAsync(domain, 197)).Should().Be(0);

        (Errno error, byte[] count) = await domain.Vm.Session.TryReadAsync(other, 8);
        error.Should().Be(Errno.None);
        BitConverter.ToUInt64(count).Should().Be(1);
        await other.CloseAsync();
        (await GuestSendsAsync(domain, 197)).Should().Be(0, "the VM itself holds it");
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/outbound/stale-translation")]
    public async Task SendAfterAMemslotChangeIsDelivered(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);
        await domain.WriteAsync(Send, 127);
        await domain.MakeTranslationsStaleAsync();

        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(SendOn(domain), out int call).Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(15));
        (await domain.Vcpu.ReadResultsAsync())[call].Value.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/outbound/masked")]
    public async Task SendToAMaskedPortSucceedsWithoutUpcall()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);
        await domain.SharedInfo.MaskAsync(15);

        (await GuestSendsAsync(domain, 127)).Should().Be(0);
        (await GuestSendsAsync(domain, 127)).Should().Be(0, "it is pending already");

        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u);
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/outbound/undeliverable")]
    public async Task SendThatCannotBeDeliveredGoesToUserSpace()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true });
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);
        await domain.Xen.BindPortAsync(128, EventChannelType.Interdomain, 16, vcpu: 9);

        await GuestSendLeavesAsync(domain, 128);
        await domain.RemoveSharedInfoSlotAsync();
        await GuestSendLeavesAsync(domain, 127);
        await domain.AddSharedInfoSlotAsync();
        (await GuestSendsAsync(domain, 127)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/outbound/vcpu-created-later")]
    public async Task PortCanBeBoundToAVcpuThatComesLater()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15, vcpu: 7);
        await GuestSendLeavesAsync(domain, 127);
        await domain.AddVcpuAsync(3);
        Vcpu later = await domain.AddVcpuAsync(7);
        await domain.ConfigureVcpuAsync(later.Index);
        await domain.HaltAsync(later.Index);

        (await GuestSendsAsync(domain, 127)).Should().Be(0);
        await later.WaitForNotifyAsync();

        (await domain.FenceAsync(later.Index)).Should().Equal(domain.Delivered(15));
        (await domain.VcpuInfos[1].ReadAsync()).UpcallPending.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/outbound/unregistered")]
    public async Task SendOnAnUnregisteredPortGoesToUserSpace()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);

        foreach (uint port in new uint[] { 126, 128, 15, 0, 4096, uint.MaxValue })
        {
            await GuestSendLeavesAsync(domain, port);
        }

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall/bad-pointer")]
    [FixedBy("92c58965e965", "KVM: x86/xen: Use kvm_read_guest_virt() instead of open-coding it badly")]
    public async Task SendWithAnUnreadableArgumentFails(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);

        // Beyond the guest's memory, which its page tables (64-bit) or the absence of paging (32-bit) still reach.
        ulong result = await domain.CallAsync(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, 0x7ffff000);

        result.Should().Be(abi == XenAbi.Bits64 ? Fault : unchecked((uint)Fault));
    }

    [Fact]
    [Clause("kvm-xen/hypercall/crosses-a-page")]
    [FixedBy("92c58965e965", "KVM: x86/xen: Use kvm_read_guest_virt() instead of open-coding it badly")]
    public async Task SendReadsAnArgumentAcrossAPageThatIsMappedElsewhere()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Xen.BindEventFdAsync(0x123, eventfd);

        // Two bytes at the end of one page; the next virtual page shows a frame that is not the next one.
        await domain.Vm.WriteMemoryAsync(0x70ffe, new byte[] { 0x23, 0x01 });
        await domain.Vm.WriteMemoryAsync(0x71000, new byte[] { 0xff, 0xff });
        await domain.Vm.WriteMemoryAsync(0x75000, new byte[] { 0x00, 0x00 });
        await RemapAsync(domain, GuestLayout.X86_64.Tables.Map(0x71000, 0x75000));
        (await domain.CallAsync(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, 0x70ffe)).Should().Be(0);
        (await eventfd.ReadAsync()).Should().Be(1);

        await RemapAsync(domain, GuestLayout.X86_64.Tables.Unmap(0x71000));
        (await domain.CallAsync(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, 0x70ffe)).Should().Be(Fault);
        (await eventfd.ReadAsync()).Should().BeNull();
    }

    internal static async Task RemapAsync(XenDomain domain, GuestWrite write)
    {
        await domain.Vm.WriteMemoryAsync(write.Address, write.Bytes);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.FlushTlb));
    }

    // Binding

    [Fact]
    [Clause("kvm-xen/outbound/port-range")]
    public async Task SendPortOutOfRangeIsRefused()
    {
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint port in new uint[] { 0, 4096, 4097, 0x80000000, uint.MaxValue })
        {
            (await vm.Xen.TryBindPortAsync(port, EventChannelType.Interdomain, 15)).Should().Be(Errno.EINVAL, $"port {port} is assigned");
            (await vm.Xen.TryBindPortAsync(port, EventChannelType.Interdomain, 15, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, $"port {port} is updated");
            (await vm.Xen.TryUnbindPortAsync(port)).Should().Be(Errno.EINVAL, $"port {port} is deassigned");
        }

        (await vm.Xen.TryBindPortAsync(4095, EventChannelType.Interdomain, 15)).Should().Be(Errno.None);
        (await vm.Xen.TryBindPortAsync(1, EventChannelType.Interdomain, 15)).Should().Be(Errno.None);
        await vm.Xen.SetLongModeAsync(false);
        (await vm.Xen.TryBindPortAsync(1024, EventChannelType.Interdomain, 15)).Should().Be(Errno.EINVAL);
        (await vm.Xen.TryBindPortAsync(1023, EventChannelType.Interdomain, 15)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-xen/outbound/deliver-port-range")]
    public async Task DeliverPortOutOfRangeIsRefused()
    {
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint port in new uint[] { 4096, 4097, uint.MaxValue })
        {
            (await vm.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, port)).Should().Be(Errno.EINVAL, $"it would deliver to port {port}");
        }

        (await vm.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, 4095)).Should().Be(Errno.None);
        await vm.Xen.SetLongModeAsync(false);
        (await vm.Xen.TryBindPortAsync(21, EventChannelType.Interdomain, 1024)).Should().Be(Errno.EINVAL);
        (await vm.Xen.TryBindPortAsync(21, EventChannelType.Interdomain, 1023)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-xen/outbound/types")]
    public async Task OnlyInterdomainAndIpiCanBeBound()
    {
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint type in new uint[] { 0, 1, 3, 4, 6, uint.MaxValue })
        {
            (await vm.Xen.TryBindPortAsync(20, (EventChannelType)type, 20)).Should().Be(Errno.EINVAL, $"the type is {type}");
        }

        (await vm.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, 20)).Should().Be(Errno.None);
        (await vm.Xen.TryBindPortAsync(21, EventChannelType.Ipi, 21)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-xen/outbound/ipi")]
    public async Task IpiMustDeliverToItsOwnPort()
    {
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint deliver in new uint[] { 0, 19, 21, 4095 })
        {
            (await vm.Xen.TryBindPortAsync(20, EventChannelType.Ipi, deliver)).Should().Be(Errno.EINVAL, $"port 20 would deliver to port {deliver}");
        }

        (await vm.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.ENOENT, "nothing was bound");
        (await vm.Xen.TryBindPortAsync(20, EventChannelType.Ipi, 20)).Should().Be(Errno.None);
    }

    [Theory]
    [InlineData(EventChannelType.Interdomain)]
    [InlineData(EventChannelType.Ipi)]
    [Clause("kvm-xen/outbound/priority")]
    public async Task OtherPrioritiesAreRefused(EventChannelType type)
    {
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint priority in new uint[] { 0, 1, 0x7fffffff, 0xfffffffe })
        {
            (await vm.Xen.TryBindPortAsync(20, type, 20, priority: priority)).Should().Be(Errno.EINVAL, $"the priority is 0x{priority:x}");
        }

        (await vm.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.ENOENT, "nothing was bound");
    }

    [Fact]
    [Clause("kvm-xen/outbound/flags")]
    public async Task UnknownAndCombinedFlagsAreRefused()
    {
        await using Vm vm = await CreateBareVmAsync();
        await vm.Xen.BindPortAsync(20, EventChannelType.Interdomain, 15);

        foreach (uint flags in new uint[] { 3, 5, 6, 7, 8, 0x80000000, uint.MaxValue })
        {
            (await vm.Xen.TryBindPortAsync(21, EventChannelType.Interdomain, 15, flags: flags)).Should().Be(Errno.EINVAL, $"the flags are 0x{flags:x}");
            (await vm.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, 15, flags: flags)).Should().Be(Errno.EINVAL, $"the flags are 0x{flags:x}");
        }

        (await vm.Xen.TryUnbindPortAsync(21)).Should().Be(Errno.ENOENT, "nothing was bound");
        (await vm.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.None, "nothing was unbound");
    }

    [Fact]
    [Clause("kvm-xen/outbound/duplicate")]
    public async Task BoundPortCannotBeBoundAgain()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd first = await kernel.CreateEventFdAsync();
        EventFd second = await kernel.CreateEventFdAsync();
        await domain.Xen.BindEventFdAsync(20, first);

        (await domain.Xen.TryBindEventFdAsync(20, second.Number)).Should().Be(Errno.EEXIST);
        (await domain.Xen.TryBindEventFdAsync(20, first.Number)).Should().Be(Errno.EEXIST);
        (await domain.Xen.TryBindPortAsync(20, EventChannelType.Ipi, 20)).Should().Be(Errno.EEXIST);
        (await domain.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, 15)).Should().Be(Errno.EEXIST);

        (await GuestSendsAsync(domain, 20)).Should().Be(0);
        (await first.ReadAsync()).Should().Be(1, "the first binding stands");
        (await second.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-xen/outbound/eventfd-errors")]
    [FixedBy("7353633814f6", "KVM: x86/xen: Fix eventfd error handling in kvm_xen_eventfd_assign()")]
    public async Task WrongDescriptorIsRefused()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);

        (await domain.Xen.TryBindEventFdAsync(20, -1)).Should().Be(Errno.EBADF);
        (await domain.Xen.TryBindEventFdAsync(20, int.MaxValue)).Should().Be(Errno.EBADF);
        EventFd closed = await kernel.CreateEventFdAsync();
        await closed.CloseAsync();
        (await domain.Xen.TryBindEventFdAsync(20, closed.Number)).Should().Be(Errno.EBADF);
        (await domain.Xen.TryBindEventFdAsync(20, domain.Vm.Fd.Number)).Should().Be(Errno.EINVAL, "it is no eventfd");
        (await domain.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.ENOENT, "nothing was bound");
        await GuestSendLeavesAsync(domain, 20);
    }

    [Fact]
    [Clause("kvm-xen/outbound/deassign")]
    public async Task DeassignedPortLeavesTheOthers()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Xen.BindEventFdAsync(20, eventfd);
        await domain.Xen.BindPortAsync(21, EventChannelType.Interdomain, 15);
        await domain.Xen.BindPortAsync(22, EventChannelType.Interdomain, 16);

        (await domain.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.None);
        (await domain.Xen.TryUnbindPortAsync(21)).Should().Be(Errno.None);
        (await domain.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.ENOENT);
        (await domain.Xen.TryUnbindPortAsync(23)).Should().Be(Errno.ENOENT);

        await GuestSendLeavesAsync(domain, 20);
        await GuestSendLeavesAsync(domain, 21);
        (await GuestSendsAsync(domain, 22)).Should().Be(0);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(16u);
        (await eventfd.ReadAsync()).Should().BeNull();
        (await domain.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, 17)).Should().Be(Errno.None, "the port is free again");
    }

    [Fact]
    [Clause("kvm-xen/outbound/reset")]
    public async Task ResetRemovesEveryPort()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        uint[] ports = [1, 2, 63, 64, 1000, 4095];
        foreach (uint port in ports)
        {
            await domain.Xen.BindPortAsync(port, EventChannelType.Interdomain, 15);
        }

        await domain.Xen.BindEventFdAsync(20, eventfd);

        (await domain.Xen.TryResetPortsAsync()).Should().Be(Errno.None);

        foreach (uint port in ports.Append(20u))
        {
            (await domain.Xen.TryUnbindPortAsync(port)).Should().Be(Errno.ENOENT, $"port {port} was bound before the reset");
        }

        await GuestSendLeavesAsync(domain, 20);
        (await domain.Xen.TryResetPortsAsync()).Should().Be(Errno.None, "there is nothing to remove, which is no error");
        (await domain.Xen.TryBindPortAsync(20, EventChannelType.Interdomain, 15)).Should().Be(Errno.None, "the port is free again");
    }

    [Fact]
    [Clause("kvm-xen/outbound/reset")]
    public async Task ResetLooksAtNoOtherField()
    {
        await using Vm vm = await CreateBareVmAsync();
        await vm.Xen.BindPortAsync(20, EventChannelType.Interdomain, 15);

        (await vm.Xen.TryBindPortAsync(uint.MaxValue, (EventChannelType)99, 99999, flags: KVM_XEN_EVTCHN_RESET)).Should().Be(Errno.None);

        (await vm.Xen.TryUnbindPortAsync(20)).Should().Be(Errno.ENOENT);
    }

    // Update

    [Theory]
    [InlineData(EventChannelType.Interdomain, 15u)]
    [InlineData(EventChannelType.Ipi, 127u)]
    [Clause("kvm-xen/outbound/update")]
    public async Task UpdatedPortGoesToItsNewVcpu(EventChannelType type, uint deliver)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 3, VcpuIds = [0, 2, 1] });
        await domain.Xen.BindPortAsync(127, type, deliver, vcpu: 99);
        await GuestSendLeavesAsync(domain, 127);

        foreach ((uint id, int index) in new (uint, int)[] { (2, 1), (1, 2), (1, 2), (0, 0) })
        {
            (await domain.Xen.TryBindPortAsync(127, type, deliver, id, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.None);
            (await GuestSendsAsync(domain, 127)).Should().Be(0);

            for (int other = 0; other < 3; other++)
            {
                (await domain.VcpuInfos[other].ReadAsync()).UpcallPending.Should().Be(other == index ? (byte)1 : (byte)0, $"the port was updated to vCPU {id}");
            }

            (await domain.SharedInfo.PendingAsync()).Should().Equal(deliver);
            await domain.SharedInfo.SetPendingAsync(deliver, false);
            await domain.VcpuInfos[index].ClearAsync();
        }
    }

    [Fact]
    [Clause("kvm-xen/outbound/update-refused")]
    [FixedBy("70eae03087a3", "KVM: x86/xen: Fix SRCU/RCU usage in readers of evtchn_ports")]
    public async Task UpdateOfAnythingButTheVcpuIsRefused()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2 });
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);
        await domain.Xen.BindPortAsync(128, EventChannelType.Ipi, 128);
        await domain.Xen.BindEventFdAsync(129, eventfd);
        XenHvm xen = domain.Xen;

        (await xen.TryBindPortAsync(126, EventChannelType.Interdomain, 15, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.ENOENT, "nothing is bound");
        (await xen.TryBindPortAsync(127, EventChannelType.Ipi, 15, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "the type changes");
        (await xen.TryBindPortAsync(127, EventChannelType.Interdomain, 16, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "the port changes");
        (await xen.TryBindPortAsync(127, EventChannelType.Interdomain, 0, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "the port becomes an eventfd");
        (await xen.TryBindPortAsync(127, EventChannelType.Interdomain, 15, 1, priority: 0, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "the priority is another");
        (await xen.TryBindPortAsync(128, EventChannelType.Ipi, 127, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "the port changes");
        (await xen.TryBindEventFdAsync(129, eventfd.Number, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "an eventfd cannot be updated");
        (await xen.TryBindPortAsync(129, EventChannelType.Interdomain, 15, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "an eventfd cannot become a port");
        (await xen.TryBindPortAsync(129, EventChannelType.Interdomain, 0, 1, flags: KVM_XEN_EVTCHN_UPDATE)).Should().Be(Errno.EINVAL, "an eventfd cannot be updated by what looks like it");

        (await GuestSendsAsync(domain, 127)).Should().Be(0);
        (await domain.VcpuInfos[0].ReadAsync()).UpcallPending.Should().Be(1, "a refusal changes nothing");
        (await domain.VcpuInfos[1].ReadAsync()).UpcallPending.Should().Be(0, "a refusal changes nothing");
        (await GuestSendsAsync(domain, 129)).Should().Be(0);
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    // What is held is given back

    /// <summary>The kernel numbers eventfds with the lowest free number, and frees it with the last reference.</summary>
    private static async Task<int> IdOfAsync(KernelFd eventfd)
    {
        string info = await eventfd.Session.ReadFileAsync($"/proc/self/fdinfo/{eventfd.Number}") ?? "";
        string line = info.Split('\n').Single(l => l.StartsWith("eventfd-id:", StringComparison.Ordinal));
        return int.Parse(line["eventfd-id:".Length..], CultureInfo.InvariantCulture);
    }

    public static TheoryData<string> WaysToGiveBack { get; } = ["deassign", "reset", "close", "refused", "duplicate"];

    [Theory]
    [MemberData(nameof(WaysToGiveBack))]
    [Clause("kvm-xen/outbound/releases-eventfd")]
    public async Task EventFdIsReleased(string way)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });
        EventFd eventfd = await kernel.CreateEventFdAsync();
        int id = await IdOfAsync(eventfd);
        switch (way)
        {
            case "deassign":
                await vm.Xen.BindEventFdAsync(20, eventfd);
                XenDomain.Expect(await vm.Xen.TryUnbindPortAsync(20), "EVTCHN deassign");
                break;
            case "reset":
                await vm.Xen.BindEventFdAsync(18, eventfd);
                await vm.Xen.BindPortAsync(19, EventChannelType.Interdomain, 7);
                await vm.Xen.BindEventFdAsync(20, eventfd);
                XenDomain.Expect(await vm.Xen.TryResetPortsAsync(), "EVTCHN reset");
                break;
            case "close":
                await vm.Xen.BindEventFdAsync(18, eventfd);
                await vm.Xen.BindPortAsync(19, EventChannelType.Interdomain, 7);
                await vm.Xen.BindEventFdAsync(20, eventfd);
                await vm.DisposeAsync();
                break;
            case "refused":
                (await vm.Xen.TryBindEventFdAsync(20, eventfd.Number, (EventChannelType)3)).Should().Be(Errno.EINVAL);
                break;
            case "duplicate":
                await vm.Xen.BindPortAsync(20, EventChannelType.Interdomain, 7);
                (await vm.Xen.TryBindEventFdAsync(20, eventfd.Number)).Should().Be(Errno.EEXIST);
                break;
        }

        await eventfd.CloseAsync();
        EventFd next = await kernel.CreateEventFdAsync();
        (await IdOfAsync(next)).Should().Be(id, "the number is free once nothing holds the eventfd");
    }

    [Fact]
    [Clause("kvm-xen/outbound/releases-memory")]
    public async Task BindingAndUnbindingManyTimesLeaksNothing()
    {
        const int Rounds = 3000;
        await using Vm vm = await CreateBareVmAsync();
        await vm.Xen.BindPortAsync(30, EventChannelType.Interdomain, 7);
        Mapping arguments = await vm.Session.MapAnonymousAsync(0x1000, "arguments");
        (string What, kvm_xen_hvm_attr Attribute, int Error)[] refusals =
        [
            ("a wrong priority", Port(20, 2, 7, priority: 0), 22),
            ("a deliver port out of range", Port(20, 2, 5000), 22),
            ("a wrong type", Port(20, 3, 7), 22),
            ("another port for an IPI", Port(20, 5, 7), 22),
            ("a port that is taken", Port(30, 2, 7), 17),
            ("a bad descriptor", Port(20, 2, 0) with { evtchn_deliver_fd = -1 }, 9),
        ];
        for (int i = 0; i < refusals.Length; i++)
        {
            await arguments.WriteAsync((ulong)(i * 0x80), Bytes(refusals[i].Attribute));
        }

        Slab slab = await Slab.ReadAsync(vm.Session, "kmalloc-32");
        var program = new AgentProgram("refused bindings");
        ProgramThread thread = program.Thread();
        for (int i = 0; i < refusals.Length; i++)
        {
            thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR.Number, arguments.Address + (ulong)(i * 0x80)]);
        }

        thread.Loop(0, Rounds - 1);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);

        for (int i = 0; i < refusals.Length; i++)
        {
            outcome.Threads[0][i].Errnos.Should().BeEquivalentTo(new Dictionary<int, ulong> { [refusals[i].Error] = Rounds }, refusals[i].What);
        }

        (await slab.GrowthAsync()).Should().BeLessThan(Rounds / 2, "each of six refusals frees what it allocated");
    }

    [Fact]
    [Clause("kvm-xen/outbound/releases-memory")]
    public async Task UnbindingFreesTheBinding()
    {
        const uint Ports = 1500;
        await using Vm vm = await CreateBareVmAsync();
        Slab slab = await Slab.ReadAsync(vm.Session, "kmalloc-32");
        for (int round = 0; round < 2; round++)
        {
            await ForEachPortAsync(vm, Ports, flags: 0);
            if (round == 0)
            {
                XenDomain.Expect(await vm.Xen.TryResetPortsAsync(), "EVTCHN reset");
            }
        }

        await vm.DisposeAsync();
        (await slab.GrowthAsync()).Should().BeLessThan(Ports / 2, "neither a reset nor the VM's end leaves a binding behind");
    }

    [Fact]
    [Clause("kvm-xen/outbound/releases-memory")]
    public async Task ResetFreesItsListOfBindings()
    {
        const ulong Rounds = 2000;
        await using Vm vm = await CreateBareVmAsync();
        Slab slab = await Slab.ReadAsync(vm.Session, "kmalloc-32");

        // A list of four pointers, one for each binding, is an object of 32 bytes.
        await RepeatAsync(vm, Rounds, Port(1, 2, 7), Port(2, 2, 7), Port(3, 2, 7), Port(4, 2, 7),
            new kvm_xen_hvm_attr { type = KVM_XEN_ATTR_TYPE_EVTCHN, evtchn_flags = KVM_XEN_EVTCHN_RESET });

        (await slab.GrowthAsync()).Should().BeLessThan((long)Rounds / 2);
    }

    [Fact]
    [Clause("kvm-xen/outbound/releases-memory")]
    public async Task DeassigningFreesTheBinding()
    {
        const ulong Rounds = 2000;
        await using Vm vm = await CreateBareVmAsync();
        kvm_xen_hvm_attr bind = Port(20, 2, 7);
        Slab slab = await Slab.ReadAsync(vm.Session, "kmalloc-32");

        await RepeatAsync(vm, Rounds, bind, bind with { evtchn_flags = KVM_XEN_EVTCHN_DEASSIGN });

        (await slab.GrowthAsync()).Should().BeLessThan((long)Rounds / 2);
    }

    /// <summary>Sets attributes one after the other, again and again; all are accepted.</summary>
    private static async Task RepeatAsync(Vm vm, ulong rounds, params kvm_xen_hvm_attr[] attributes)
    {
        Mapping arguments = await vm.Session.MapAnonymousAsync(0x1000, "arguments");
        var program = new AgentProgram($"{rounds} times {attributes.Length} attributes");
        ProgramThread thread = program.Thread();
        for (int i = 0; i < attributes.Length; i++)
        {
            await arguments.WriteAsync((ulong)(i * 0x80), Bytes(attributes[i]));
            thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR.Number, arguments.Address + (ulong)(i * 0x80)]);
        }

        thread.Loop(0, rounds - 1);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
        outcome.Threads[0].Take(attributes.Length).Should().OnlyContain(s => s.Failures == 0);
    }

    private static async Task ForEachPortAsync(Vm vm, uint ports, uint flags)
    {
        // One page of arguments, one port after the other, in a program: thousands of round trips would be most of the test.
        Mapping arguments = await vm.Session.MapAnonymousAsync(0x1000, "arguments");
        await arguments.WriteAsync(0, Bytes(Port(1, 2, 7) with { evtchn_flags = flags }));
        var program = new AgentProgram($"ports 1 to {ports}");
        program.Thread()
            .Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR.Number, arguments.Address])
            .Add(arguments.Address + 8, 4, 1)
            .Loop(0, ports - 1);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
        outcome.Threads[0][0].Failures.Should().Be(0);
    }

    private static kvm_xen_hvm_attr Port(uint sendPort, uint type, uint deliverPort, uint priority = XenHvm.TwoLevel) => new()
    {
        type = KVM_XEN_ATTR_TYPE_EVTCHN,
        evtchn_send_port = sendPort,
        evtchn_type = type,
        evtchn_deliver_port = deliverPort,
        evtchn_deliver_priority = priority,
    };

    private static byte[] Bytes(kvm_xen_hvm_attr attribute)
    {
        byte[] bytes = new byte[System.Runtime.InteropServices.Marshal.SizeOf<kvm_xen_hvm_attr>()];
        System.Runtime.InteropServices.MemoryMarshal.Write(bytes, attribute);
        return bytes;
    }
}

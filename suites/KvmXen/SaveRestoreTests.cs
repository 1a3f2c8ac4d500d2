// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>State read from one VM and written to a new one, whose guest goes on where the old one was.</summary>
public sealed class SaveRestoreTests(KernelUnderTest kernel)
{
    private const uint Port = 66;
    private const ulong Millisecond = 1_000_000;

    public enum Order
    {
        /// <summary>VM attributes, vCPU attributes, the vCPU itself.</summary>
        VmFirst,

        /// <summary>The vCPUs with their attributes, timers included, before anything of the VM.</summary>
        VcpusFirst,

        /// <summary>As VmFirst, but each vCPU's registers before its attributes.</summary>
        RegistersFirst,
    }

    /// <summary>The guest's vCPUs are paused or have not run. The old VM is closed before the new one runs.</summary>
    private async Task<(XenDomain Domain, XenRecord Record)> MoveAsync(XenDomain old, Order order = Order.VmFirst, ulong clockAdvance = 0)
    {
        XenRecord record = await XenRecord.SaveAsync(old);
        var states = new List<VcpuSnapshot>();
        foreach (Vcpu vcpu in old.Vcpus)
        {
            states.Add(await vcpu.SaveAsync());
        }

        XenDomain domain = await XenDomain.CreateBareAsync(kernel, old.Options with { Name = "new vm" });
        await XenRecord.CopyMemoryAsync(old.Vm, domain.Vm);
        await old.Vm.DisposeAsync();
        await domain.Xen.ConfigureAsync(old.Options.Flags, old.Options.Msr);
        await domain.Vm.SetClockAsync(record.Clock + clockAdvance);
        if (order != Order.VcpusFirst)
        {
            await record.RestoreVmAsync(domain.Vm);
        }

        foreach (Vcpu vcpu in domain.Vcpus)
        {
            if (order == Order.RegistersFirst)
            {
                await vcpu.RestoreAsync(states[vcpu.Index]);
                await record.RestoreVcpuAsync(vcpu);
            }
            else
            {
                await record.RestoreVcpuAsync(vcpu);
                await vcpu.RestoreAsync(states[vcpu.Index]);
            }
        }

        if (order == Order.VcpusFirst)
        {
            await record.RestoreVmAsync(domain.Vm);
        }

        domain.GoOnFrom(old);
        return (domain, record);
    }

    private Task<XenDomain> CreateAsync(XenAbi abi = XenAbi.Bits64, bool byHva = false, UpcallPath upcall = UpcallPath.DomainVector) =>
        XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, ByHva = byHva, Upcall = upcall });

    private static async Task HaltAndPauseAsync(XenDomain domain)
    {
        await domain.HaltAsync();
        await domain.Vcpu.PauseAsync();
    }

    [Theory]
    [InlineData(XenAbi.Bits64, false)]
    [InlineData(XenAbi.Bits64, true)]
    [InlineData(XenAbi.Bits32, false)]
    [Clause("kvm-xen/restore/attributes")]
    public async Task EveryAttributeReadsBackTheSameInTheNewVm(XenAbi abi, bool byHva)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE | KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG | KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);
        XenDomain old = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, ByHva = byHva, Vcpus = 2 });
        XenDomain.Expect(await old.Xen.TrySetXenVersionAsync(0x40011), "XEN_VERSION");
        XenDomain.Expect(await old.Xen.TrySetRunstateUpdateFlagAsync(1), "RUNSTATE_UPDATE_FLAG");
        ulong now = (await old.Vm.GetClockAsync()).Clock;
        for (int index = 0; index < 2; index++)
        {
            Vcpu vcpu = old.Vcpus[index];
            XenDomain.Expect(await old.Xen.TrySetTimeInfoAsync(vcpu, XenDomain.TimeInfoGpa(index)), "VCPU_TIME_INFO");
            XenDomain.Expect(await old.Xen.TrySetRunstateAddressAsync(vcpu, XenDomain.RunstateGpa(index)), "RUNSTATE_ADDR");
            XenDomain.Expect(await old.Xen.TrySetRunstateAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA,
                new XenRunstate(2, 0x1111 + (ulong)index, 1, 0x10, 0x100, 0x1000 + (ulong)index)), "RUNSTATE_DATA");
            XenDomain.Expect(await old.Xen.TrySetVcpuIdAsync(vcpu, 9 + (uint)index), "VCPU_ID");
            XenDomain.Expect(await old.Xen.TrySetTimerAsync(vcpu, new XenTimer(20 + (uint)index, XenHvm.TwoLevel, now + (3_600_000 * Millisecond))), "TIMER");
            XenDomain.Expect(await old.Xen.TrySetVcpuUpcallVectorAsync(vcpu, (byte)(0x90 + index)), "UPCALL_VECTOR");
        }

        (XenDomain domain, XenRecord record) = await MoveAsync(old);

        XenRecord seen = await XenRecord.SaveAsync(domain);
        (seen with { Clock = 0, Vcpus = [] }).Should().Be(record with { Clock = 0, Vcpus = [] });
        seen.Vcpus.Should().Equal(record.Vcpus);
        seen.Clock.Should().BeGreaterThanOrEqualTo(record.Clock);
    }

    [Theory]
    [InlineData(XenAbi.Bits64, false, UpcallPath.DomainVector, Order.VmFirst)]
    [InlineData(XenAbi.Bits64, true, UpcallPath.DomainVector, Order.VmFirst)]
    [InlineData(XenAbi.Bits64, false, UpcallPath.DomainVector, Order.VcpusFirst)]
    [InlineData(XenAbi.Bits64, false, UpcallPath.VcpuVector, Order.RegistersFirst)]
    [InlineData(XenAbi.Bits32, false, UpcallPath.DomainVector, Order.RegistersFirst)]
    [Clause("kvm-xen/restore/pending")]
    [Clause("kvm-xen/restore/order")]
    public async Task PendingEventIsDeliveredByTheNewVmOnce(XenAbi abi, bool byHva, UpcallPath upcall, Order order)
    {
        XenDomain old = await CreateAsync(abi, byHva, upcall);
        await HaltAndPauseAsync(old);
        await old.Xen.SendAsync(Port);

        (XenDomain domain, _) = await MoveAsync(old, order);
        await domain.Vcpu.ContinueAsync();
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
        (await domain.ObserveAsync(VcpuState.Halted, () => domain.Xen.SendAsync(5))).Should().Equal(domain.Delivered(5));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/restore/pending")]
    public async Task MaskedPendingEventStaysPending(XenAbi abi)
    {
        XenDomain old = await CreateAsync(abi);
        await old.SharedInfo.MaskAsync(Port);
        await HaltAndPauseAsync(old);
        await old.Xen.SendAsync(Port);

        (XenDomain domain, _) = await MoveAsync(old);
        await domain.Vcpu.ContinueAsync();
        await domain.Xen.SendAsync(5);
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(5));
        XenSharedInfoPage page = await domain.SharedInfo.ReadAsync();
        (string.Join(',', page.Pending), string.Join(',', page.Masked)).Should().Be(($"{Port}", $"{Port}"));
    }

    [Theory]
    [InlineData(XenAbi.Bits64, Order.VmFirst)]
    [InlineData(XenAbi.Bits64, Order.RegistersFirst)]
    [InlineData(XenAbi.Bits32, Order.VmFirst)]
    [Clause("kvm-xen/restore/timer")]
    public async Task ArmedTimerFiresInTheNewVmOnce(XenAbi abi, Order order)
    {
        XenDomain old = await CreateAsync(abi);
        await HaltAndPauseAsync(old);
        const ulong Hour = 3_600_000 * Millisecond;
        ulong expires = (await old.Vm.GetClockAsync()).Clock + Hour;
        XenDomain.Expect(await old.Xen.TrySetTimerAsync(old.Vcpu, new XenTimer(Port, XenHvm.TwoLevel, expires)), "TIMER");

        // Almost an hour on the way: the old VM's timer must not fire, the new one's soon.
        (XenDomain domain, XenRecord record) = await MoveAsync(old, order, Hour - (60 * Millisecond));
        await domain.Vcpu.ContinueAsync();
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.Vm.GetClockAsync()).Clock.Should().BeGreaterThan(record.Vcpus[0].Timer.ExpiresNs - Millisecond);
        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
    }

    [Theory]
    [InlineData(Order.VmFirst)]
    [InlineData(Order.VcpusFirst)]
    [Clause("kvm-xen/restore/timer")]
    [Clause("kvm-xen/restore/order")]
    public async Task TimerThatExpiredMeanwhileFiresAtOnce(Order order)
    {
        XenDomain old = await CreateAsync();
        await HaltAndPauseAsync(old);
        ulong expires = (await old.Vm.GetClockAsync()).Clock + (3_600_000 * Millisecond);
        XenDomain.Expect(await old.Xen.TrySetTimerAsync(old.Vcpu, new XenTimer(Port, XenHvm.TwoLevel, expires)), "TIMER");

        // Two hours on the way.
        (XenDomain domain, _) = await MoveAsync(old, order, clockAdvance: 7_200_000 * Millisecond);
        await domain.Vcpu.ContinueAsync();
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
        (await domain.Xen.GetTimerAsync(domain.Vcpu)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, 0));
    }

    [Fact]
    [Clause("kvm-xen/restore/timer")]
    [Clause("kvm-xen/timer/read-delivers")]
    public async Task TimerThatCouldNotDeliverArrivesInTheNewVm()
    {
        XenDomain old = await CreateAsync();
        await HaltAndPauseAsync(old);
        await old.MakeTranslationsStaleAsync();
        XenDomain.Expect(await old.Xen.TrySetTimerAsync(old.Vcpu, new XenTimer(Port, XenHvm.TwoLevel, 1)), "TIMER");

        // vcpu_info could not be written either: a VMM has to let the vCPU write it, or to look for the pending bit itself.
        await old.Xen.GetTimerAsync(old.Vcpu);
        (await old.SharedInfo.PendingAsync()).Should().Equal(Port);
        await old.VcpuInfo.SetSelectorAsync(1UL << (int)(Port / 64));
        await old.VcpuInfo.SetUpcallPendingAsync(1);
        (XenDomain domain, XenRecord record) = await MoveAsync(old);
        await domain.Vcpu.ContinueAsync();
        await domain.Vcpu.WaitForNotifyAsync();

        record.Vcpus[0].Timer.ExpiresNs.Should().Be(0);
        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/restore/runstate")]
    public async Task RunstateGoesOnWhereItWas(XenAbi abi)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE);
        XenDomain old = await CreateAsync(abi);
        XenDomain.Expect(await old.Xen.TrySetRunstateAddressAsync(old.Vcpu, XenDomain.RunstateGpa(0)), "RUNSTATE_ADDR");
        await HaltAndPauseAsync(old);
        XenDomain.Expect(await old.Xen.TrySetRunstateAsync(old.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT,
            new XenRunstate { State = XenRunstate.BlockedState }), "RUNSTATE_CURRENT");

        (XenDomain domain, XenRecord record) = await MoveAsync(old, clockAdvance: 1000 * Millisecond);
        XenRunstate saved = record.Vcpus[0].Runstate;
        (await domain.Xen.GetRunstateAsync(domain.Vcpu)).Should().Be(saved);
        await domain.Vcpu.ContinueAsync();
        await domain.FenceAsync();

        XenRunstate after = await domain.Xen.GetRunstateAsync(domain.Vcpu);
        after.Sum.Should().Be(after.EntryTime);
        (after.Blocked - saved.Blocked).Should().BeGreaterThan(1000 * Millisecond, "it was blocked on the way");
        after.Offline.Should().Be(saved.Offline);
        XenRunstate copy = XenRunstateArea.Parse(await domain.Vm.ReadMemoryAsync(XenDomain.RunstateGpa(0), 0x30), domain.Layout);
        copy.Sum.Should().Be(copy.EntryTime);
        copy.Blocked.Should().Be(after.Blocked);
    }

    [Fact]
    [Clause("kvm-xen/restore/poller")]
    public async Task PollerGoesOnInTheNewVm()
    {
        XenDomain old = await CreateAsync();
        await old.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, (byte[])[.. BitConverter.GetBytes(0x72000UL), .. BitConverter.GetBytes(1UL), .. BitConverter.GetBytes(0UL)]);
        await old.WriteAsync(0x72000, Port);
        await old.SharedInfo.MaskAsync(Port);
        await old.Vcpu.StartAsync(old.Script()
            .Add(GuestCommand.Notify)
            .Add(old.Hypercall(XenHypercall.SchedOp, XenHypercall.SchedPoll, XenDomain.ArgumentsGpa), out int first)
            .Add(old.Hypercall(XenHypercall.SchedOp, XenHypercall.SchedPoll, XenDomain.ArgumentsGpa), out int second));
        await old.Vcpu.WaitForNotifyAsync();
        await old.Vcpu.WaitUntilBlockedAsync();
        await old.Vcpu.PauseAsync();

        (XenDomain domain, _) = await MoveAsync(old);
        await domain.Vcpu.ContinueAsync();
        await domain.Xen.SendAsync(Port);

        // A poll that is interrupted ends as if it had been woken; the guest polls again.
        IReadOnlyList<CommandResult> results = await domain.Vcpu.FinishAsync();
        results[first].Value.Should().Be(0);
        results[second].Value.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/restore/order")]
    [FixedBy("a7f4dff21fd7", "KVM: x86/xen: Allow 'out of range' event channel ports in IRQ routing table.")]
    public async Task RoutesAndIrqfdsMayComeBeforeVcpusAndLongMode()
    {
        kernel.RequireChange("xen-route-any-port");
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL | KVM_XEN_HVM_CONFIG_SHARED_INFO);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Vcpus = 0 });
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(32, 2000, 4));
        await domain.Vm.AssignIrqfdAsync(32, eventfd);
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15, vcpu: 4);
        await domain.AddVcpuAsync(0);
        await domain.AddVcpuAsync(4);

        await domain.ConfigureAsync();

        (await domain.ObserveAsync(VcpuState.Halted, () => eventfd.SignalAsync(), 1)).Should().Equal(domain.Delivered(2000));
        await domain.HaltAsync(1);
        await domain.WriteAsync(XenDomain.ArgumentsGpa, 127);
        (await domain.CallAsync(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, XenDomain.ArgumentsGpa)).Should().Be(0);
        await domain.Vcpus[1].WaitForNotifyAsync();
        (await domain.FenceAsync(1)).Should().Equal(domain.Delivered(15));
    }
}

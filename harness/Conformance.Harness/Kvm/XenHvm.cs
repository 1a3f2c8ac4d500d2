// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>Event channel kinds as Xen's EVTCHNSTAT_* numbers them.</summary>
public enum EventChannelType : uint
{
    Interdomain = 2,
    Ipi = 5,
}

/// <summary>A guest's view of its states (RUNSTATE_*) and the nanoseconds spent in each.</summary>
public readonly record struct XenRunstate(ulong State, ulong EntryTime, ulong Running, ulong Runnable, ulong Blocked, ulong Offline)
{
    public const ulong RunningState = 0, RunnableState = 1, BlockedState = 2, OfflineState = 3;

    public ulong Sum => Running + Runnable + Blocked + Offline;
}

/// <summary>A vCPU's singleshot timer: the port it raises and when, in nanoseconds of the guest's kvmclock; 0: not armed.</summary>
public readonly record struct XenTimer(uint Port, uint Priority, ulong ExpiresNs);

/// <summary>The Xen side of one VM: its configuration, VM attributes and event channels. vCPU attributes take the vCPU.</summary>
/// <remarks>Every call has two forms: <c>Try…</c> gives the errno, the other throws <see cref="KvmException"/>.</remarks>
public sealed class XenHvm
{
    /// <summary>The only priority the kernel knows.</summary>
    public const uint TwoLevel = KvmConst.KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;

    private readonly Vm _vm;

    internal XenHvm(Vm vm) => _vm = vm;

    // KVM_XEN_HVM_CONFIG

    public async Task<Errno> TryConfigureAsync(kvm_xen_hvm_config config) => (await _vm.Session.IoctlAsync(_vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_CONFIG,
        config, $"flags 0x{config.flags:x} msr 0x{config.msr:x}")).Outcome;

    public Task<Errno> TryConfigureAsync(uint flags, uint msr = 0x40000000) => TryConfigureAsync(new kvm_xen_hvm_config { flags = flags, msr = msr });

    public async Task ConfigureAsync(uint flags, uint msr = 0x40000000) =>
        Expect(await TryConfigureAsync(flags, msr), $"KVM_XEN_HVM_CONFIG(flags 0x{flags:x}, msr 0x{msr:x})");

    // VM attributes

    public async Task<Errno> TrySetAsync(kvm_xen_hvm_attr attribute, string what) =>
        (await _vm.Session.IoctlAsync(_vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR, attribute, what)).Outcome;

    public async Task<(Errno Error, kvm_xen_hvm_attr Value)> TryGetAsync(ushort type) => await _vm.Session.TryGetAsync(_vm.Fd,
        KvmX86Ioctl.KVM_XEN_HVM_GET_ATTR, new kvm_xen_hvm_attr { type = type }, $"type {type}");

    public async Task<kvm_xen_hvm_attr> GetAsync(ushort type)
    {
        (Errno error, kvm_xen_hvm_attr value) = await TryGetAsync(type);
        Expect(error, $"KVM_XEN_HVM_GET_ATTR(type {type})");
        return value;
    }

    public Task<Errno> TrySetLongModeAsync(byte mode) =>
        TrySetAsync(new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_LONG_MODE, long_mode = mode }, $"LONG_MODE {mode}");

    public async Task SetLongModeAsync(bool on) => Expect(await TrySetLongModeAsync(on ? (byte)1 : (byte)0), $"LONG_MODE {on}");

    /// <param name="gfn">Guest frame of the shared_info page; KVM_XEN_INVALID_GFN disables it.</param>
    public Task<Errno> TrySetSharedInfoAsync(ulong gfn) => TrySetAsync(
        new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_SHARED_INFO, shared_info_gfn = gfn }, $"SHARED_INFO gfn 0x{gfn:x}");

    public async Task SetSharedInfoAsync(ulong gfn) => Expect(await TrySetSharedInfoAsync(gfn), $"SHARED_INFO gfn 0x{gfn:x}");

    /// <param name="hva">Address in the session's process, page aligned; 0 disables it.</param>
    public Task<Errno> TrySetSharedInfoHvaAsync(ulong hva) => TrySetAsync(
        new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, shared_info_hva = hva }, "SHARED_INFO_HVA");

    public async Task SetSharedInfoHvaAsync(ulong hva) => Expect(await TrySetSharedInfoHvaAsync(hva), "SHARED_INFO_HVA");

    /// <summary>The domain-wide callback vector; 0 disables it.</summary>
    public Task<Errno> TrySetUpcallVectorAsync(byte vector) => TrySetAsync(
        new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, vector = vector }, $"UPCALL_VECTOR 0x{vector:x2}");

    public async Task SetUpcallVectorAsync(ApicVector vector) => Expect(await TrySetUpcallVectorAsync(vector), $"UPCALL_VECTOR {vector}");

    public Task<Errno> TrySetXenVersionAsync(uint version) => TrySetAsync(
        new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_XEN_VERSION, xen_version = version }, $"XEN_VERSION 0x{version:x}");

    public Task<Errno> TrySetRunstateUpdateFlagAsync(byte flag) => TrySetAsync(
        new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG, runstate_update_flag = flag }, $"RUNSTATE_UPDATE_FLAG {flag}");

    // Event channels the guest sends on

    /// <summary>KVM_XEN_ATTR_TYPE_EVTCHN with a port of this VM as the destination.</summary>
    public Task<Errno> TryBindPortAsync(uint sendPort, EventChannelType type, uint deliverPort, uint vcpu = 0, uint priority = TwoLevel,
        uint flags = 0) => TrySetAsync(
            new kvm_xen_hvm_attr
            {
                type = KvmXenConst.KVM_XEN_ATTR_TYPE_EVTCHN,
                evtchn_send_port = sendPort,
                evtchn_type = (uint)type,
                evtchn_flags = flags,
                evtchn_deliver_port = deliverPort,
                evtchn_deliver_vcpu = vcpu,
                evtchn_deliver_priority = priority,
            },
            $"EVTCHN port {sendPort} {type} -> port {deliverPort} vcpu {vcpu} flags {flags}");

    public async Task BindPortAsync(uint sendPort, EventChannelType type, uint deliverPort, uint vcpu = 0) =>
        Expect(await TryBindPortAsync(sendPort, type, deliverPort, vcpu), $"EVTCHN port {sendPort} {type} -> port {deliverPort} vcpu {vcpu}");

    /// <summary>KVM_XEN_ATTR_TYPE_EVTCHN with an eventfd as the destination.</summary>
    public Task<Errno> TryBindEventFdAsync(uint sendPort, int fd, EventChannelType type = EventChannelType.Interdomain, uint flags = 0) => TrySetAsync(
        new kvm_xen_hvm_attr
        {
            type = KvmXenConst.KVM_XEN_ATTR_TYPE_EVTCHN,
            evtchn_send_port = sendPort,
            evtchn_type = (uint)type,
            evtchn_flags = flags,
            evtchn_deliver_fd = fd,
        },
        $"EVTCHN port {sendPort} {type} -> eventfd flags {flags}");

    public async Task BindEventFdAsync(uint sendPort, EventFd eventfd) =>
        Expect(await TryBindEventFdAsync(sendPort, eventfd.Number), $"EVTCHN port {sendPort} -> {eventfd}");

    public Task<Errno> TryUnbindPortAsync(uint sendPort) => TrySetAsync(
        new kvm_xen_hvm_attr
        {
            type = KvmXenConst.KVM_XEN_ATTR_TYPE_EVTCHN,
            evtchn_send_port = sendPort,
            evtchn_flags = KvmXenConst.KVM_XEN_EVTCHN_DEASSIGN,
        },
        $"EVTCHN deassign port {sendPort}");

    /// <summary>Removes every registered port.</summary>
    public Task<Errno> TryResetPortsAsync() => TrySetAsync(
        new kvm_xen_hvm_attr { type = KvmXenConst.KVM_XEN_ATTR_TYPE_EVTCHN, evtchn_flags = KvmXenConst.KVM_XEN_EVTCHN_RESET }, "EVTCHN reset");

    // KVM_XEN_HVM_EVTCHN_SEND

    public async Task<Errno> TrySendAsync(uint port, uint vcpu = 0, uint priority = TwoLevel) => (await _vm.Session.IoctlAsync(_vm.Fd,
        KvmX86Ioctl.KVM_XEN_HVM_EVTCHN_SEND, new kvm_irq_routing_xen_evtchn { port = port, vcpu = vcpu, priority = priority },
        $"port {port} vcpu {vcpu}")).Outcome;

    public async Task SendAsync(uint port, uint vcpu = 0) => Expect(await TrySendAsync(port, vcpu), $"KVM_XEN_HVM_EVTCHN_SEND(port {port}, vcpu {vcpu})");

    // vCPU attributes

    public async Task<Errno> TrySetAsync(Vcpu vcpu, kvm_xen_vcpu_attr attribute, string what) =>
        (await _vm.Session.IoctlAsync(vcpu.Fd, KvmX86Ioctl.KVM_XEN_VCPU_SET_ATTR, attribute, what)).Outcome;

    public Task<(Errno Error, kvm_xen_vcpu_attr Value)> TryGetAsync(Vcpu vcpu, ushort type) => _vm.Session.TryGetAsync(vcpu.Fd,
        KvmX86Ioctl.KVM_XEN_VCPU_GET_ATTR, new kvm_xen_vcpu_attr { type = type }, $"type {type}");

    public async Task<kvm_xen_vcpu_attr> GetAsync(Vcpu vcpu, ushort type)
    {
        (Errno error, kvm_xen_vcpu_attr value) = await TryGetAsync(vcpu, type);
        Expect(error, $"KVM_XEN_VCPU_GET_ATTR({vcpu.Name}, type {type})");
        return value;
    }

    /// <param name="gpa">Guest-physical address of the 64-byte vcpu_info; KVM_XEN_INVALID_GPA disables it.</param>
    public Task<Errno> TrySetVcpuInfoAsync(Vcpu vcpu, ulong gpa) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr { type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, gpa = gpa }, $"VCPU_INFO 0x{gpa:x}");

    public async Task SetVcpuInfoAsync(Vcpu vcpu, ulong gpa) => Expect(await TrySetVcpuInfoAsync(vcpu, gpa), $"VCPU_INFO({vcpu.Name}, 0x{gpa:x})");

    public Task<Errno> TrySetVcpuInfoHvaAsync(Vcpu vcpu, ulong hva) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr { type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, hva = hva }, "VCPU_INFO_HVA");

    public Task<Errno> TrySetTimeInfoAsync(Vcpu vcpu, ulong gpa) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr { type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, gpa = gpa }, $"VCPU_TIME_INFO 0x{gpa:x}");

    public Task<Errno> TrySetRunstateAddressAsync(Vcpu vcpu, ulong gpa) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr { type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, gpa = gpa }, $"RUNSTATE_ADDR 0x{gpa:x}");

    public Task<Errno> TrySetRunstateAsync(Vcpu vcpu, ushort type, XenRunstate runstate) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr
        {
            type = type,
            runstate_state = runstate.State,
            runstate_state_entry_time = runstate.EntryTime,
            runstate_time_running = runstate.Running,
            runstate_time_runnable = runstate.Runnable,
            runstate_time_blocked = runstate.Blocked,
            runstate_time_offline = runstate.Offline,
        },
        $"runstate type {type} {runstate}");

    public async Task<XenRunstate> GetRunstateAsync(Vcpu vcpu)
    {
        kvm_xen_vcpu_attr a = await GetAsync(vcpu, KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA);
        return new XenRunstate(a.runstate_state, a.runstate_state_entry_time, a.runstate_time_running, a.runstate_time_runnable,
            a.runstate_time_blocked, a.runstate_time_offline);
    }

    public Task<Errno> TrySetVcpuIdAsync(Vcpu vcpu, uint id) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr { type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, vcpu_id = id }, $"VCPU_ID {id}");

    public Task<Errno> TrySetTimerAsync(Vcpu vcpu, XenTimer timer) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr
        {
            type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_TIMER,
            timer_port = timer.Port,
            timer_priority = timer.Priority,
            timer_expires_ns = timer.ExpiresNs,
        },
        $"TIMER port {timer.Port} expires {timer.ExpiresNs}");

    public async Task<XenTimer> GetTimerAsync(Vcpu vcpu)
    {
        kvm_xen_vcpu_attr a = await GetAsync(vcpu, KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_TIMER);
        return new XenTimer(a.timer_port, a.timer_priority, a.timer_expires_ns);
    }

    /// <summary>The vCPU's own LAPIC vector for upcalls; 0 disables it.</summary>
    public Task<Errno> TrySetVcpuUpcallVectorAsync(Vcpu vcpu, byte vector) => TrySetAsync(vcpu,
        new kvm_xen_vcpu_attr { type = KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, vector = vector }, $"UPCALL_VECTOR 0x{vector:x2}");

    public async Task SetVcpuUpcallVectorAsync(Vcpu vcpu, ApicVector vector) =>
        Expect(await TrySetVcpuUpcallVectorAsync(vcpu, vector), $"UPCALL_VECTOR({vcpu.Name}, {vector})");

    private static void Expect(Errno error, string call)
    {
        if (error != Errno.None)
        {
            throw new KvmException(call, error);
        }
    }
}

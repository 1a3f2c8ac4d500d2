// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;

#pragma warning disable CS8981, IDE1006 // C names, kept verbatim

namespace Conformance.Uapi;

[CHeader("linux/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 56)]
public struct kvm_xen_hvm_config
{
    [FieldOffset(0)] public uint flags;
    [FieldOffset(4)] public uint msr;
    [FieldOffset(8)] public ulong blob_addr_32;
    [FieldOffset(16)] public ulong blob_addr_64;
    [FieldOffset(24)] public byte blob_size_32;
    [FieldOffset(25)] public byte blob_size_64;
}

[CHeader("linux/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 72)]
public struct kvm_xen_hvm_attr
{
    [FieldOffset(0)] public ushort type;
    [FieldOffset(8), CField("u.long_mode")] public byte long_mode;
    [FieldOffset(8), CField("u.vector")] public byte vector;
    [FieldOffset(8), CField("u.runstate_update_flag", Since = "KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG")] public byte runstate_update_flag;
    [FieldOffset(8), CField("u.shared_info.gfn")] public ulong shared_info_gfn;
    [FieldOffset(8), CField("u.shared_info.hva", Since = "KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA")] public ulong shared_info_hva;
    [FieldOffset(8), CField("u.evtchn.send_port")] public uint evtchn_send_port;
    [FieldOffset(12), CField("u.evtchn.type")] public uint evtchn_type;
    [FieldOffset(16), CField("u.evtchn.flags")] public uint evtchn_flags;
    [FieldOffset(20), CField("u.evtchn.deliver.port.port")] public uint evtchn_deliver_port;
    [FieldOffset(24), CField("u.evtchn.deliver.port.vcpu")] public uint evtchn_deliver_vcpu;
    [FieldOffset(28), CField("u.evtchn.deliver.port.priority")] public uint evtchn_deliver_priority;
    [FieldOffset(24), CField("u.evtchn.deliver.eventfd.fd")] public int evtchn_deliver_fd;
    [FieldOffset(8), CField("u.xen_version")] public uint xen_version;
}

[CHeader("linux/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 72)]
public struct kvm_xen_vcpu_attr
{
    [FieldOffset(0)] public ushort type;
    [FieldOffset(8), CField("u.gpa")] public ulong gpa;
    [FieldOffset(8), CField("u.hva", Since = "KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA")] public ulong hva;
    [FieldOffset(8), CField("u.runstate.state")] public ulong runstate_state;
    [FieldOffset(16), CField("u.runstate.state_entry_time")] public ulong runstate_state_entry_time;
    [FieldOffset(24), CField("u.runstate.time_running")] public ulong runstate_time_running;
    [FieldOffset(32), CField("u.runstate.time_runnable")] public ulong runstate_time_runnable;
    [FieldOffset(40), CField("u.runstate.time_blocked")] public ulong runstate_time_blocked;
    [FieldOffset(48), CField("u.runstate.time_offline")] public ulong runstate_time_offline;
    [FieldOffset(8), CField("u.vcpu_id")] public uint vcpu_id;
    [FieldOffset(8), CField("u.timer.port")] public uint timer_port;
    [FieldOffset(12), CField("u.timer.priority")] public uint timer_priority;
    [FieldOffset(16), CField("u.timer.expires_ns")] public ulong timer_expires_ns;
    [FieldOffset(8), CField("u.vector")] public byte vector;
}

/// <summary>Constants of KVM_CAP_XEN_HVM (linux/kvm.h up to 6.8, asm/kvm.h since).</summary>
[CHeader("linux/kvm.h", Only = "x86_64")]
public static class KvmXenConst
{
    public const uint KVM_XEN_HVM_CONFIG_HYPERCALL_MSR = 1 << 0;
    public const uint KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL = 1 << 1;
    public const uint KVM_XEN_HVM_CONFIG_SHARED_INFO = 1 << 2;
    public const uint KVM_XEN_HVM_CONFIG_RUNSTATE = 1 << 3;
    public const uint KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL = 1 << 4;
    public const uint KVM_XEN_HVM_CONFIG_EVTCHN_SEND = 1 << 5;
    public const uint KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG = 1 << 6;
    public const uint KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE = 1 << 7;
    public const uint KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA = 1 << 8;

    public const ushort KVM_XEN_ATTR_TYPE_LONG_MODE = 0;
    public const ushort KVM_XEN_ATTR_TYPE_SHARED_INFO = 1;
    public const ushort KVM_XEN_ATTR_TYPE_UPCALL_VECTOR = 2;
    public const ushort KVM_XEN_ATTR_TYPE_EVTCHN = 3;
    public const ushort KVM_XEN_ATTR_TYPE_XEN_VERSION = 4;
    public const ushort KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG = 5;
    public const ushort KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA = 6;

    public const ushort KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO = 0;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO = 1;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR = 2;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT = 3;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA = 4;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST = 5;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID = 6;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_TIMER = 7;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR = 8;
    public const ushort KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA = 9;

    public const uint KVM_XEN_EVTCHN_DEASSIGN = 1;
    public const uint KVM_XEN_EVTCHN_UPDATE = 2;
    public const uint KVM_XEN_EVTCHN_RESET = 4;
    public const ulong KVM_XEN_INVALID_GFN = ulong.MaxValue;
    public const ulong KVM_XEN_INVALID_GPA = ulong.MaxValue;
    public const uint KVM_EXIT_XEN_HCALL = 1;
}

// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

#pragma warning disable CS8981, IDE1006 // C names, kept verbatim

namespace Conformance.Uapi;

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 32)]
public struct kvm_userspace_memory_region
{
    [FieldOffset(0)] public uint slot;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public ulong guest_phys_addr;
    [FieldOffset(16)] public ulong memory_size;
    [FieldOffset(24)] public ulong userspace_addr;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 32)]
public struct kvm_irqfd
{
    [FieldOffset(0)] public uint fd;
    [FieldOffset(4)] public uint gsi;
    [FieldOffset(8)] public uint flags;
    [FieldOffset(12)] public uint resamplefd;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 32)]
public struct kvm_msi
{
    [FieldOffset(0)] public uint address_lo;
    [FieldOffset(4)] public uint address_hi;
    [FieldOffset(8)] public uint data;
    [FieldOffset(12)] public uint flags;
    [FieldOffset(16)] public uint devid;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 8)]
public struct kvm_irq_level
{
    [FieldOffset(0)] public uint irq;
    [FieldOffset(0)] public int status;
    [FieldOffset(4)] public uint level;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 64)]
public struct kvm_ioeventfd
{
    [FieldOffset(0)] public ulong datamatch;
    [FieldOffset(8)] public ulong addr;
    [FieldOffset(16)] public uint len;
    [FieldOffset(20)] public int fd;
    [FieldOffset(24)] public uint flags;
}

/// <summary>One entry; the header in front of the entries is { nr, flags }, 8 bytes.</summary>
[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 48)]
public struct kvm_irq_routing_entry
{
    [FieldOffset(0)] public uint gsi;
    [FieldOffset(4)] public uint type;
    [FieldOffset(8)] public uint flags;
    [FieldOffset(12)] public uint pad;
    [FieldOffset(16), CField("u.irqchip.irqchip")] public uint irqchip_irqchip;
    [FieldOffset(20), CField("u.irqchip.pin")] public uint irqchip_pin;
    [FieldOffset(16), CField("u.msi.address_lo")] public uint msi_address_lo;
    [FieldOffset(20), CField("u.msi.address_hi")] public uint msi_address_hi;
    [FieldOffset(24), CField("u.msi.data")] public uint msi_data;
    [FieldOffset(28), CField("u.msi.devid")] public uint msi_devid;
    [FieldOffset(16), CField("u.hv_sint.vcpu")] public uint hv_sint_vcpu;
    [FieldOffset(20), CField("u.hv_sint.sint")] public uint hv_sint_sint;
    [FieldOffset(16), CField("u.xen_evtchn.port")] public uint xen_evtchn_port;
    [FieldOffset(20), CField("u.xen_evtchn.vcpu")] public uint xen_evtchn_vcpu;
    [FieldOffset(24), CField("u.xen_evtchn.priority")] public uint xen_evtchn_priority;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 12)]
public struct kvm_irq_routing_xen_evtchn
{
    [FieldOffset(0)] public uint port;
    [FieldOffset(4)] public uint vcpu;
    [FieldOffset(8)] public uint priority;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 104)]
public struct kvm_enable_cap
{
    [FieldOffset(0)] public uint cap;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public ulong args;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 12)]
public struct kvm_create_device
{
    [FieldOffset(0)] public uint type;
    [FieldOffset(4)] public uint fd;
    [FieldOffset(8)] public uint flags;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_dirty_log
{
    [FieldOffset(0)] public uint slot;
    [FieldOffset(8)] public ulong dirty_bitmap;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 24)]
public struct kvm_device_attr
{
    [FieldOffset(0)] public uint flags;
    [FieldOffset(4)] public uint group;
    [FieldOffset(8)] public ulong attr;
    [FieldOffset(16)] public ulong addr;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 4)]
public struct kvm_mp_state
{
    [FieldOffset(0)] public uint mp_state;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_coalesced_mmio_zone
{
    [FieldOffset(0)] public ulong addr;
    [FieldOffset(8)] public uint size;
    [FieldOffset(12)] public uint pio;
}

/// <summary>One record of the coalesced ring; the ring page begins with { first, last }.</summary>
[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 24)]
public struct kvm_coalesced_mmio
{
    [FieldOffset(0)] public ulong phys_addr;
    [FieldOffset(8)] public uint len;
    [FieldOffset(12)] public uint pio;
    [FieldOffset(16)] public ulong data;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 48)]
public struct kvm_clock_data
{
    [FieldOffset(0)] public ulong clock;
    [FieldOffset(8)] public uint flags;
    [FieldOffset(16)] public ulong realtime;
    [FieldOffset(24)] public ulong host_tsc;
}

[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_one_reg
{
    [FieldOffset(0)] public ulong id;
    [FieldOffset(8)] public ulong addr;
}

/// <summary>The head of the shared run page, as far as the harness reads it.</summary>
[CHeader("linux/kvm.h"), StructLayout(LayoutKind.Explicit, Size = 288)]
public struct kvm_run
{
    [FieldOffset(0)] public byte request_interrupt_window;
    [FieldOffset(1)] public byte immediate_exit;
    [FieldOffset(8)] public uint exit_reason;
    [FieldOffset(12)] public byte ready_for_interrupt_injection;
    [FieldOffset(13)] public byte if_flag;
    [FieldOffset(14)] public ushort flags;
    [FieldOffset(16)] public ulong cr8;
    [FieldOffset(24)] public ulong apic_base;
    [FieldOffset(32), CField("io.direction")] public byte io_direction;
    [FieldOffset(33), CField("io.size")] public byte io_size;
    [FieldOffset(34), CField("io.port")] public ushort io_port;
    [FieldOffset(36), CField("io.count")] public uint io_count;
    [FieldOffset(40), CField("io.data_offset")] public ulong io_data_offset;
    [FieldOffset(32), CField("mmio.phys_addr")] public ulong mmio_phys_addr;
    [FieldOffset(40), CField("mmio.data")] public ulong mmio_data;
    [FieldOffset(48), CField("mmio.len")] public uint mmio_len;
    [FieldOffset(52), CField("mmio.is_write")] public byte mmio_is_write;
    [FieldOffset(32), CField("eoi.vector")] public byte eoi_vector;
    [FieldOffset(32), CField("internal.suberror")] public uint internal_suberror;
    [FieldOffset(32), CField("fail_entry.hardware_entry_failure_reason")] public ulong fail_entry_reason;
    [FieldOffset(32), CField("xen.type")] public uint xen_type;
    [FieldOffset(40), CField("xen.u.hcall.longmode")] public uint xen_hcall_longmode;
    [FieldOffset(44), CField("xen.u.hcall.cpl")] public uint xen_hcall_cpl;
    [FieldOffset(48), CField("xen.u.hcall.input")] public ulong xen_hcall_input;
    [FieldOffset(56), CField("xen.u.hcall.result")] public ulong xen_hcall_result;
    [FieldOffset(64), CField("xen.u.hcall.params")] public ulong xen_hcall_params;

    /// <summary>Bytes copied into each exit notice: enough for every union member the suites read.</summary>
    public const int HeadSize = 288;
}

/// <summary>KVM_EXIT_* reasons the suites meet.</summary>
[CHeader("linux/kvm.h")]
public enum KvmExit : uint
{
    KVM_EXIT_UNKNOWN = 0,
    KVM_EXIT_EXCEPTION = 1,
    KVM_EXIT_IO = 2,
    KVM_EXIT_HYPERCALL = 3,
    KVM_EXIT_DEBUG = 4,
    KVM_EXIT_HLT = 5,
    KVM_EXIT_MMIO = 6,
    KVM_EXIT_IRQ_WINDOW_OPEN = 7,
    KVM_EXIT_SHUTDOWN = 8,
    KVM_EXIT_FAIL_ENTRY = 9,
    KVM_EXIT_INTR = 10,
    KVM_EXIT_SET_TPR = 11,
    KVM_EXIT_TPR_ACCESS = 12,
    KVM_EXIT_INTERNAL_ERROR = 17,
    KVM_EXIT_SYSTEM_EVENT = 24,
    KVM_EXIT_IOAPIC_EOI = 26,
    KVM_EXIT_HYPERV = 27,
    KVM_EXIT_ARM_NISV = 28,
    KVM_EXIT_X86_RDMSR = 29,
    KVM_EXIT_X86_WRMSR = 30,
    KVM_EXIT_XEN = 34,
}

/// <summary>Flags and small constants of the KVM interrupt interfaces.</summary>
[CHeader("linux/kvm.h")]
public static class KvmConst
{
    public const uint KVM_IRQFD_FLAG_DEASSIGN = 1;
    public const uint KVM_IRQFD_FLAG_RESAMPLE = 2;
    public const uint KVM_IOEVENTFD_FLAG_DATAMATCH = 1;
    public const uint KVM_IOEVENTFD_FLAG_PIO = 2;
    public const uint KVM_IOEVENTFD_FLAG_DEASSIGN = 4;
    public const uint KVM_MSI_VALID_DEVID = 1;
    public const uint KVM_IRQ_ROUTING_IRQCHIP = 1;
    public const uint KVM_IRQ_ROUTING_MSI = 2;
    public const uint KVM_IRQ_ROUTING_HV_SINT = 4;
    public const uint KVM_IRQ_ROUTING_XEN_EVTCHN = 5;
    public const uint KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL = 0xffffffff;
    public const uint KVM_MEM_LOG_DIRTY_PAGES = 1;
    public const uint KVM_MEM_READONLY = 2;
    public const uint KVM_DEV_TYPE_VFIO = 4;
    public const uint KVM_DEV_TYPE_ARM_VGIC_V2 = 5;
    public const uint KVM_DEV_TYPE_ARM_VGIC_V3 = 7;
    public const uint KVM_DEV_TYPE_ARM_VGIC_ITS = 8;
    public const uint KVM_CREATE_DEVICE_TEST = 1;
    public const uint KVM_MP_STATE_RUNNABLE = 0;
    public const uint KVM_MP_STATE_UNINITIALIZED = 1;
    public const uint KVM_MP_STATE_INIT_RECEIVED = 2;
    public const uint KVM_MP_STATE_HALTED = 3;
}

[CHeader("asm/kvm.h", Only = "x86_64")]
public static class KvmX86Const
{
    public const uint KVM_IRQCHIP_PIC_MASTER = 0;
    public const uint KVM_IRQCHIP_PIC_SLAVE = 1;
    public const uint KVM_IRQCHIP_IOAPIC = 2;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 144)]
public struct kvm_regs
{
    [FieldOffset(0)] public ulong rax;
    [FieldOffset(8)] public ulong rbx;
    [FieldOffset(16)] public ulong rcx;
    [FieldOffset(24)] public ulong rdx;
    [FieldOffset(32)] public ulong rsi;
    [FieldOffset(40)] public ulong rdi;
    [FieldOffset(48)] public ulong rsp;
    [FieldOffset(56)] public ulong rbp;
    [FieldOffset(64)] public ulong r8;
    [FieldOffset(72)] public ulong r9;
    [FieldOffset(80)] public ulong r10;
    [FieldOffset(88)] public ulong r11;
    [FieldOffset(96)] public ulong r12;
    [FieldOffset(104)] public ulong r13;
    [FieldOffset(112)] public ulong r14;
    [FieldOffset(120)] public ulong r15;
    [FieldOffset(128)] public ulong rip;
    [FieldOffset(136)] public ulong rflags;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 24)]
public struct kvm_segment
{
    [FieldOffset(0)] public ulong @base;
    [FieldOffset(8)] public uint limit;
    [FieldOffset(12)] public ushort selector;
    [FieldOffset(14)] public byte type;
    [FieldOffset(15)] public byte present;
    [FieldOffset(16)] public byte dpl;
    [FieldOffset(17)] public byte db;
    [FieldOffset(18)] public byte s;
    [FieldOffset(19)] public byte l;
    [FieldOffset(20)] public byte g;
    [FieldOffset(21)] public byte avl;
    [FieldOffset(22)] public byte unusable;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_dtable
{
    [FieldOffset(0)] public ulong @base;
    [FieldOffset(8)] public ushort limit;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 312)]
public struct kvm_sregs
{
    [FieldOffset(0)] public kvm_segment cs;
    [FieldOffset(24)] public kvm_segment ds;
    [FieldOffset(48)] public kvm_segment es;
    [FieldOffset(72)] public kvm_segment fs;
    [FieldOffset(96)] public kvm_segment gs;
    [FieldOffset(120)] public kvm_segment ss;
    [FieldOffset(144)] public kvm_segment tr;
    [FieldOffset(168)] public kvm_segment ldt;
    [FieldOffset(192)] public kvm_dtable gdt;
    [FieldOffset(208)] public kvm_dtable idt;
    [FieldOffset(224)] public ulong cr0;
    [FieldOffset(232)] public ulong cr2;
    [FieldOffset(240)] public ulong cr3;
    [FieldOffset(248)] public ulong cr4;
    [FieldOffset(256)] public ulong cr8;
    [FieldOffset(264)] public ulong efer;
    [FieldOffset(272)] public ulong apic_base;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 40)]
public struct kvm_cpuid_entry2
{
    [FieldOffset(0)] public uint function;
    [FieldOffset(4)] public uint index;
    [FieldOffset(8)] public uint flags;
    [FieldOffset(12)] public uint eax;
    [FieldOffset(16)] public uint ebx;
    [FieldOffset(20)] public uint ecx;
    [FieldOffset(24)] public uint edx;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_msr_entry
{
    [FieldOffset(0)] public uint index;
    [FieldOffset(8)] public ulong data;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 64)]
public struct kvm_pit_config
{
    [FieldOffset(0)] public uint flags;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_pic_state
{
    [FieldOffset(0)] public byte last_irr;
    [FieldOffset(1)] public byte irr;
    [FieldOffset(2)] public byte imr;
    [FieldOffset(3)] public byte isr;
    [FieldOffset(4)] public byte priority_add;
    [FieldOffset(5)] public byte irq_base;
    [FieldOffset(6)] public byte read_reg_select;
    [FieldOffset(7)] public byte poll;
    [FieldOffset(8)] public byte special_mask;
    [FieldOffset(9)] public byte init_state;
    [FieldOffset(10)] public byte auto_eoi;
    [FieldOffset(11)] public byte rotate_on_auto_eoi;
    [FieldOffset(12)] public byte special_fully_nested_mode;
    [FieldOffset(13)] public byte init4;
    [FieldOffset(14)] public byte elcr;
    [FieldOffset(15)] public byte elcr_mask;
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 216)]
public unsafe struct kvm_ioapic_state
{
    [FieldOffset(0)] public ulong base_address;
    [FieldOffset(8)] public uint ioregsel;
    [FieldOffset(12)] public uint id;
    [FieldOffset(16)] public uint irr;
    [FieldOffset(24), CField("redirtbl")] public fixed ulong redirtbl[24];
}

[CHeader("asm/kvm.h", Only = "x86_64"), StructLayout(LayoutKind.Explicit, Size = 64)]
public struct kvm_vcpu_events
{
    [FieldOffset(0), CField("exception.injected")] public byte exception_injected;
    [FieldOffset(1), CField("exception.nr")] public byte exception_nr;
    [FieldOffset(8), CField("interrupt.injected")] public byte interrupt_injected;
    [FieldOffset(9), CField("interrupt.nr")] public byte interrupt_nr;
    [FieldOffset(10), CField("interrupt.soft")] public byte interrupt_soft;
    [FieldOffset(11), CField("interrupt.shadow")] public byte interrupt_shadow;
    [FieldOffset(12), CField("nmi.injected")] public byte nmi_injected;
    [FieldOffset(13), CField("nmi.pending")] public byte nmi_pending;
    [FieldOffset(14), CField("nmi.masked")] public byte nmi_masked;
    [FieldOffset(16)] public uint sipi_vector;
    [FieldOffset(20)] public uint flags;
    [FieldOffset(25), CField("smi.pending")] public byte smi_pending;
}

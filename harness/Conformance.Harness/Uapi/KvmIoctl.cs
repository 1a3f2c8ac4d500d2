// SPDX-License-Identifier: MIT
namespace Conformance.Uapi;

/// <summary>An ioctl by its C name: what a failure prints and what the kernel is given.</summary>
/// <param name="Name">As in the header.</param>
/// <param name="Number">The encoded request.</param>
public readonly record struct Ioctl(string Name, uint Number)
{
    public override string ToString() => Name;
}

/// <summary>KVM ioctls (linux/kvm.h), grouped by the descriptor they apply to.</summary>
[CHeader("linux/kvm.h")]
public static class KvmIoctl
{
    // /dev/kvm
    public static readonly Ioctl KVM_GET_API_VERSION = new(nameof(KVM_GET_API_VERSION), 0xAE00);
    public static readonly Ioctl KVM_CREATE_VM = new(nameof(KVM_CREATE_VM), 0xAE01);
    public static readonly Ioctl KVM_CHECK_EXTENSION = new(nameof(KVM_CHECK_EXTENSION), 0xAE03);
    public static readonly Ioctl KVM_GET_VCPU_MMAP_SIZE = new(nameof(KVM_GET_VCPU_MMAP_SIZE), 0xAE04);

    // VM
    public static readonly Ioctl KVM_CREATE_VCPU = new(nameof(KVM_CREATE_VCPU), 0xAE41);
    public static readonly Ioctl KVM_GET_DIRTY_LOG = new(nameof(KVM_GET_DIRTY_LOG), 0x4010AE42);
    public static readonly Ioctl KVM_SET_USER_MEMORY_REGION = new(nameof(KVM_SET_USER_MEMORY_REGION), 0x4020AE46);
    public static readonly Ioctl KVM_CREATE_IRQCHIP = new(nameof(KVM_CREATE_IRQCHIP), 0xAE60);
    public static readonly Ioctl KVM_IRQ_LINE = new(nameof(KVM_IRQ_LINE), 0x4008AE61);
    public static readonly Ioctl KVM_IRQ_LINE_STATUS = new(nameof(KVM_IRQ_LINE_STATUS), 0xC008AE67);
    public static readonly Ioctl KVM_REGISTER_COALESCED_MMIO = new(nameof(KVM_REGISTER_COALESCED_MMIO), 0x4010AE67);
    public static readonly Ioctl KVM_UNREGISTER_COALESCED_MMIO = new(nameof(KVM_UNREGISTER_COALESCED_MMIO), 0x4010AE68);
    public static readonly Ioctl KVM_SET_GSI_ROUTING = new(nameof(KVM_SET_GSI_ROUTING), 0x4008AE6A);
    public static readonly Ioctl KVM_IRQFD = new(nameof(KVM_IRQFD), 0x4020AE76);
    public static readonly Ioctl KVM_IOEVENTFD = new(nameof(KVM_IOEVENTFD), 0x4040AE79);
    public static readonly Ioctl KVM_SIGNAL_MSI = new(nameof(KVM_SIGNAL_MSI), 0x4020AEA5);
    public static readonly Ioctl KVM_CREATE_DEVICE = new(nameof(KVM_CREATE_DEVICE), 0xC00CAEE0);

    // VM, vCPU or device
    public static readonly Ioctl KVM_ENABLE_CAP = new(nameof(KVM_ENABLE_CAP), 0x4068AEA3);
    public static readonly Ioctl KVM_SET_DEVICE_ATTR = new(nameof(KVM_SET_DEVICE_ATTR), 0x4018AEE1);
    public static readonly Ioctl KVM_GET_DEVICE_ATTR = new(nameof(KVM_GET_DEVICE_ATTR), 0x4018AEE2);
    public static readonly Ioctl KVM_HAS_DEVICE_ATTR = new(nameof(KVM_HAS_DEVICE_ATTR), 0x4018AEE3);

    // vCPU
    public static readonly Ioctl KVM_RUN = new(nameof(KVM_RUN), 0xAE80);
    public static readonly Ioctl KVM_SET_SIGNAL_MASK = new(nameof(KVM_SET_SIGNAL_MASK), 0x4004AE8B);
    public static readonly Ioctl KVM_GET_MP_STATE = new(nameof(KVM_GET_MP_STATE), 0x8004AE98);
    public static readonly Ioctl KVM_SET_MP_STATE = new(nameof(KVM_SET_MP_STATE), 0x4004AE99);
    public static readonly Ioctl KVM_GET_ONE_REG = new(nameof(KVM_GET_ONE_REG), 0x4010AEAB);
    public static readonly Ioctl KVM_SET_ONE_REG = new(nameof(KVM_SET_ONE_REG), 0x4010AEAC);
}

/// <summary>KVM ioctls that exist on x86 only, or whose argument has another layout elsewhere.</summary>
[CHeader("linux/kvm.h", Only = "x86_64")]
public static class KvmX86Ioctl
{
    public static readonly Ioctl KVM_GET_SUPPORTED_CPUID = new(nameof(KVM_GET_SUPPORTED_CPUID), 0xC008AE05);
    public static readonly Ioctl KVM_SET_TSS_ADDR = new(nameof(KVM_SET_TSS_ADDR), 0xAE47);
    public static readonly Ioctl KVM_SET_IDENTITY_MAP_ADDR = new(nameof(KVM_SET_IDENTITY_MAP_ADDR), 0x4008AE48);
    public static readonly Ioctl KVM_GET_IRQCHIP = new(nameof(KVM_GET_IRQCHIP), 0xC208AE62);
    public static readonly Ioctl KVM_SET_IRQCHIP = new(nameof(KVM_SET_IRQCHIP), 0x8208AE63);
    public static readonly Ioctl KVM_CREATE_PIT2 = new(nameof(KVM_CREATE_PIT2), 0x4040AE77);
    public static readonly Ioctl KVM_SET_BOOT_CPU_ID = new(nameof(KVM_SET_BOOT_CPU_ID), 0xAE78);
    public static readonly Ioctl KVM_XEN_HVM_CONFIG = new(nameof(KVM_XEN_HVM_CONFIG), 0x4038AE7A);
    public static readonly Ioctl KVM_SET_CLOCK = new(nameof(KVM_SET_CLOCK), 0x4030AE7B);
    public static readonly Ioctl KVM_GET_CLOCK = new(nameof(KVM_GET_CLOCK), 0x8030AE7C);
    public static readonly Ioctl KVM_XEN_HVM_GET_ATTR = new(nameof(KVM_XEN_HVM_GET_ATTR), 0xC048AEC8);
    public static readonly Ioctl KVM_XEN_HVM_SET_ATTR = new(nameof(KVM_XEN_HVM_SET_ATTR), 0x4048AEC9);
    public static readonly Ioctl KVM_XEN_HVM_EVTCHN_SEND = new(nameof(KVM_XEN_HVM_EVTCHN_SEND), 0x400CAED0);
    public static readonly Ioctl KVM_GET_REGS = new(nameof(KVM_GET_REGS), 0x8090AE81);
    public static readonly Ioctl KVM_SET_REGS = new(nameof(KVM_SET_REGS), 0x4090AE82);
    public static readonly Ioctl KVM_GET_SREGS = new(nameof(KVM_GET_SREGS), 0x8138AE83);
    public static readonly Ioctl KVM_SET_SREGS = new(nameof(KVM_SET_SREGS), 0x4138AE84);
    public static readonly Ioctl KVM_INTERRUPT = new(nameof(KVM_INTERRUPT), 0x4004AE86);
    public static readonly Ioctl KVM_GET_MSRS = new(nameof(KVM_GET_MSRS), 0xC008AE88);
    public static readonly Ioctl KVM_SET_MSRS = new(nameof(KVM_SET_MSRS), 0x4008AE89);
    public static readonly Ioctl KVM_GET_LAPIC = new(nameof(KVM_GET_LAPIC), 0x8400AE8E);
    public static readonly Ioctl KVM_SET_LAPIC = new(nameof(KVM_SET_LAPIC), 0x4400AE8F);
    public static readonly Ioctl KVM_SET_CPUID2 = new(nameof(KVM_SET_CPUID2), 0x4008AE90);
    public static readonly Ioctl KVM_NMI = new(nameof(KVM_NMI), 0xAE9A);
    public static readonly Ioctl KVM_GET_VCPU_EVENTS = new(nameof(KVM_GET_VCPU_EVENTS), 0x8040AE9F);
    public static readonly Ioctl KVM_SET_VCPU_EVENTS = new(nameof(KVM_SET_VCPU_EVENTS), 0x4040AEA0);
    public static readonly Ioctl KVM_SET_TSC_KHZ = new(nameof(KVM_SET_TSC_KHZ), 0xAEA2);
    public static readonly Ioctl KVM_GET_TSC_KHZ = new(nameof(KVM_GET_TSC_KHZ), 0xAEA3);
    public static readonly Ioctl KVM_XEN_VCPU_GET_ATTR = new(nameof(KVM_XEN_VCPU_GET_ATTR), 0xC048AECA);
    public static readonly Ioctl KVM_XEN_VCPU_SET_ATTR = new(nameof(KVM_XEN_VCPU_SET_ATTR), 0x4048AECB);
}

/// <summary>KVM ioctls that exist on arm64 only.</summary>
[CHeader("linux/kvm.h", Only = "aarch64")]
public static class KvmArm64Ioctl
{
    public static readonly Ioctl KVM_ARM_PREFERRED_TARGET = new(nameof(KVM_ARM_PREFERRED_TARGET), 0x8020AEAF);
    public static readonly Ioctl KVM_ARM_VCPU_INIT = new(nameof(KVM_ARM_VCPU_INIT), 0x4020AEAE);
}

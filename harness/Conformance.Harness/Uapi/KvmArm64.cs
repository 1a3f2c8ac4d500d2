// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;

namespace Conformance.Uapi;

/// <summary>struct kvm_vcpu_init: what a vCPU is to be.</summary>
[CHeader("linux/kvm.h", Only = "aarch64")]
[StructLayout(LayoutKind.Sequential)]
public unsafe struct kvm_vcpu_init
{
    public uint target;
    public fixed uint features[7];
}

/// <summary>Constants of arm64's linux/kvm.h.</summary>
[CHeader("linux/kvm.h", Only = "aarch64")]
public static class KvmArm64Const
{
    public const uint KVM_ARM_VCPU_POWER_OFF = 0;
    public const uint KVM_ARM_VCPU_PSCI_0_2 = 2;

    public const ulong KVM_REG_ARM64 = 0x6000000000000000;
    public const ulong KVM_REG_SIZE_U64 = 0x0030000000000000;
    public const ulong KVM_REG_ARM_CORE = 0x0010_0000;
    public const ulong KVM_REG_ARM64_SYSREG = 0x0013_0000;

    public const uint KVM_ARM_IRQ_VCPU2_SHIFT = 28;
    public const uint KVM_ARM_IRQ_TYPE_SHIFT = 24;
    public const uint KVM_ARM_IRQ_VCPU_SHIFT = 16;
    public const uint KVM_ARM_IRQ_TYPE_CPU = 0;
    public const uint KVM_ARM_IRQ_TYPE_SPI = 1;
    public const uint KVM_ARM_IRQ_TYPE_PPI = 2;

    public const uint KVM_DEV_ARM_VGIC_GRP_ADDR = 0;
    public const uint KVM_DEV_ARM_VGIC_GRP_DIST_REGS = 1;
    public const uint KVM_DEV_ARM_VGIC_GRP_CPU_REGS = 2;
    public const uint KVM_DEV_ARM_VGIC_GRP_NR_IRQS = 3;
    public const uint KVM_DEV_ARM_VGIC_GRP_CTRL = 4;
    public const uint KVM_DEV_ARM_VGIC_GRP_REDIST_REGS = 5;
    public const uint KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS = 6;
    public const uint KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO = 7;
    public const uint KVM_DEV_ARM_VGIC_GRP_ITS_REGS = 8;

    public const uint KVM_DEV_ARM_VGIC_CTRL_INIT = 0;
    public const uint KVM_DEV_ARM_ITS_SAVE_TABLES = 1;
    public const uint KVM_DEV_ARM_ITS_RESTORE_TABLES = 2;
    public const uint KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES = 3;
    public const uint KVM_DEV_ARM_ITS_CTRL_RESET = 4;

    public const uint KVM_VGIC_V2_ADDR_TYPE_DIST = 0;
    public const uint KVM_VGIC_V2_ADDR_TYPE_CPU = 1;
    public const uint KVM_VGIC_V3_ADDR_TYPE_DIST = 2;
    public const uint KVM_VGIC_V3_ADDR_TYPE_REDIST = 3;
    public const uint KVM_VGIC_ITS_ADDR_TYPE = 4;
    public const uint KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION = 5;

    public const ulong KVM_VGIC_V3_DIST_SIZE = 0x10000;
    public const ulong KVM_VGIC_V3_REDIST_SIZE = 0x20000;
    public const ulong KVM_VGIC_V3_ITS_SIZE = 0x20000;

    public const uint VGIC_LEVEL_INFO_LINE_LEVEL = 0;
    public const uint KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT = 10;
    public const uint KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT = 32;

    public const uint KVM_NR_IRQCHIPS = 1;
}

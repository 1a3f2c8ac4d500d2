// SPDX-License-Identifier: MIT
using Conformance.Guests;

namespace Conformance.Kvm;

/// <summary>Where the interrupt controllers live.</summary>
public enum Irqchip
{
    /// <summary>No in-kernel interrupt controller.</summary>
    None,

    /// <summary>x86: PICs, I/O APIC and local APICs in the kernel; arm64: GICv3.</summary>
    Full,

    /// <summary>x86: local APICs in the kernel, PICs and I/O APIC in user space (KVM_CAP_SPLIT_IRQCHIP).</summary>
    Split,
}

/// <summary>The GICv3 of an arm64 VM.</summary>
public sealed record GicOptions
{
    /// <summary>INTIDs below 1020, private ones included; null: what the kernel gives when it is not told.</summary>
    public uint? IrqCount { get; init; }

    /// <summary>ITSs. With one at least, LPIs are enabled and each ITS has its tables and is enabled.</summary>
    public int ItsCount { get; init; }

    /// <summary>With ITSs: tables given and everything enabled. Otherwise only created, with their addresses.</summary>
    public bool Configure { get; init; } = true;
}

/// <summary>How a VM is made.</summary>
public sealed record VmOptions
{
    public static VmOptions Default { get; } = new();

    /// <summary>vCPUs, each with a guest area of its own.</summary>
    public int Vcpus { get; init; } = 1;

    /// <summary>The ids given to KVM_CREATE_VCPU; null: 0, 1, 2 …</summary>
    public IReadOnlyList<uint>? VcpuIds { get; init; }

    public Irqchip Irqchip { get; init; } = Irqchip.Full;

    /// <summary>I/O APIC routes reserved for EOI exits in a split irqchip (KVM_CAP_SPLIT_IRQCHIP's argument).</summary>
    public uint SplitIrqchipRoutes { get; init; } = 24;

    /// <summary>x86: KVM_X2APIC_API_USE_32BIT_IDS and KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK.</summary>
    public bool X2Apic32BitIds { get; init; }

    /// <summary>x86: the 32-bit guest image, in protected mode without long mode, instead of the 64-bit one.</summary>
    public bool Guest32Bit { get; init; }

    /// <summary>arm64: what <see cref="Irqchip.Full"/> means.</summary>
    public GicOptions Gic { get; init; } = new();

    /// <summary>Guest memory from its architecture's base, in bytes.</summary>
    public ulong MemoryBytes { get; init; } = GuestLayout.Memory;

    /// <summary>No memory and no guest: for rules about ioctls alone.</summary>
    public bool Bare { get; init; }

    /// <summary>Name in the journal and in failures.</summary>
    public string Name { get; init; } = "vm";
}

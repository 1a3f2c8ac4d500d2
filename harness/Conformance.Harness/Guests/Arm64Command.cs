// SPDX-License-Identifier: MIT
using Conformance.Kvm;

namespace Conformance.Guests;

/// <summary>Commands that only the arm64 guest knows.</summary>
public static class Arm64Command
{
    /// <summary>What ICC_PMR_EL1 lets through by default: every priority but the lowest that there is.</summary>
    public const byte EveryPriority = 0xf8;

    private const ulong PsciVersion = 0x84000000;
    private const ulong PsciCpuSuspend = 0x84000001;

    /// <summary>Result: the register.</summary>
    public static GuestCommand Read(IccRegister register) => new(GuestOp.ReadSysreg, $"mrs {register}", 0, (ulong)register);

    public static GuestCommand Write(IccRegister register, ulong value) => new(GuestOp.WriteSysreg, $"msr {register} 0x{value:x}", 0, (ulong)register, value);

    /// <summary>Opens the CPU interface. Result: MPIDR_EL1.</summary>
    /// <param name="splitEoi">ICC_CTLR_EL1.EOImode: the handler's EOI drops the priority, and the interrupt stays active until a write to DIR.</param>
    /// <param name="group0">Also group 0, which comes as FIQ.</param>
    public static GuestCommand EnableGic(byte priorityMask = EveryPriority, bool splitEoi = false, bool group0 = false) => new(GuestOp.GicEnable,
        $"enable gic pmr 0x{priorityMask:x}{(splitEoi ? " eoimode 1" : "")}{(group0 ? " group 0" : "")}", 0, priorityMask, splitEoi ? 2ul : 0, group0 ? 3ul : 2ul);

    /// <summary>An SGI to one vCPU.</summary>
    public static GuestCommand SendSgi(Sgi sgi, uint vcpuId) => Write(IccRegister.Sgi1r, SgiValue(sgi, vcpuId));

    /// <summary>Acknowledges an interrupt by hand; with <c>EOImode</c> it drops the priority only.</summary>
    public static GuestCommand EndOfInterrupt(IntId intid) => Write(IccRegister.Eoir1, intid.Value);

    /// <summary>Deactivates an interrupt, with EOImode set.</summary>
    public static GuestCommand Deactivate(IntId intid) => Write(IccRegister.Dir, intid.Value);

    /// <summary>A hypercall that changes nothing (PSCI_VERSION): the vCPU has left the guest and come back, so what was queued for it is in its list registers.</summary>
    public static GuestCommand LeaveAndReturn { get; } = new(GuestOp.Hvc, "hvc psci_version", 0, PsciVersion);

    /// <summary>PSCI's CPU_SUSPEND into standby: a halt that always leaves the guest, also with an interrupt pending in a list register.</summary>
    public static GuestCommand Suspend { get; } = new(GuestOp.Hvc, "hvc cpu_suspend", 0, PsciCpuSuspend);

    /// <summary>Waits, interrupts enabled, until this interrupt, or one in the same slot, was taken so many times since the vCPU started.</summary>
    /// <inheritdoc cref="GuestCommand.HaltUntilTaken"/>
    public static GuestCommand HaltUntilTaken(IntId intid, uint times = 1, bool quiet = false) => GuestCommand.HaltUntilTaken(new ApicVector(intid.Slot), times, quiet);

    /// <summary>A distributor register as the guest reads it.</summary>
    public static GuestCommand LoadDistributor(uint offset, AccessWidth width = AccessWidth.Dword) => GuestCommand.Load(Arm64Layout.Distributor + offset, width);

    public static GuestCommand StoreDistributor(uint offset, ulong value, AccessWidth width = AccessWidth.Dword) =>
        GuestCommand.Store(Arm64Layout.Distributor + offset, value, width);

    /// <param name="index">Of the vCPU whose redistributor it is.</param>
    public static GuestCommand LoadRedistributor(int index, uint offset, AccessWidth width = AccessWidth.Dword) =>
        GuestCommand.Load(Arm64Layout.Redistributor(index) + offset, width);

    /// <inheritdoc cref="LoadRedistributor"/>
    public static GuestCommand StoreRedistributor(int index, uint offset, ulong value, AccessWidth width = AccessWidth.Dword) =>
        GuestCommand.Store(Arm64Layout.Redistributor(index) + offset, value, width);

    internal static ulong SgiValue(Sgi sgi, uint vcpuId)
    {
        uint affinity = Vgic.Affinity(vcpuId);
        return ((ulong)sgi.Value << 24) | (1ul << (int)(affinity & 0xf)) | ((ulong)(affinity >> 8 & 0xff) << 16) | ((ulong)(affinity >> 16 & 0xff) << 32);
    }
}

// SPDX-License-Identifier: MIT
namespace Conformance.Uapi;

/// <summary>KVM_CAP_* numbers (linux/kvm.h); the member name is the C name after the prefix, in .NET casing.</summary>
public enum KvmCap
{
    Irqchip = 0,
    UserMemory = 3,
    NrVcpus = 9,
    NrMemslots = 10,
    Pit = 11,
    MpState = 14,
    CoalescedMmio = 15,
    IrqRouting = 25,
    IrqInjectStatus = 26,
    Irqfd = 32,
    Pit2 = 33,
    Ioeventfd = 36,
    XenHvm = 38,
    AdjustClock = 39,
    VcpuEvents = 41,
    MaxVcpus = 66,
    OneReg = 70,
    TscDeadlineTimer = 72,
    SignalMsi = 77,
    IrqfdResample = 82,
    DeviceCtrl = 89,
    IoeventfdNoLength = 100,
    X86Smm = 117,
    SplitIrqchip = 121,
    IoeventfdAnyLength = 122,
    HypervSynic = 123,
    MaxVcpuId = 128,
    X2ApicApi = 129,
    MsiDevid = 131,
    ImmediateExit = 136,
    CoalescedPio = 162,
    ArmVmIpaSize = 165,
    ArmIrqLineLayout2 = 174,
}

/// <summary>C spelling of a capability, for skip reasons: <c>KVM_CAP_XEN_HVM</c>.</summary>
public static class KvmCapName
{
    public static string CName(this KvmCap cap) => cap switch
    {
        KvmCap.X2ApicApi => "KVM_CAP_X2APIC_API",
        KvmCap.ArmIrqLineLayout2 => "KVM_CAP_ARM_IRQ_LINE_LAYOUT_2",
        KvmCap.Pit2 => "KVM_CAP_PIT2",
        _ => "KVM_CAP_" + string.Concat(cap.ToString().Select((c, i) => i > 0 && char.IsUpper(c) ? "_" + c : char.ToUpperInvariant(c).ToString())),
    };
}

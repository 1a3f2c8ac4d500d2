// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>Which of Xen's two x86 layouts a guest uses.</summary>
public enum XenAbi
{
    Bits64,
    Bits32,
}

/// <summary>Where things are in the pages a Xen guest shares with its hypervisor (xen/interface/xen.h and vcpu.h). Offsets and sizes in bytes.</summary>
public sealed class XenLayout
{
    private XenLayout(XenAbi abi) => Abi = abi;

    public static XenLayout Bits64 { get; } = new(XenAbi.Bits64)
    {
        WordBits = 64,
        MaskOffset = 0xa00,
        WallClock = 0xc00,
        WallClockSecondsHigh = 0xc0c,
        SelectorOffset = 8,
        RunstateEntryTime = 8,
    };

    public static XenLayout Bits32 { get; } = new(XenAbi.Bits32)
    {
        WordBits = 32,
        MaskOffset = 0x880,
        WallClock = 0x900,
        WallClockSecondsHigh = 0x924,
        SelectorOffset = 4,
        RunstateEntryTime = 4,
    };

    public XenAbi Abi { get; }

    /// <summary>Bits in a word of evtchn_pending, evtchn_mask and evtchn_pending_sel.</summary>
    public required int WordBits { get; init; }

    /// <summary>Event channels there are; the highest port is one less.</summary>
    public uint Ports => (uint)(WordBits * WordBits);

    /// <summary>shared_info.evtchn_pending.</summary>
    public int PendingOffset => 0x800;

    /// <summary>shared_info.evtchn_mask.</summary>
    public required int MaskOffset { get; init; }

    /// <summary>shared_info.wc: version, seconds, nanoseconds, each a u32.</summary>
    public required int WallClock { get; init; }

    /// <summary>The upper half of the wall clock's seconds, which is elsewhere.</summary>
    public required int WallClockSecondsHigh { get; init; }

    /// <summary>vcpu_info.evtchn_pending_sel.</summary>
    public required int SelectorOffset { get; init; }

    /// <summary>state_entry_time in vcpu_runstate_info; four times follow it.</summary>
    public required int RunstateEntryTime { get; init; }

    /// <summary>Bytes of vcpu_runstate_info.</summary>
    public int RunstateSize => RunstateEntryTime + 40;

    public static XenLayout Of(XenAbi abi) => abi == XenAbi.Bits64 ? Bits64 : Bits32;

    public override string ToString() => Abi.ToString();
}

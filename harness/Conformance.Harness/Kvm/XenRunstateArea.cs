// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kvm;

/// <summary>A vcpu_runstate_info in guest memory.</summary>
public static class XenRunstateArea
{
    /// <summary>XEN_RUNSTATE_UPDATE: set in state_entry_time while the structure is being written.</summary>
    public const ulong Update = 1UL << 63;

    public static XenRunstate Parse(ReadOnlySpan<byte> bytes, XenLayout layout)
    {
        ReadOnlySpan<byte> times = bytes[layout.RunstateEntryTime..];
        return new XenRunstate(
            BinaryPrimitives.ReadUInt32LittleEndian(bytes),
            BinaryPrimitives.ReadUInt64LittleEndian(times),
            BinaryPrimitives.ReadUInt64LittleEndian(times[8..]),
            BinaryPrimitives.ReadUInt64LittleEndian(times[16..]),
            BinaryPrimitives.ReadUInt64LittleEndian(times[24..]),
            BinaryPrimitives.ReadUInt64LittleEndian(times[32..]));
    }

    /// <summary>The structure's bytes; the 64-bit layout's padding is zero.</summary>
    public static byte[] Encode(XenRunstate runstate, XenLayout layout)
    {
        byte[] bytes = new byte[layout.RunstateSize];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, (uint)runstate.State);
        Span<byte> times = bytes.AsSpan(layout.RunstateEntryTime);
        BinaryPrimitives.WriteUInt64LittleEndian(times, runstate.EntryTime);
        BinaryPrimitives.WriteUInt64LittleEndian(times[8..], runstate.Running);
        BinaryPrimitives.WriteUInt64LittleEndian(times[16..], runstate.Runnable);
        BinaryPrimitives.WriteUInt64LittleEndian(times[24..], runstate.Blocked);
        BinaryPrimitives.WriteUInt64LittleEndian(times[32..], runstate.Offline);
        return bytes;
    }
}

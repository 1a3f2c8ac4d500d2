// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kvm;

/// <summary>A paravirtual clock's parameters (pvclock_vcpu_time_info, 32 bytes).</summary>
/// <param name="Version">Even when stable.</param>
/// <param name="SystemTime">Nanoseconds of kvmclock at <paramref name="TscTimestamp"/>.</param>
public readonly record struct PvclockTime(uint Version, ulong TscTimestamp, ulong SystemTime, uint Multiplier, sbyte Shift, byte Flags)
{
    public const int Size = 32;

    /// <summary>PVCLOCK_TSC_STABLE_BIT.</summary>
    public const byte TscStable = 1;

    public static PvclockTime Parse(ReadOnlySpan<byte> bytes) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(bytes),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]),
        BinaryPrimitives.ReadUInt32LittleEndian(bytes[24..]),
        (sbyte)bytes[28],
        bytes[29]);

    /// <summary>
    /// Whether <see cref="At"/> is kvmclock. It is not on a host whose TSC lost its clocksource's trust: KVM then scales by a frequency that the
    /// host itself found wrong: seen in emulation of a kernel that calibrated it on a busy machine.
    /// </summary>
    public bool IsExact => (Flags & TscStable) != 0;

    /// <summary>kvmclock at a guest TSC value, as a guest computes it.</summary>
    public ulong At(ulong tsc)
    {
        ulong delta = tsc - TscTimestamp;
        delta = Shift < 0 ? delta >> -Shift : delta << Shift;
        return SystemTime + (ulong)(((UInt128)delta * Multiplier) >> 32);
    }
}

/// <summary>A vcpu_info as it was read: 64 bytes in both layouts.</summary>
public sealed record XenVcpuInfoState(byte[] Bytes, XenLayout Layout)
{
    public byte UpcallPending => Bytes[0];

    public byte UpcallMask => Bytes[1];

    /// <summary>evtchn_pending_sel: bit n says that word n of evtchn_pending is to be looked at.</summary>
    public ulong Selector => Layout.Abi == XenAbi.Bits64
        ? BinaryPrimitives.ReadUInt64LittleEndian(Bytes.AsSpan(Layout.SelectorOffset))
        : BinaryPrimitives.ReadUInt32LittleEndian(Bytes.AsSpan(Layout.SelectorOffset));

    public PvclockTime Time => PvclockTime.Parse(Bytes.AsSpan(32));

    public override string ToString() => $"upcall_pending {UpcallPending} upcall_mask {UpcallMask} pending_sel 0x{Selector:x}";
}

/// <summary>One vCPU's vcpu_info, as the harness sees it in the session's memory.</summary>
/// <param name="offset">Of the structure in the mapping, in bytes.</param>
public sealed class XenVcpuInfo(Mapping mapping, ulong offset, XenLayout layout)
{
    public const int Size = 64;

    /// <summary>Where the pvclock is in it, in both layouts.</summary>
    public const int TimeOffset = 32;

    public XenLayout Layout { get; } = layout;

    /// <summary>Its address in the session's process.</summary>
    public ulong Hva => mapping.Address + offset;

    public async Task<XenVcpuInfoState> ReadAsync() => new(await mapping.ReadAsync(offset, Size), Layout);

    public Task WriteAsync(ReadOnlyMemory<byte> info) => mapping.WriteAsync(offset, info);

    public Task SetUpcallPendingAsync(byte value) => mapping.WriteByteAsync(offset, value);

    /// <summary>Sets upcall_mask, which is the guest's own and says that it wants no upcalls for now.</summary>
    public Task SetUpcallMaskAsync(byte value) => mapping.WriteByteAsync(offset + 1, value);

    /// <summary>Clears upcall_pending and the selector, as a guest does that has seen them.</summary>
    public async Task ClearAsync()
    {
        await SetSelectorAsync(0);
        await SetUpcallPendingAsync(0);
    }

    public Task SetSelectorAsync(ulong value)
    {
        byte[] bytes = BitConverter.GetBytes(value);
        return mapping.WriteAsync(offset + (ulong)Layout.SelectorOffset, bytes.AsMemory(0, Layout.WordBits / 8));
    }

    /// <summary>Drops its page, so that KVM's cached mapping is invalidated and what the page held becomes zero.</summary>
    public Task DropAsync() => mapping.DropPagesAsync(offset & ~0xfffUL, 4096);
}

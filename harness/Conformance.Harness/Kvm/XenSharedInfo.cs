// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kvm;

/// <summary>The wall clock of shared_info: when the guest's kvmclock was zero.</summary>
/// <param name="Seconds">All 64 bits of them, since 1970.</param>
public readonly record struct XenWallClock(uint Version, ulong Seconds, uint Nanoseconds)
{
    public decimal TotalNanoseconds => (Seconds * 1_000_000_000m) + Nanoseconds;
}

/// <summary>A shared_info page as it was read.</summary>
public sealed record XenSharedInfoPage(byte[] Bytes, XenLayout Layout)
{
    /// <summary>Ports whose pending bit is set, ascending.</summary>
    public IReadOnlyList<uint> Pending => Ports(Layout.PendingOffset);

    /// <summary>Ports whose mask bit is set, ascending.</summary>
    public IReadOnlyList<uint> Masked => Ports(Layout.MaskOffset);

    public XenWallClock WallClock => new(
        Word(Layout.WallClock),
        ((ulong)Word(Layout.WallClockSecondsHigh) << 32) | Word(Layout.WallClock + 4),
        Word(Layout.WallClock + 8));

    private uint Word(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes.AsSpan(offset));

    private List<uint> Ports(int offset)
    {
        var ports = new List<uint>();
        for (uint port = 0; port < Layout.Ports; port++)
        {
            if ((Bytes[offset + (port / 8)] & (1 << (int)(port % 8))) != 0)
            {
                ports.Add(port);
            }
        }

        return ports;
    }
}

/// <summary>A guest's shared_info page, as the harness sees it in the session's memory.</summary>
/// <param name="offset">Of the page in the mapping, in bytes.</param>
public sealed class XenSharedInfo(Mapping mapping, ulong offset, XenLayout layout)
{
    public const int Size = 4096;

    public XenLayout Layout { get; } = layout;

    /// <summary>The page's address in the session's process.</summary>
    public ulong Hva => mapping.Address + offset;

    public async Task<XenSharedInfoPage> ReadAsync() => new(await mapping.ReadAsync(offset, Size), Layout);

    public Task WriteAsync(ReadOnlyMemory<byte> page) => mapping.WriteAsync(offset, page);

    public Task FillAsync(byte value) => mapping.FillAsync(offset, Size, value);

    public Task MaskAsync(uint port, bool masked = true) => SetBitAsync(Layout.MaskOffset, port, masked);

    public Task SetPendingAsync(uint port, bool pending = true) => SetBitAsync(Layout.PendingOffset, port, pending);

    public async Task<IReadOnlyList<uint>> PendingAsync() => (await ReadAsync()).Pending;

    /// <summary>Drops the page, so that KVM's cached mapping of it is invalidated and what it held becomes zero.</summary>
    public Task DropAsync() => mapping.DropPagesAsync(offset, Size);

    private async Task SetBitAsync(int array, uint port, bool value)
    {
        ulong at = offset + (ulong)array + (port / 8);
        byte bit = (byte)(1 << (int)(port % 8));
        byte old = await mapping.ReadByteAsync(at);
        await mapping.WriteByteAsync(at, (byte)(value ? old | bit : old & ~bit));
    }
}

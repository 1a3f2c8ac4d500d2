// SPDX-License-Identifier: MIT
using Conformance.Kvm;

namespace Conformance.Vfio;

/// <summary>A device's MSI-X table and pending bits, mapped into the session: what the device itself looks at.</summary>
/// <remarks>The kernel's own record of the table does not see what is written here.</remarks>
public sealed class MsixTable
{
    private const int EntrySize = 16;
    private const ulong VectorControl = 12;
    private readonly Mapping _table;
    private readonly Mapping _pending;
    private readonly ulong _tableOffset;
    private readonly ulong _pendingOffset;

    private MsixTable(VfioRegion bar, ulong tableOffset, Mapping table, ulong pendingOffset, Mapping pending, uint entries)
    {
        Bar = bar;
        Offset = tableOffset;
        (_tableOffset, _table, _pendingOffset, _pending, Entries) = (tableOffset, table, pendingOffset, pending, entries);
    }

    /// <summary>The BAR that holds the table.</summary>
    public VfioRegion Bar { get; }

    /// <summary>Where in the BAR the table begins.</summary>
    public ulong Offset { get; }

    public uint Entries { get; }

    /// <summary>Reads the capability and maps what it points to.</summary>
    public static async Task<MsixTable> MapAsync(VfioDevice device)
    {
        ulong capability = await device.FindCapabilityAsync(PciConfiguration.MsixCapability) ?? throw new InvalidOperationException($"{device} has no MSI-X.");
        VfioRegion config = await device.ConfigAsync();
        ushort control = await config.ReadUInt16Async(capability + 2);
        uint table = await config.ReadUInt32Async(capability + 4), pending = await config.ReadUInt32Async(capability + 8);
        VfioRegion bar = await device.RegionAsync(table & 7);
        Mapping mapping = await bar.MapAsync();
        Mapping other = (pending & 7) == (table & 7) ? mapping : await (await device.RegionAsync(pending & 7)).MapAsync();
        return new MsixTable(bar, table & ~7u, mapping, pending & ~7u, other, (control & 0x7ffu) + 1);
    }

    /// <summary>Address, data and vector control of an entry.</summary>
    public async Task<(MsiMessage Message, uint Control)> ReadAsync(uint entry)
    {
        // Word by word: devices need not take larger accesses.
        ulong at = At(entry);
        ulong address = await _table.ReadUInt32Async(at) | ((ulong)await _table.ReadUInt32Async(at + 4) << 32);
        return (new MsiMessage(address, await _table.ReadUInt32Async(at + 8)), await _table.ReadUInt32Async(at + VectorControl));
    }

    public async Task WriteMessageAsync(uint entry, MsiMessage message)
    {
        ulong at = At(entry);
        await _table.WriteUInt32Async(at, (uint)message.Address);
        await _table.WriteUInt32Async(at + 4, (uint)(message.Address >> 32));
        await _table.WriteUInt32Async(at + 8, message.Data);
    }

    public Task MaskAsync(uint entry) => _table.WriteUInt32Async(At(entry) + VectorControl, 1);

    public Task UnmaskAsync(uint entry) => _table.WriteUInt32Async(At(entry) + VectorControl, 0);

    public async Task<bool> IsMaskedAsync(uint entry) => (await _table.ReadUInt32Async(At(entry) + VectorControl) & 1) != 0;

    public async Task<bool> IsPendingAsync(uint entry) =>
        (await _pending.ReadUInt32Async(_pendingOffset + (entry / 32 * 4)) & (1u << (int)(entry % 32))) != 0;

    /// <summary>Waits until an entry's pending bit is set.</summary>
    /// <exception cref="MissingEventException">It was not within the session's patience.</exception>
    public async Task WaitUntilPendingAsync(uint entry)
    {
        ulong bit = 1u << (int)(entry % 32);
        (bool met, _) = await _pending.Session.Agent.AwaitAsync(_pending.Address + _pendingOffset + (entry / 32 * 4), 4,
            Wire.MemoryCondition.Equal, bit, _pending.Session.EventPatience, bit);
        if (!met)
        {
            throw new MissingEventException($"The pending bit of MSI-X entry {entry} was not set.");
        }
    }

    private ulong At(uint entry) => _tableOffset + (entry * EntrySize);
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Guests;

/// <summary>
/// The last level of an x86 image's page tables for the first 4 MiB, one entry per 4 KiB page. A change is seen by a vCPU after
/// <see cref="GuestCommand.Invlpg"/> or <see cref="GuestCommand.FlushTlb"/>.
/// </summary>
public sealed class PageTables
{
    private const ulong PageSize = 0x1000;
    private const ulong Present = 1;
    private const ulong Writable = 2;
    private const ulong User = 4;
    private const ulong AccessedAndDirty = 0x60;

    private readonly ulong _table;
    private readonly int _entrySize;

    internal PageTables(ulong table, int entrySize)
    {
        _table = table;
        _entrySize = entrySize;
    }

    /// <summary>Where the entry of this page is, for tests that change it from within the guest.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Not a page of the first 4 MiB.</exception>
    public ulong EntryAddress(ulong address)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(address, GuestLayout.SmallEnd);
        return _table + (address / PageSize * (uint)_entrySize);
    }

    /// <summary>Accesses to the page raise #PF.</summary>
    public GuestWrite Unmap(ulong address) => Write(address, 0);

    /// <summary>The page shows itself again, writable and open to CPL3, as at boot.</summary>
    public GuestWrite Restore(ulong address) => Map(address, address & ~(PageSize - 1));

    /// <summary>The page shows another frame.</summary>
    /// <param name="frame">Guest-physical address of the frame, page aligned; need not be memory.</param>
    public GuestWrite Map(ulong address, ulong frame, bool writable = true, bool user = true)
    {
        if (frame % PageSize != 0)
        {
            throw new ArgumentException($"0x{frame:x} is not page aligned", nameof(frame));
        }

        return Write(address, frame | Present | AccessedAndDirty | (writable ? Writable : 0) | (user ? User : 0));
    }

    private GuestWrite Write(ulong address, ulong entry)
    {
        var bytes = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, entry);
        return new GuestWrite(EntryAddress(address), bytes[.._entrySize]);
    }
}

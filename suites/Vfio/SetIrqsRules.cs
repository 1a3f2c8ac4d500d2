// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Uapi;

namespace Conformance.Vfio;

/// <summary>
/// What VFIO_DEVICE_SET_IRQS answers to a request whose descriptors are all -1, as the clauses of vfio-irqs.md say it.
/// </summary>
/// <param name="Counts">Interrupts of each index.</param>
/// <param name="Grows">Whether MSI-X entries can be added after the first set (vfio-dynamic-msix).</param>
/// <param name="Checked">Whether triggering beyond the set is refused: kernels before vfio-dynamic-msix.</param>
internal sealed record SetIrqsRules(IReadOnlyList<uint> Counts, bool Grows, bool Checked)
{
    /// <summary>The index in use; null: none.</summary>
    public IrqIndex? Active { get; init; }

    /// <summary>MSIs or MSI-X entries the first call of the index took.</summary>
    public uint Enabled { get; init; }

    public static async Task<SetIrqsRules> OfAsync(VfioDevice device, KernelUnderTest kernel)
    {
        uint[] counts = new uint[5];
        for (uint i = 0; i < counts.Length; i++)
        {
            // ERR of a conventional device is EINVAL: there is none.
            counts[i] = (await device.TryIrqInfoAsync(i)).Info.Count;
        }

        return new SetIrqsRules(counts, (await device.IrqInfoAsync(IrqIndex.Msix)).CanGrow, !kernel.Has("vfio-dynamic-msix"));
    }

    public uint CountOf(uint index) => index < Counts.Count ? Counts[(int)index] : 0;

    public Errno Answer(IrqSet set)
    {
        uint argsz = set.Argsz ?? (uint)(20 + set.Data.Length), action = set.Flags & 0x38, type = set.Flags & 7;
        ulong last = (ulong)set.Start + set.Count;
        if (argsz < 20 || set.Index > 4 || last >= uint.MaxValue || set.Flags > 63 || set.Start >= CountOf(set.Index) || last > CountOf(set.Index))
        {
            return Errno.EINVAL;
        }

        uint size = type switch { 1 => 0, 2 => 1, 4 => 4, _ => uint.MaxValue };
        if (size == uint.MaxValue || argsz - 20 < set.Count * size)
        {
            return Errno.EINVAL;
        }

        var index = (IrqIndex)set.Index;
        return (index, action) switch
        {
            (IrqIndex.Intx, 8) => Intx(set, type == 4 ? Errno.ENOTTY : Errno.None),
            (IrqIndex.Intx, 16) => Intx(set, Errno.None),
            (IrqIndex.Intx, 32) => IntxTrigger(set, type),
            (IrqIndex.Msi or IrqIndex.Msix, 32) => MsiTrigger(index, set, type),
            // Nothing is attached to ERR and REQ: there is nothing to signal, and a range must not be empty.
            (IrqIndex.Err or IrqIndex.Req, 32) => type == 1 || set.Count == 0 ? Errno.EINVAL : Errno.None,
            _ => Errno.ENOTTY,
        };
    }

    private Errno Intx(IrqSet set, Errno otherwise) => Active != IrqIndex.Intx || set.Start != 0 || set.Count != 1 ? Errno.EINVAL : otherwise;

    private Errno IntxTrigger(IrqSet set, uint type)
    {
        if (Active == IrqIndex.Intx && set.Count == 0 && type == 1)
        {
            return Errno.None;
        }

        return set.Start != 0 || set.Count != 1 || Active is IrqIndex.Msi or IrqIndex.Msix || (type != 4 && Active is null) ? Errno.EINVAL : Errno.None;
    }

    private Errno MsiTrigger(IrqIndex index, IrqSet set, uint type)
    {
        if (Active == index)
        {
            if (set.Count == 0 && type == 1)
            {
                return Errno.None;
            }

            bool beyond = set.Start + set.Count > Enabled || (type == 4 && set.Start >= Enabled);
            return beyond && Checked ? Errno.EINVAL : Errno.None;
        }

        if (Active is not null || type != 4)
        {
            return Errno.EINVAL;
        }

        // Enabling no vectors at all: the PCI core's answer.
        if (set.Start + set.Count == 0)
        {
            return Errno.ERANGE;
        }

        // Before vfio-dynamic-msix a range had to begin below the set it enabled.
        return Checked && set.Count == 0 ? Errno.EINVAL : Errno.None;
    }
}

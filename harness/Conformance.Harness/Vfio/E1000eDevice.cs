// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;

namespace Conformance.Vfio;

/// <summary>Intel 82574L as QEMU models it: INTx, one MSI, five MSI-X entries, the table in a BAR of its own.</summary>
public sealed class E1000eDevice(VfioDevice vfio) : InterruptingDevice(vfio)
{
    public const ushort Vendor = 0x8086;
    public const ushort Device = 0x10d3;
    public const uint Entries = 5;

    private const ulong ControlExtension = 0x18;
    private const ulong Cause = 0xc0;
    private const ulong CauseSet = 0xc8;
    private const ulong MaskSet = 0xd0;
    private const ulong MaskClear = 0xd8;
    private const ulong VectorAllocation = 0xe4;
    private const uint LinkChange = 1 << 2;
    private const uint AllEntries = 0x1f00000;

    // Later ones send each message again when the device's throttling interval ends, whether its cause stays or not; 10.0.13 seen to, 7.2.22 not to.
    private static readonly Version s_lastExact = new(7, 2, int.MaxValue);

    private string? _repeatedBy;

    /// <summary>Opens the machine's; a test on one without is skipped.</summary>
    public static async Task<E1000eDevice> OpenAsync(KernelUnderTest kernel, KernelSession session)
    {
        VfioDevice device = await VfioDevice.OpenAsync(session, await PciFunction.RequireAsync(session, Vendor, Device, "e1000e"));
        string? emulator = (await kernel.TargetAsync()).QemuVersion;
        return new E1000eDevice(device) { _repeatedBy = emulator is not null && Version.Parse(emulator) > s_lastExact ? $"QEMU {emulator}" : null };
    }

    public override uint Raisable(IrqIndex index) => index switch
    {
        IrqIndex.Msix => Entries,
        IrqIndex.Msi or IrqIndex.Intx => 1,
        _ => 0,
    };

    public override async Task PrepareAsync(IrqIndex index)
    {
        await base.PrepareAsync(index);
        await WriteRegisterAsync(MaskClear, uint.MaxValue);
        await WriteRegisterAsync(Cause, uint.MaxValue);
        if (index == IrqIndex.Msix)
        {
            // Pending bits supported; causes 20-24 to entries 0-4, each with its valid bit.
            await WriteRegisterAsync(ControlExtension, 1u << 31);
            await WriteRegisterAsync(VectorAllocation, 0xcba98);
        }
    }

    public override IReadOnlyList<(ulong Offset, uint Value)> RaisingWrites(IrqIndex index, uint entry = 0)
    {
        Skipping.UnlessHardware(
            _repeatedBy is null || index == IrqIndex.Intx, "an e1000e that sends a message once", $"{_repeatedBy}'s sends each again when its throttling interval ends");

        // The mask must be set again and the cause taken back before the same cause interrupts once more.
        uint cause = index == IrqIndex.Msix ? 1u << (20 + (int)entry) : LinkChange;
        return [(Cause, cause), (MaskSet, index == IrqIndex.Msix ? AllEntries : LinkChange), (CauseSet, cause)];
    }

    public override async Task RaiseAsync(IrqIndex index, uint entry = 0)
    {
        foreach ((ulong offset, uint value) in RaisingWrites(index, entry))
        {
            await WriteRegisterAsync(offset, value);
        }
    }

    public override async Task AcknowledgeAsync(IrqIndex index, uint entry = 0) =>
        await WriteRegisterAsync(Cause, index == IrqIndex.Msix ? 1u << (20 + (int)entry) : LinkChange);
}

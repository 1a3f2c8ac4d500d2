// SPDX-License-Identifier: MIT

namespace Conformance.Vfio;

/// <summary>QEMU's edu device: conventional PCI, INTx and one MSI, an interrupt by one register write, a DMA engine.</summary>
public sealed class EduDevice(VfioDevice vfio) : InterruptingDevice(vfio)
{
    public const ushort Vendor = 0x1234;
    public const ushort Device = 0x11e8;

    /// <summary>Where its buffer lies, as its DMA engine is told.</summary>
    public const ulong Buffer = 0x40000;

    private const ulong InterruptStatus = 0x24;
    private const ulong InterruptRaise = 0x60;
    private const ulong InterruptAcknowledge = 0x64;
    private const ulong DmaSource = 0x80;
    private const ulong DmaDestination = 0x88;
    private const ulong DmaCount = 0x90;
    private const ulong DmaCommand = 0x98;
    private const uint DmaStart = 1;
    private const uint DmaToMemory = 2;
    private const uint DmaInterrupt = 4;

    public override uint Raisable(IrqIndex index) => index is IrqIndex.Intx or IrqIndex.Msi ? 1u : 0;

    public override IReadOnlyList<(ulong Offset, uint Value)> RaisingWrites(IrqIndex index, uint entry = 0) => [(InterruptRaise, 1)];

    public override Task RaiseAsync(IrqIndex index, uint entry = 0) => WriteRegisterAsync(InterruptRaise, 1);

    public override Task AcknowledgeAsync(IrqIndex index, uint entry = 0) => WriteRegisterAsync(InterruptAcknowledge, uint.MaxValue);

    // Not every reset that closing does lowers its line.
    protected override async Task LowerAsync() => await (await Vfio.RegionAsync(RegisterBar)).TryWriteAsync(InterruptAcknowledge, [0xff, 0xff, 0xff, 0xff]);

    public override async Task PrepareAsync(IrqIndex index)
    {
        await base.PrepareAsync(index);
        await AcknowledgeAsync(index);
    }

    public Task<uint> StatusAsync() => ReadRegisterAsync(InterruptStatus);

    /// <summary>Starts a transfer between its buffer and memory; it interrupts when done.</summary>
    /// <param name="iova">Below 256 MiB: the engine has 28 address bits.</param>
    public async Task TransferAsync(ulong iova, uint length, bool toMemory)
    {
        await WriteRegisterAsync(DmaSource, (uint)(toMemory ? Buffer : iova));
        await WriteRegisterAsync(DmaDestination, (uint)(toMemory ? iova : Buffer));
        await WriteRegisterAsync(DmaCount, length);
        await WriteRegisterAsync(DmaCommand, DmaStart | DmaInterrupt | (toMemory ? DmaToMemory : 0));
    }
}

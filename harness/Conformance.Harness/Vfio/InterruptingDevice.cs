// SPDX-License-Identifier: MIT
using Conformance.Kvm;
using Conformance.Uapi;

namespace Conformance.Vfio;

/// <summary>
/// A device model or a real device that can be made to interrupt: all that the suite knows of one. A lab adds its own by deriving: the
/// registers that raise and acknowledge are usually the whole of it.
/// </summary>
public abstract class InterruptingDevice(VfioDevice vfio) : IAsyncDisposable
{
    public VfioDevice Vfio => vfio;

    public KernelSession Session => vfio.Session;

    /// <summary>Interrupts that <see cref="RaiseAsync"/> can raise on an index; 0: none.</summary>
    public abstract uint Raisable(IrqIndex index);

    /// <summary>What the device needs before its first interrupt on an index, after it was opened or reset.</summary>
    public virtual Task PrepareAsync(IrqIndex index) => vfio.SetCommandAsync(PciConfiguration.MemorySpace | PciConfiguration.BusMaster);

    /// <summary>Makes the device raise one interrupt.</summary>
    public abstract Task RaiseAsync(IrqIndex index, uint entry = 0);

    /// <summary>Takes back what <see cref="RaiseAsync"/> asserted: an INTx line falls.</summary>
    public abstract Task AcknowledgeAsync(IrqIndex index, uint entry = 0);

    /// <summary>Lowers a line that closing the device would leave up: whoever shares it would be interrupted for ever.</summary>
    protected virtual Task LowerAsync() => Task.CompletedTask;

    /// <summary>The writes to <see cref="RegisterBar"/> that raise one interrupt, for a guest or a program to make.</summary>
    public abstract IReadOnlyList<(ulong Offset, uint Value)> RaisingWrites(IrqIndex index, uint entry = 0);

    /// <summary>The BAR of <see cref="RaisingWrites"/>.</summary>
    public virtual uint RegisterBar => VfioConst.VFIO_PCI_BAR0_REGION_INDEX;

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (!Session.HasEnded)
        {
            if (!vfio.Fd.IsClosed)
            {
                await LowerAsync();
            }

            await vfio.DisposeAsync();
        }
    }

    protected async Task WriteRegisterAsync(ulong offset, uint value) =>
        await (await vfio.RegionAsync(RegisterBar)).WriteUInt32Async(offset, value);

    protected async Task<uint> ReadRegisterAsync(ulong offset) => await (await vfio.RegionAsync(RegisterBar)).ReadUInt32Async(offset);
}

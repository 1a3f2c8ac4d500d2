// SPDX-License-Identifier: MIT
using Conformance.Kvm;
using Conformance.Uapi;

namespace Conformance.Vfio;

public sealed partial class VfioDevice
{
    /// <summary>VFIO_DEVICE_SET_IRQS.</summary>
    public async Task<Errno> TrySetIrqsAsync(IrqSet set) =>
        (await Session.IoctlAsync(Fd, VfioIoctl.VFIO_DEVICE_SET_IRQS, set.ToBytes(), set.ToString())).Error;

    public async Task SetIrqsAsync(IrqSet set) => Vm.Expect(await TrySetIrqsAsync(set), $"VFIO_DEVICE_SET_IRQS({set})");

    /// <summary>Gives a range of interrupts their eventfds; null takes one away. The first such call enables the index.</summary>
    public Task<Errno> TryAttachAsync(IrqIndex index, uint start, params KernelFd?[] eventfds) =>
        TrySetIrqsAsync(IrqSet.Eventfds(index, IrqAction.Trigger, start, eventfds));

    /// <inheritdoc cref="TryAttachAsync"/>
    public async Task AttachAsync(IrqIndex index, uint start, params KernelFd?[] eventfds) =>
        Vm.Expect(await TryAttachAsync(index, start, eventfds), $"VFIO_DEVICE_SET_IRQS({index} trigger eventfds {start}+{eventfds.Length})");

    /// <summary>Signals a range as if the device had.</summary>
    public Task<Errno> TryTriggerAsync(IrqIndex index, uint start = 0, uint count = 1) => TrySetIrqsAsync(IrqSet.None(index, IrqAction.Trigger, start, count));

    public async Task TriggerAsync(IrqIndex index, uint start = 0, uint count = 1) =>
        Vm.Expect(await TryTriggerAsync(index, start, count), $"VFIO_DEVICE_SET_IRQS({index} trigger {start}+{count})");

    /// <summary>Ends the use of an index, with every eventfd of it.</summary>
    public Task<Errno> TryDisableAsync(IrqIndex index) => TrySetIrqsAsync(IrqSet.None(index, IrqAction.Trigger, 0, 0));

    public async Task DisableAsync(IrqIndex index) => Vm.Expect(await TryDisableAsync(index), $"VFIO_DEVICE_SET_IRQS({index} trigger 0+0)");

    public Task MaskIntxAsync() => SetIrqsAsync(IrqSet.None(IrqIndex.Intx, IrqAction.Mask));

    public Task UnmaskIntxAsync() => SetIrqsAsync(IrqSet.None(IrqIndex.Intx, IrqAction.Unmask));

    public async Task<(Errno Error, IrqInfo Info)> TryIrqInfoAsync(uint index, uint argsz = 16)
    {
        (Errno error, vfio_irq_info info) = await Session.TryGetAsync(Fd, VfioIoctl.VFIO_DEVICE_GET_IRQ_INFO,
            new vfio_irq_info { argsz = argsz, index = index }, $"{(IrqIndex)index}");
        return (error, new IrqInfo((IrqIndex)info.index, info.flags, info.count));
    }

    public async Task<IrqInfo> IrqInfoAsync(IrqIndex index)
    {
        (Errno error, IrqInfo info) = await TryIrqInfoAsync((uint)index);
        Vm.Expect(error, $"VFIO_DEVICE_GET_IRQ_INFO({index})");
        return info;
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

public sealed partial class Vm
{
    /// <summary>State of one interrupt controller (KVM_GET_IRQCHIP): 520 bytes, chip id first, registers from byte 8.</summary>
    /// <param name="chip">KVM_IRQCHIP_*.</param>
    public async Task<(Errno Error, byte[] State)> TryGetIrqchipAsync(uint chip)
    {
        byte[] argument = new byte[520];
        BitConverter.TryWriteBytes(argument, chip);
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_GET_IRQCHIP, argument, $"chip {chip}");
        return (answer.Error, answer.Data);
    }

    public async Task<Errno> TrySetIrqchipAsync(byte[] state) =>
        (await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_IRQCHIP, state, $"chip {BitConverter.ToUInt32(state)}")).Outcome;
}

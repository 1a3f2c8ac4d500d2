// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>Port numbers and words of the two 8259As.</summary>
public static class PicPort
{
    public const ushort MasterCommand = 0x20;
    public const ushort MasterData = 0x21;
    public const ushort SlaveCommand = 0xa0;
    public const ushort SlaveData = 0xa1;
    public const ushort MasterElcr = 0x4d0;
    public const ushort SlaveElcr = 0x4d1;
}

public sealed partial class Vm
{
    /// <param name="slave">The second PIC.</param>
    public async Task<kvm_pic_state> GetPicAsync(bool slave = false)
    {
        (Errno error, byte[] state) = await TryGetIrqchipAsync(slave ? KvmX86Const.KVM_IRQCHIP_PIC_SLAVE : KvmX86Const.KVM_IRQCHIP_PIC_MASTER);
        Expect(error, "KVM_GET_IRQCHIP(PIC)");
        return KernelSession.Read<kvm_pic_state>(state.AsSpan(IrqchipHeader));
    }

    /// <summary>Masks every pin of both PICs, so that only the I/O APIC passes a GSI on. A PIC nobody initialised masks nothing.</summary>
    public async Task MaskPicsAsync()
    {
        foreach (bool slave in new[] { false, true })
        {
            kvm_pic_state pic = await GetPicAsync(slave);
            pic.imr = 0xff;
            await SetPicAsync(pic, slave);
        }
    }

    public async Task SetPicAsync(kvm_pic_state pic, bool slave = false) =>
        Expect(await TrySetIrqchipAsync(IrqchipArgument(slave ? KvmX86Const.KVM_IRQCHIP_PIC_SLAVE : KvmX86Const.KVM_IRQCHIP_PIC_MASTER,
            KernelSession.Bytes(pic))), "KVM_SET_IRQCHIP(PIC)");
}

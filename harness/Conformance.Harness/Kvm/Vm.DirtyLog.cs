// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

public sealed partial class Vm
{
    /// <summary>KVM_GET_DIRTY_LOG: the pages of a slot written since the last call, which forgets them.</summary>
    /// <param name="slot">Made with KVM_MEM_LOG_DIRTY_PAGES.</param>
    /// <param name="pages">The slot has.</param>
    /// <returns>Their numbers in the slot, ascending.</returns>
    public async Task<IReadOnlyList<int>> GetDirtyLogAsync(uint slot, int pages)
    {
        byte[] argument = new byte[16];
        BinaryPrimitives.WriteUInt32LittleEndian(argument, slot);
        int length = (pages + 63) / 64 * 8;
        SystemCall ioctl = new SystemCall(Session.Numbers.Ioctl, $"ioctl({Fd}, {KvmIoctl.KVM_GET_DIRTY_LOG.Name}, slot {slot})")
            .Arg(Fd.Number).Arg(KvmIoctl.KVM_GET_DIRTY_LOG.Number).In(argument);
        ioctl.Pointer(0, 8, ioctl.Attach([], length, returned: true));
        CallResult call = await Session.Agent.CallAsync(ioctl);
        Expect((Errno)call.Errno, $"KVM_GET_DIRTY_LOG(slot {slot})");
        byte[] bitmap = call.Buffers[^1];
        return [.. Enumerable.Range(0, pages).Where(page => (bitmap[page / 8] & (1 << (page % 8))) != 0)];
    }
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;

namespace Conformance.Kvm;

public sealed partial class Vcpu
{
    public async Task<kvm_regs> GetRegistersAsync()
    {
        (Errno error, kvm_regs value) = await Session.TryGetAsync(Fd, KvmX86Ioctl.KVM_GET_REGS, default(kvm_regs), "");
        Vm.Expect(error, "KVM_GET_REGS");
        return value;
    }

    public async Task SetRegistersAsync(kvm_regs registers) =>
        Vm.Expect((await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_REGS, registers, $"rip 0x{registers.rip:x}")).Outcome, "KVM_SET_REGS");

    public async Task<kvm_sregs> GetSpecialRegistersAsync()
    {
        (Errno error, kvm_sregs value) = await Session.TryGetAsync(Fd, KvmX86Ioctl.KVM_GET_SREGS, default(kvm_sregs), "");
        Vm.Expect(error, "KVM_GET_SREGS");
        return value;
    }

    public async Task SetSpecialRegistersAsync(kvm_sregs registers) =>
        Vm.Expect((await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_SREGS, registers, $"cr0 0x{registers.cr0:x}")).Outcome, "KVM_SET_SREGS");

    /// <summary>The local APIC's register page: 1024 bytes, a register every 16.</summary>
    public async Task<byte[]> GetLapicAsync()
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_GET_LAPIC, new byte[1024], "");
        return answer.Ok ? answer.Data : throw new KvmException("KVM_GET_LAPIC", answer.Error);
    }

    public async Task<Errno> TrySetLapicAsync(byte[] registers) => (await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_LAPIC, registers, "")).Outcome;

    /// <summary>An MSR as user space reads it; null when KVM does not know it.</summary>
    public async Task<ulong?> GetMsrAsync(uint index)
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_GET_MSRS, Msr(index, 0), $"0x{index:x}");
        return answer is { Ok: true, Result: 1 } ? BinaryPrimitives.ReadUInt64LittleEndian(answer.Data.AsSpan(16)) : null;
    }

    /// <returns>Whether KVM took it.</returns>
    public async Task<bool> TrySetMsrAsync(uint index, ulong value) =>
        await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_MSRS, Msr(index, value), $"0x{index:x} = 0x{value:x}") is { Ok: true, Result: 1 };

    public async Task<kvm_vcpu_events> GetEventsAsync()
    {
        (Errno error, kvm_vcpu_events value) = await Session.TryGetAsync(Fd, KvmX86Ioctl.KVM_GET_VCPU_EVENTS, default(kvm_vcpu_events), "");
        Vm.Expect(error, "KVM_GET_VCPU_EVENTS");
        return value;
    }

    public async Task<Errno> TrySetEventsAsync(kvm_vcpu_events events) =>
        (await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_VCPU_EVENTS, events, $"flags 0x{events.flags:x}")).Outcome;

    private static byte[] Msr(uint index, ulong value)
    {
        byte[] msrs = new byte[8 + 16];
        msrs[0] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(msrs.AsSpan(8), index);
        BinaryPrimitives.WriteUInt64LittleEndian(msrs.AsSpan(16), value);
        return msrs;
    }
}

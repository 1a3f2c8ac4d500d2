// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>A VM's kvmclock as KVM_GET_CLOCK gives it.</summary>
/// <param name="Clock">Nanoseconds since the guest's clock was zero.</param>
/// <param name="Realtime">CLOCK_REALTIME at the same moment, in nanoseconds; null when the kernel cannot tell (no KVM_CLOCK_REALTIME).</param>
public readonly record struct KvmClock(ulong Clock, ulong? Realtime);

public sealed partial class Vm
{
    private const uint KVM_CLOCK_REALTIME = 1 << 2;

    public async Task<KvmClock> GetClockAsync()
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_GET_CLOCK, new byte[48], "");
        Expect(answer.Error, "KVM_GET_CLOCK");
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(answer.Data.AsSpan(8));
        return new KvmClock(
            BinaryPrimitives.ReadUInt64LittleEndian(answer.Data),
            (flags & KVM_CLOCK_REALTIME) != 0 ? BinaryPrimitives.ReadUInt64LittleEndian(answer.Data.AsSpan(16)) : null);
    }

    /// <summary>Sets kvmclock; it runs on from there.</summary>
    public async Task SetClockAsync(ulong nanoseconds)
    {
        byte[] argument = new byte[48];
        BinaryPrimitives.WriteUInt64LittleEndian(argument, nanoseconds);
        Expect((await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_SET_CLOCK, argument, $"{nanoseconds}")).Outcome, $"KVM_SET_CLOCK({nanoseconds})");
    }
}

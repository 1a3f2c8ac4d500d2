// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>A device made by KVM_CREATE_DEVICE, which is spoken to by attributes.</summary>
public class KvmDevice : IAsyncDisposable
{
    private const int AttributeSize = 24;

    public KvmDevice(KernelFd fd) => Fd = fd;

    public KernelFd Fd { get; }

    public KernelSession Session => Fd.Session;

    /// <summary>KVM_SET_DEVICE_ATTR.</summary>
    /// <param name="value">What the attribute's address points to; empty: the address is 0.</param>
    /// <param name="what">The attribute in words, for the journal.</param>
    public Task<Errno> TrySetAsync(uint group, ulong attribute, ReadOnlyMemory<byte> value, string what) =>
        TrySetAsync(group, attribute, value, what, 0);

    /// <param name="address">The user-space address itself, for the rules about wrong ones.</param>
    public async Task<Errno> TrySetAtAsync(uint group, ulong attribute, ulong address, string what) =>
        (Errno)(await Session.Agent.CallAsync(Call(KvmIoctl.KVM_SET_DEVICE_ATTR, what).In(Attribute(group, attribute, address)))).Errno;

    /// <summary>KVM_GET_DEVICE_ATTR into a buffer that begins with <paramref name="initial"/>.</summary>
    public async Task<(Errno Error, byte[] Value)> TryGetAsync(uint group, ulong attribute, int size, string what, ReadOnlyMemory<byte> initial = default)
    {
        SystemCall call = Call(KvmIoctl.KVM_GET_DEVICE_ATTR, what).In(Attribute(group, attribute, 0));
        call.Pointer(0, 16, call.Attach(initial.Span, size, returned: true));
        CallResult result = await Session.Agent.CallAsync(call);
        return ((Errno)result.Errno, result.Buffers[0]);
    }

    /// <inheritdoc cref="TrySetAtAsync"/>
    public async Task<Errno> TryGetAtAsync(uint group, ulong attribute, ulong address, string what) =>
        (Errno)(await Session.Agent.CallAsync(Call(KvmIoctl.KVM_GET_DEVICE_ATTR, what).In(Attribute(group, attribute, address)))).Errno;

    /// <summary>KVM_HAS_DEVICE_ATTR.</summary>
    public async Task<Errno> TryHasAsync(uint group, ulong attribute) =>
        (Errno)(await Session.Agent.CallAsync(Call(KvmIoctl.KVM_HAS_DEVICE_ATTR, $"group {group} 0x{attribute:x}").In(Attribute(group, attribute, 0)))).Errno;

    public Task<Errno> TrySetUInt32Async(uint group, ulong attribute, uint value, string what)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return TrySetAsync(group, attribute, bytes, $"{what} = 0x{value:x}");
    }

    public Task<Errno> TrySetUInt64Async(uint group, ulong attribute, ulong value, string what)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        return TrySetAsync(group, attribute, bytes, $"{what} = 0x{value:x}");
    }

    public async Task<(Errno Error, uint Value)> TryGetUInt32Async(uint group, ulong attribute, string what)
    {
        (Errno error, byte[] value) = await TryGetAsync(group, attribute, 4, what);
        return (error, BinaryPrimitives.ReadUInt32LittleEndian(value));
    }

    public async Task<(Errno Error, ulong Value)> TryGetUInt64Async(uint group, ulong attribute, string what, ulong initial = 0)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, initial);
        (Errno error, byte[] value) = await TryGetAsync(group, attribute, 8, what, bytes);
        return (error, BinaryPrimitives.ReadUInt64LittleEndian(value));
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return Fd.DisposeAsync();
    }

    public override string ToString() => Fd.Name;

    private async Task<Errno> TrySetAsync(uint group, ulong attribute, ReadOnlyMemory<byte> value, string what, ulong address)
    {
        SystemCall call = Call(KvmIoctl.KVM_SET_DEVICE_ATTR, what).In(Attribute(group, attribute, address));
        if (value.Length > 0)
        {
            call.Pointer(0, 16, call.Attach(value.Span, value.Length, returned: false));
        }

        return (Errno)(await Session.Agent.CallAsync(call)).Errno;
    }

    private SystemCall Call(Ioctl request, string what) =>
        new SystemCall(Session.Numbers.Ioctl, $"ioctl({Fd.Name}, {request.Name}, {what})").Arg(Fd.Number).Arg(request.Number);

    private static byte[] Attribute(uint group, ulong attribute, ulong address)
    {
        byte[] bytes = new byte[AttributeSize];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4), group);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), attribute);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), address);
        return bytes;
    }
}

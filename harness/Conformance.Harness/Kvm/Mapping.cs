// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>A mapping in a session's address space.</summary>
public sealed class Mapping
{
    internal Mapping(KernelSession session, ulong address, ulong length, string name)
    {
        Session = session;
        Address = address;
        Length = length;
        Name = name;
    }

    public KernelSession Session { get; }

    /// <summary>Where it begins in the session's process: the HVA that KVM is told.</summary>
    public ulong Address { get; }

    /// <summary>In bytes.</summary>
    public ulong Length { get; }

    public string Name { get; }

    public Task<byte[]> ReadAsync(ulong offset, int length) => Session.Agent.ReadAsync(Address + offset, length);

    public Task WriteAsync(ulong offset, ReadOnlyMemory<byte> data) => Session.Agent.WriteAsync(Address + offset, data);

    public async Task<byte> ReadByteAsync(ulong offset) => (await ReadAsync(offset, 1))[0];

    public async Task<ushort> ReadUInt16Async(ulong offset) => BinaryPrimitives.ReadUInt16LittleEndian(await ReadAsync(offset, 2));

    public async Task<uint> ReadUInt32Async(ulong offset) => BinaryPrimitives.ReadUInt32LittleEndian(await ReadAsync(offset, 4));

    public async Task<ulong> ReadUInt64Async(ulong offset) => BinaryPrimitives.ReadUInt64LittleEndian(await ReadAsync(offset, 8));

    public Task WriteByteAsync(ulong offset, byte value) => WriteAsync(offset, new[] { value });

    public Task WriteUInt32Async(ulong offset, uint value)
    {
        byte[] data = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        return WriteAsync(offset, data);
    }

    public Task WriteUInt64Async(ulong offset, ulong value)
    {
        byte[] data = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(data, value);
        return WriteAsync(offset, data);
    }

    /// <summary>Fills a range with one byte value.</summary>
    public Task FillAsync(ulong offset, int length, byte value)
    {
        byte[] data = new byte[length];
        data.AsSpan().Fill(value);
        return WriteAsync(offset, data);
    }

    /// <summary>Drops the pages: the next access finds zero pages, and KVM's MMU notifier was told (MADV_DONTNEED).</summary>
    public async Task DropPagesAsync(ulong offset, ulong length)
    {
        CallResult call = await Session.Agent.CallAsync(
            new SystemCall(Session.Numbers.Madvise, $"madvise({Name}+0x{offset:x}, MADV_DONTNEED)").Arg(Address + offset).Arg(length).Arg(4));
        if (call.Errno != 0)
        {
            throw new KvmException($"madvise({Name}, MADV_DONTNEED)", (Errno)call.Errno);
        }
    }

    public Task UnmapAsync() => UnmapAsync(0, Length);

    /// <summary>Unmaps a part, in whole pages: what the rules about unreadable memory want.</summary>
    public async Task UnmapAsync(ulong offset, ulong length)
    {
        CallResult call = await Session.Agent.CallAsync(
            new SystemCall(Session.Numbers.Munmap, $"munmap({Name}+0x{offset:x})").Arg(Address + offset).Arg(length));
        if (call.Errno != 0)
        {
            throw new KvmException($"munmap({Name})", (Errno)call.Errno);
        }
    }

    public override string ToString() => Name;
}

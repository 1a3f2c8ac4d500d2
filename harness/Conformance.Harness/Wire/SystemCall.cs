// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Wire;

/// <summary>A system call to be made by a session: up to six arguments, each a value or a buffer.</summary>
/// <param name="number">Of the architecture of the kernel under test.</param>
/// <param name="description">What the journal prints: <c>ioctl(vm, KVM_IRQFD, gsi 24 eventfd A)</c>.</param>
public sealed class SystemCall(uint number, string description)
{
    private const int MaxArguments = 6;

    private readonly List<(ulong Value, byte Buffer)> _arguments = [];
    private readonly List<(byte[] Content, int Capacity, bool Return)> _buffers = [];
    private readonly List<(uint Buffer, uint Offset, uint Target, uint Addend)> _pointers = [];

    public uint Number => number;

    public string Description => description;

    /// <summary>How many buffers come back.</summary>
    internal int Returned => _buffers.Count(b => b.Return);

    public SystemCall Arg(long value) => Add((ulong)value, 0xff);

    public SystemCall Arg(ulong value) => Add(value, 0xff);

    public SystemCall Arg(int value) => Add((ulong)(long)value, 0xff);

    public SystemCall Arg(uint value) => Add(value, 0xff);

    /// <summary>A buffer the kernel reads.</summary>
    public SystemCall In(ReadOnlySpan<byte> content) => AddBuffer(content.ToArray(), content.Length, false);

    /// <summary>A buffer that comes back as the kernel left it.</summary>
    /// <param name="capacity">In bytes, at least the content; what is behind it is zero.</param>
    public SystemCall InOut(ReadOnlySpan<byte> content, int capacity) => AddBuffer(content.ToArray(), capacity, true);

    /// <summary>A zeroed buffer that comes back.</summary>
    public SystemCall Out(int capacity) => AddBuffer([], capacity, true);

    /// <summary>A buffer that is no argument: something a structure points to.</summary>
    /// <returns>Its index, for <see cref="Pointer"/>. Argument buffers count too, in the order they were added.</returns>
    public int Attach(ReadOnlySpan<byte> content, int capacity, bool returned)
    {
        _buffers.Add((content.ToArray(), capacity, returned));
        return _buffers.Count - 1;
    }

    /// <summary>Stores the address of a buffer inside another one.</summary>
    public SystemCall Pointer(int inBuffer, int offset, int toBuffer, int addend = 0)
    {
        _pointers.Add(((uint)inBuffer, (uint)offset, (uint)toBuffer, (uint)addend));
        return this;
    }

    internal ReadOnlyMemory<byte> Encode()
    {
        PayloadWriter payload = new PayloadWriter().U32(number).U16((ushort)_buffers.Count).U16((ushort)_pointers.Count);
        for (int i = 0; i < MaxArguments; i++)
        {
            payload.U64(i < _arguments.Count ? _arguments[i].Value : 0);
        }

        for (int i = 0; i < MaxArguments; i++)
        {
            payload.U8(i < _arguments.Count ? _arguments[i].Buffer : (byte)0xff);
        }

        payload.U16(0);
        foreach ((byte[] content, int capacity, bool returned) in _buffers)
        {
            payload.U32((uint)capacity).U32(returned ? 1u : 0).Bytes(content);
        }

        foreach ((uint buffer, uint offset, uint target, uint addend) in _pointers)
        {
            payload.U32(buffer).U32(offset).U32(target).U32(addend);
        }

        return payload.Written;
    }

    private SystemCall Add(ulong value, byte buffer)
    {
        if (_arguments.Count == MaxArguments)
        {
            throw new InvalidOperationException("A system call has six arguments.");
        }

        _arguments.Add((value, buffer));
        return this;
    }

    private SystemCall AddBuffer(byte[] content, int capacity, bool returned)
    {
        _buffers.Add((content, capacity, returned));
        return Add(0, (byte)(_buffers.Count - 1));
    }

    public override string ToString() => description;
}

/// <summary>What a system call gave back.</summary>
/// <param name="Result">As libc would return it: -1 with <paramref name="Errno"/> set on failure.</param>
/// <param name="Errno">0 when none.</param>
/// <param name="Buffers">The returned buffers, in the order they were added.</param>
/// <param name="Elapsed">In the kernel under test.</param>
public sealed record CallResult(long Result, int Errno, byte[][] Buffers, TimeSpan Elapsed);

// SPDX-License-Identifier: MIT
namespace Conformance.Wire;

/// <summary>An argument of a system call.</summary>
/// <param name="Value">The value itself, or what is added to the address of the buffer or to the kept result.</param>
/// <param name="Buffer">Index of a buffer whose address it is; null: it is a value.</param>
/// <param name="Kept">The result of an earlier call that it is; null: it is a value.</param>
public readonly record struct CallArgument(ulong Value, int? Buffer, KeptResult? Kept = null);

/// <summary>
/// The result of a call, for later calls of its session that are made before its reply is here. It holds until 64 others have been kept.
/// </summary>
public sealed class KeptResult
{
    /// <summary>How many a session keeps.</summary>
    internal const int Places = 64;

    private const byte FirstPlace = 0x80;

    internal KeptResult(int place) => Place = (byte)place;

    internal byte Place { get; }

    /// <summary>How the wire names it where it could name a buffer.</summary>
    internal byte Base => (byte)(FirstPlace + Place);
}

/// <summary>Memory that a system call is given.</summary>
/// <param name="Content">What is in it to begin with; zero behind that.</param>
/// <param name="Capacity">In bytes.</param>
/// <param name="Returned">It comes back as the kernel left it.</param>
public readonly record struct CallBuffer(ReadOnlyMemory<byte> Content, int Capacity, bool Returned);

/// <summary>A pointer inside a buffer, to be filled in by the agent.</summary>
/// <param name="Buffer">Where it is stored.</param>
/// <param name="Offset">In that buffer, in bytes.</param>
/// <param name="Target">The buffer it points to; -1: it is a kept result.</param>
/// <param name="Addend">In the target, in bytes.</param>
/// <param name="Kept">The result of an earlier call that it is.</param>
public readonly record struct CallPointer(int Buffer, int Offset, int Target, int Addend, KeptResult? Kept = null);

/// <summary>A system call to be made by a session: up to six arguments, each a value or a buffer.</summary>
/// <param name="number">Of the architecture of the kernel under test.</param>
/// <param name="description">What the journal prints: <c>ioctl(vm, KVM_IRQFD, gsi 24 eventfd A)</c>.</param>
public sealed class SystemCall(uint number, string description)
{
    private const int MaxArguments = 6;
    private const int MaxBuffers = 64;
    private const int MaxPointers = 256;

    private readonly List<CallArgument> _arguments = new(MaxArguments);
    private readonly List<CallBuffer> _buffers = [];
    private readonly List<CallPointer> _pointers = [];
    private KeptResult? _keep;

    public uint Number => number;

    public string Description => description;

    public IReadOnlyList<CallArgument> Arguments => _arguments;

    /// <summary>Those that are arguments and those that only pointers lead to, in the order they were added.</summary>
    public IReadOnlyList<CallBuffer> Buffers => _buffers;

    public IReadOnlyList<CallPointer> Pointers => _pointers;

    /// <summary>Bytes of all that goes and comes back.</summary>
    internal long Size => _buffers.Sum(b => (long)b.Content.Length + (b.Returned ? b.Capacity : 0));

    public SystemCall Arg(long value) => Add(new CallArgument((ulong)value, null));

    public SystemCall Arg(ulong value) => Add(new CallArgument(value, null));

    public SystemCall Arg(int value) => Add(new CallArgument((ulong)(long)value, null));

    public SystemCall Arg(uint value) => Add(new CallArgument(value, null));

    /// <summary>The result of an earlier call. Where that failed this one is refused with -ECANCELED.</summary>
    public SystemCall Arg(KeptResult kept, ulong addend = 0) => Add(new CallArgument(addend, null, kept));

    /// <summary>Keeps the result for later calls.</summary>
    public SystemCall KeepAs(KeptResult kept)
    {
        _keep = kept;
        return this;
    }

    /// <summary>A buffer the kernel reads.</summary>
    public SystemCall In(ReadOnlySpan<byte> content) => AddBuffer(content.ToArray(), content.Length, false);

    /// <summary>A buffer that comes back as the kernel left it.</summary>
    /// <param name="content">What is in it to begin with.</param>
    /// <param name="capacity">In bytes, at least the content; what is behind it is zero.</param>
    public SystemCall InOut(ReadOnlySpan<byte> content, int capacity) => AddBuffer(content.ToArray(), capacity, true);

    /// <summary>A zeroed buffer that comes back.</summary>
    /// <param name="capacity">In bytes.</param>
    public SystemCall Out(int capacity) => AddBuffer(ReadOnlyMemory<byte>.Empty, capacity, true);

    /// <summary>A buffer that is no argument: something a structure points to.</summary>
    /// <returns>Its index, for <see cref="Pointer"/>. Argument buffers count too, in the order they were added.</returns>
    public int Attach(ReadOnlySpan<byte> content, int capacity, bool returned)
    {
        if (capacity < content.Length)
        {
            throw new ArgumentOutOfRangeException(nameof(capacity), capacity, $"The content has {content.Length} bytes.");
        }

        return Attach(new CallBuffer(content.ToArray(), capacity, returned));
    }

    /// <summary>Stores the address of a buffer inside another one.</summary>
    /// <param name="inBuffer">Index of the buffer that gets the pointer.</param>
    /// <param name="offset">Where in it, in bytes.</param>
    /// <param name="toBuffer">Index of the buffer it points to.</param>
    /// <param name="addend">Added to the address.</param>
    public SystemCall Pointer(int inBuffer, int offset, int toBuffer, int addend = 0)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(inBuffer, _buffers.Count);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(toBuffer, _buffers.Count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, _buffers[inBuffer].Capacity - sizeof(ulong));
        ArgumentOutOfRangeException.ThrowIfEqual(_pointers.Count, MaxPointers);
        _pointers.Add(new CallPointer(inBuffer, offset, toBuffer, addend));
        return this;
    }

    /// <summary>Stores the result of an earlier call, which is an address, inside a buffer.</summary>
    /// <param name="inBuffer">Index of the buffer that gets it.</param>
    /// <param name="offset">Where in it, in bytes.</param>
    public SystemCall Pointer(int inBuffer, int offset, KeptResult kept)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(inBuffer, _buffers.Count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, _buffers[inBuffer].Capacity - sizeof(ulong));
        ArgumentOutOfRangeException.ThrowIfEqual(_pointers.Count, MaxPointers);
        _pointers.Add(new CallPointer(inBuffer, offset, -1, 0, kept));
        return this;
    }

    /// <inheritdoc/>
    public override string ToString() => description;

    internal void WriteTo(FrameWriter payload)
    {
        payload.U32(number).U16((ushort)_buffers.Count).U16((ushort)_pointers.Count);
        for (int i = 0; i < MaxArguments; i++)
        {
            payload.U64(i < _arguments.Count ? _arguments[i].Value : 0);
        }

        for (int i = 0; i < MaxArguments; i++)
        {
            CallArgument argument = i < _arguments.Count ? _arguments[i] : default;
            payload.U8(argument.Kept?.Base ?? (argument.Buffer is int buffer ? (byte)buffer : (byte)0xff));
        }

        payload.U16((ushort)(_keep is null ? 0 : _keep.Place + 1));
        foreach (CallBuffer buffer in _buffers)
        {
            payload.U32((uint)buffer.Capacity).U32(buffer.Returned ? 1u : 0).Bytes(buffer.Content.Span);
        }

        foreach (CallPointer pointer in _pointers)
        {
            payload.U32((uint)pointer.Buffer).U32((uint)pointer.Offset).U32(pointer.Kept?.Base ?? (uint)pointer.Target).U32((uint)pointer.Addend);
        }
    }

    private SystemCall Add(CallArgument argument)
    {
        if (_arguments.Count == MaxArguments)
        {
            throw new InvalidOperationException("A system call has six arguments.");
        }

        _arguments.Add(argument);
        return this;
    }

    private SystemCall AddBuffer(ReadOnlyMemory<byte> content, int capacity, bool returned)
    {
        if (capacity < content.Length)
        {
            throw new ArgumentOutOfRangeException(nameof(capacity), capacity, $"The content has {content.Length} bytes.");
        }

        return Add(new CallArgument(0, Attach(new CallBuffer(content, capacity, returned))));
    }

    private int Attach(CallBuffer buffer)
    {
        if (_buffers.Count == MaxBuffers)
        {
            throw new InvalidOperationException("A system call has at most 64 buffers.");
        }

        _buffers.Add(buffer);
        return _buffers.Count - 1;
    }
}

/// <summary>What a system call gave back.</summary>
/// <param name="Result">As libc would return it: -1 with <paramref name="Errno"/> set on failure.</param>
/// <param name="Errno">0 when none.</param>
/// <param name="Buffers">The returned buffers, in the order they were added.</param>
/// <param name="Elapsed">In the kernel under test.</param>
public sealed record CallResult(long Result, int Errno, byte[][] Buffers, TimeSpan Elapsed)
{
    /// <inheritdoc/>
    public override string ToString() => Errno == 0 ? Result.ToString() : $"-1 {(Uapi.Errno)Errno}";

    internal static CallResult Parse(ref PayloadReader reply)
    {
        long result = reply.I64();
        int errno = reply.I32();
        int count = reply.Count(sizeof(uint));
        byte[][] buffers = count == 0 ? [] : new byte[count][];
        TimeSpan elapsed = reply.Nanoseconds();
        for (int i = 0; i < count; i++)
        {
            buffers[i] = reply.Bytes();
        }

        return new CallResult(result, errno, buffers, elapsed);
    }
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Wire;

/// <summary>
/// Builds frames one behind another, little endian, as protocol.md names the types: what is to be sent is written once, where it is sent
/// from. Not for use by several threads at a time.
/// </summary>
internal sealed class FrameWriter
{
    private const int Kept = 1 << 20;

    private byte[] _bytes = new byte[4096];
    private int _length;
    private int _frame;

    /// <summary>Bytes of whole frames and of the one that was begun.</summary>
    public int Length => _length;

    public ReadOnlyMemory<byte> Written => _bytes.AsMemory(0, _length);

    /// <summary>Begins a frame; <see cref="End"/> completes it, <see cref="TakeBack"/> removes it.</summary>
    public void Begin(FrameKind kind, ushort flags, uint session, uint sequence)
    {
        _frame = _length;
        new FrameHeader(0, kind, flags, session, sequence).WriteTo(Take(FrameHeader.Size));
    }

    /// <exception cref="ArgumentException">The payload is longer than a frame may be; the frame is not sent.</exception>
    public void End()
    {
        int length = _length - _frame - FrameHeader.Size;
        if (length > FrameHeader.MaxPayload)
        {
            throw new ArgumentException($"A request of {length} bytes is longer than the {FrameHeader.MaxPayload} that a frame may carry: make several of it.");
        }

        BinaryPrimitives.WriteInt32LittleEndian(_bytes.AsSpan(_frame + 4), length);
    }

    public void TakeBack() => _length = _frame;

    public void Clear()
    {
        _length = 0;
        if (_bytes.Length > Kept)
        {
            _bytes = new byte[4096];
        }
    }

    public FrameWriter U8(byte value)
    {
        Take(1)[0] = value;
        return this;
    }

    public FrameWriter U16(ushort value)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(Take(2), value);
        return this;
    }

    public FrameWriter U32(uint value)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(Take(4), value);
        return this;
    }

    public FrameWriter U64(ulong value)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(Take(8), value);
        return this;
    }

    /// <summary>A time in nanoseconds; longer ones than the wire can name are for ever.</summary>
    public FrameWriter Nanoseconds(TimeSpan time) => U64(time == Timeout.InfiniteTimeSpan || time.Ticks > long.MaxValue / 100
        ? ulong.MaxValue
        : (ulong)Math.Max(time.Ticks, 0) * 100);

    /// <summary>A u32 count and the bytes.</summary>
    public FrameWriter Bytes(ReadOnlySpan<byte> value)
    {
        U32((uint)value.Length);
        value.CopyTo(Take(value.Length));
        return this;
    }

    /// <summary>Bytes as they are: a payload that somebody else encoded.</summary>
    public FrameWriter Raw(ReadOnlySpan<byte> value)
    {
        value.CopyTo(Take(value.Length));
        return this;
    }

    private Span<byte> Take(int count)
    {
        if (_bytes.Length - _length < count)
        {
            Array.Resize(ref _bytes, (int)Math.Max((uint)_bytes.Length * 2, checked((uint)_length + (uint)count)));
        }

        Span<byte> taken = _bytes.AsSpan(_length, count);
        _length += count;
        return taken;
    }
}

/// <summary>Takes a payload apart; running past its end means that agent and harness disagree about the protocol.</summary>
internal ref struct PayloadReader(ReadOnlySpan<byte> payload)
{
    private ReadOnlySpan<byte> _rest = payload;

    public int Remaining => _rest.Length;

    public uint U32() => BinaryPrimitives.ReadUInt32LittleEndian(Take(4));

    public int I32() => BinaryPrimitives.ReadInt32LittleEndian(Take(4));

    public ulong U64() => BinaryPrimitives.ReadUInt64LittleEndian(Take(8));

    public long I64() => BinaryPrimitives.ReadInt64LittleEndian(Take(8));

    public byte[] Bytes() => Take(I32()).ToArray();

    public string Text() => System.Text.Encoding.UTF8.GetString(Take(I32()));

    public TimeSpan Nanoseconds() => TimeSpan.FromTicks((long)(U64() / 100));

    /// <summary>A count of items of which each takes at least <paramref name="size"/> bytes.</summary>
    public int Count(int size)
    {
        uint count = U32();
        return count <= (uint)(_rest.Length / size) ? (int)count : throw TooShort(count * (ulong)size);
    }

    private readonly AgentLostException TooShort(ulong wanted) =>
        new($"The agent's reply is too short: {wanted} bytes wanted, {_rest.Length} left. Agent and harness are of different versions: rebuild the agent.");

    private ReadOnlySpan<byte> Take(int count)
    {
        if (count < 0 || count > _rest.Length)
        {
            throw TooShort((uint)count);
        }

        ReadOnlySpan<byte> taken = _rest[..count];
        _rest = _rest[count..];
        return taken;
    }
}

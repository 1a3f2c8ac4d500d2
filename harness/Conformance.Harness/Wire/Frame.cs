// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Wire;

/// <summary>Kinds of frames; a reply is its request's kind with bit 15 set. See harness/Agent/protocol.md.</summary>
public enum FrameKind : ushort
{
    Hello = 0x0001,
    Open = 0x0002,
    Close = 0x0003,
    Call = 0x0010,
    Read = 0x0011,
    Write = 0x0012,
    Await = 0x0013,
    VcpuStart = 0x0020,
    VcpuResume = 0x0021,
    VcpuKick = 0x0022,
    VcpuStop = 0x0023,
    VcpuRecords = 0x0024,
    Program = 0x0030,
    Ended = 0x4001,
    Lost = 0x4002,
    VcpuExit = 0x4010,
}

/// <summary>The 20 bytes in front of every payload.</summary>
/// <param name="Length">Of the payload, in bytes.</param>
/// <param name="Kind">What the payload is.</param>
/// <param name="Flags"><see cref="Offload"/> or 0.</param>
/// <param name="Session">0: the supervisor.</param>
/// <param name="Sequence">Pairs a reply with its request; 0 in a notice.</param>
public readonly record struct FrameHeader(int Length, FrameKind Kind, ushort Flags, uint Session, uint Sequence)
{
    /// <summary>The bytes CFM1.</summary>
    public const uint Magic = 0x314D4643;

    /// <summary>Bytes of a header.</summary>
    public const int Size = 20;

    /// <summary>Longest payload, in bytes.</summary>
    public const int MaxPayload = 16 << 20;

    /// <summary>Flag of a request that runs on a thread of its own.</summary>
    public const ushort Offload = 1;

    /// <summary>Bit of a kind that marks a reply.</summary>
    public const ushort ReplyBit = 0x8000;

    public bool IsReply => ((ushort)Kind & ReplyBit) != 0;

    /// <param name="destination">At least <see cref="Size"/> bytes.</param>
    public void WriteTo(Span<byte> destination)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(destination, Magic);
        BinaryPrimitives.WriteInt32LittleEndian(destination[4..], Length);
        BinaryPrimitives.WriteUInt16LittleEndian(destination[8..], (ushort)Kind);
        BinaryPrimitives.WriteUInt16LittleEndian(destination[10..], Flags);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[12..], Session);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[16..], Sequence);
    }

    /// <param name="source">At least <see cref="Size"/> bytes.</param>
    /// <exception cref="AgentLostException">The bytes are no header.</exception>
    public static FrameHeader Read(ReadOnlySpan<byte> source)
    {
        uint magic = BinaryPrimitives.ReadUInt32LittleEndian(source);
        int length = BinaryPrimitives.ReadInt32LittleEndian(source[4..]);
        if (magic != Magic || length is < 0 or > MaxPayload)
        {
            throw new AgentLostException($"The agent's stream lost its framing (magic 0x{magic:x8}, length {length}).");
        }

        return new FrameHeader(
            length,
            (FrameKind)BinaryPrimitives.ReadUInt16LittleEndian(source[8..]),
            BinaryPrimitives.ReadUInt16LittleEndian(source[10..]),
            BinaryPrimitives.ReadUInt32LittleEndian(source[12..]),
            BinaryPrimitives.ReadUInt32LittleEndian(source[16..]));
    }
}

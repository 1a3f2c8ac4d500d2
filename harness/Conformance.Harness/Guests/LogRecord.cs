// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Kvm;

namespace Conformance.Guests;

/// <summary>One record of a vCPU's interrupt log.</summary>
/// <param name="Sequence">From 0, per vCPU.</param>
/// <param name="Timestamp">TSC (x86) or CNTVCT (arm64).</param>
public readonly record struct LogRecord(LogRecordKind Kind, int Vcpu, uint Sequence, ulong Value, ulong Extra, ulong Timestamp)
{
    private const uint NoCommand = uint.MaxValue;

    /// <summary>Of an interrupt.</summary>
    public ApicVector Vector => new((byte)Value);

    /// <summary>Of an interrupt on arm64.</summary>
    public IntId IntId => new((uint)Value);

    /// <summary>Of an event channel.</summary>
    public uint Port => (uint)Value;

    /// <summary>Of an interrupt or NMI: the command that was being run, null between scripts.</summary>
    public int? Position => (uint)Extra == NoCommand ? null : (int)(uint)Extra;

    /// <summary>Of an interrupt or NMI: handlers on the stack, this one included.</summary>
    public int Depth => (byte)(Extra >> 32);

    /// <summary>Of an interrupt or NMI: it came while the guest was at CPL3.</summary>
    public bool FromUser => ((Extra >> 40) & 1) != 0;

    /// <summary>
    /// Of an interrupt or NMI: it came between <c>sti</c> and the <c>hlt</c> of a HALT command, which was then skipped. Only an NMI may,
    /// unless the machine loses the interrupt shadow (QEMU's SVM does).
    /// </summary>
    public bool BeforeHalt => ((Extra >> 41) & 1) != 0;

    /// <summary>Of an upcall: evtchn_upcall_pending as it was.</summary>
    public byte UpcallPending => (byte)Extra;

    /// <summary>Of an upcall: evtchn_upcall_mask as it was.</summary>
    public byte UpcallMask => (byte)(Extra >> 8);

    public override string ToString() => Kind switch
    {
        LogRecordKind.Interrupt => $"taken 0x{Value:x2}",
        LogRecordKind.EventChannel => $"port {Value} pending (word 0x{Extra:x})",
        LogRecordKind.Exception => $"{((X86Exception)Value).Mnemonic()} error 0x{Extra:x}",
        LogRecordKind.Nmi => "taken NMI",
        LogRecordKind.Fiq => $"taken {IntId} as FIQ",
        LogRecordKind.Mark => $"mark 0x{Value:x} 0x{Extra:x}",
        LogRecordKind.Action => $"read 0x{Value:x} from 0x{Extra:x}",
        LogRecordKind.Upcall => $"upcall pending {UpcallPending} mask {UpcallMask} selector 0x{Value:x}",
        _ => $"kind {(ushort)Kind} 0x{Value:x} 0x{Extra:x}",
    };

    internal static LogRecord Parse(ReadOnlySpan<byte> bytes) => new(
        (LogRecordKind)BinaryPrimitives.ReadUInt16LittleEndian(bytes),
        BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]),
        BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[24..]));
}

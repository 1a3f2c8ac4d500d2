// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Guests;

/// <summary>The exception a guest died of.</summary>
public sealed record GuestDeath(ulong Vector, ulong ErrorCode, ulong ProgramCounter, ulong Address)
{
    public override string ToString()
    {
        string name = Vector < 32 ? ((X86Exception)Vector).Mnemonic() : $"vector {Vector}";
        return $"{name} error 0x{ErrorCode:x} at pc 0x{ProgramCounter:x}" + (Vector == (byte)X86Exception.PageFault ? $", address 0x{Address:x}" : "");
    }
}

/// <summary>A vCPU's control page as the guest left it.</summary>
/// <param name="Commands">Length of the script that was given.</param>
/// <param name="Position">Command being run, or <see cref="Commands"/> when the script is over.</param>
/// <param name="Records">Log records ever written.</param>
/// <param name="Death">Only in <see cref="GuestState.Died"/>.</param>
/// <param name="Repeated">
/// x86: interrupts that came while interrupts were off, which is to say delivered twice over. QEMU's SVM does that, often; on any other machine
/// it is the kernel's fault. They are neither counted nor handled.
/// </param>
/// <param name="Counters">Eight, for handler actions to add to.</param>
public sealed record GuestControl(GuestState State, int Commands, int Position, int Index, ulong Records, GuestDeath? Death, uint Repeated, IReadOnlyList<ulong> Counters)
{
    /// <summary>Bytes from the start of the control page that <see cref="Parse"/> needs.</summary>
    public const int Length = 0x80;

    public static GuestControl Parse(ReadOnlySpan<byte> page)
    {
        var state = (GuestState)BinaryPrimitives.ReadUInt32LittleEndian(page);
        var counters = new ulong[GuestProtocol.Counters];
        for (int n = 0; n < counters.Length; n++)
        {
            counters[n] = BinaryPrimitives.ReadUInt64LittleEndian(page[(GuestProtocol.ControlCounters + (n * 8))..]);
        }

        GuestDeath? death = state != GuestState.Died ? null : new GuestDeath(
            BinaryPrimitives.ReadUInt64LittleEndian(page[0x18..]),
            BinaryPrimitives.ReadUInt64LittleEndian(page[0x20..]),
            BinaryPrimitives.ReadUInt64LittleEndian(page[0x28..]),
            BinaryPrimitives.ReadUInt64LittleEndian(page[0x30..]));
        return new GuestControl(
            state,
            BinaryPrimitives.ReadInt32LittleEndian(page[4..]),
            BinaryPrimitives.ReadInt32LittleEndian(page[8..]),
            BinaryPrimitives.ReadInt32LittleEndian(page[12..]),
            BinaryPrimitives.ReadUInt64LittleEndian(page[0x10..]),
            death,
            BinaryPrimitives.ReadUInt32LittleEndian(page[0x38..]),
            counters);
    }

    /// <summary>How often each vector was taken.</summary>
    /// <param name="taken">256 u32, from <see cref="GuestLayout.Taken"/> of vector 0.</param>
    public static uint[] ParseTaken(ReadOnlySpan<byte> taken)
    {
        var counts = new uint[GuestProtocol.Vectors];
        for (int n = 0; n < counts.Length; n++)
        {
            counts[n] = BinaryPrimitives.ReadUInt32LittleEndian(taken[(n * 4)..]);
        }

        return counts;
    }

    public override string ToString() => $"vCPU {Index}: " + State switch
    {
        GuestState.NotEntered => "not entered",
        GuestState.Waiting => "waiting for a script",
        GuestState.Running => $"at command {Position} of {Commands}",
        _ => $"died at command {Position} of {Commands}: {Death}",
    } + $", {Records} records";
}

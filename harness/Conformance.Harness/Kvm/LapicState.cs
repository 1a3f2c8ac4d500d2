// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kvm;

/// <summary>The registers of a local APIC as KVM_GET_LAPIC gives them: 1024 bytes, a register every 16.</summary>
public sealed class LapicState(byte[] registers)
{
    public const int Id = 0x20;
    public const int TaskPriority = 0x80;
    public const int LogicalDestination = 0xd0;
    public const int DestinationFormat = 0xe0;
    public const int SpuriousVector = 0xf0;
    public const int InService = 0x100;
    public const int TriggerMode = 0x180;
    public const int Request = 0x200;
    public const int LvtTimer = 0x320;
    public const int LvtLint0 = 0x350;
    public const int TimerInitialCount = 0x380;
    public const int TimerDivide = 0x3e0;

    /// <summary>Enabled in <see cref="SpuriousVector"/>, spurious vector 0xff.</summary>
    public const uint SoftwareEnable = 0x1ff;

    /// <summary>EOIs are not broadcast to I/O APICs; a bit of <see cref="SpuriousVector"/>.</summary>
    public const uint SuppressEoiBroadcast = 1 << 12;

    public const uint FlatModel = 0xffffffff;
    public const uint ClusterModel = 0x0fffffff;

    public byte[] Registers { get; } = registers;

    /// <summary>A register by its xAPIC offset.</summary>
    public uint this[int offset]
    {
        get => BinaryPrimitives.ReadUInt32LittleEndian(Registers.AsSpan(offset));
        set => BinaryPrimitives.WriteUInt32LittleEndian(Registers.AsSpan(offset), value);
    }

    /// <summary>The vectors of a 256-bit register, lowest first.</summary>
    /// <param name="bank"><see cref="InService"/>, <see cref="TriggerMode"/> or <see cref="Request"/>.</param>
    public IReadOnlyList<ApicVector> Vectors(int bank) =>
        [.. Enumerable.Range(0, 256).Where(v => ((this[bank + (v / 32 * 16)] >> (v % 32)) & 1) != 0).Select(v => new ApicVector((byte)v))];

    public void SetVector(int bank, ApicVector vector, bool value = true)
    {
        int offset = bank + (vector.Value / 32 * 16);
        uint bit = 1u << (vector.Value % 32);
        this[offset] = value ? this[offset] | bit : this[offset] & ~bit;
    }
}

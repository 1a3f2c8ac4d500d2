// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>One redirection entry of an I/O APIC, as 64 bits; the initialisers set its fields.</summary>
public readonly record struct RedirectionEntry(ulong Bits)
{
    /// <summary>Masked and otherwise zero: every entry of a new I/O APIC.</summary>
    public static RedirectionEntry Masked { get; } = new(1ul << 16);

    /// <summary>Bits 7:0.</summary>
    public ApicVector Vector
    {
        get => new((byte)Bits);
        init => Bits = (Bits & ~0xfful) | value.Value;
    }

    /// <summary>Bits 10:8.</summary>
    public ApicDeliveryMode DeliveryMode
    {
        get => (ApicDeliveryMode)((Bits >> 8) & 7);
        init => Bits = (Bits & ~(7ul << 8)) | ((ulong)value << 8);
    }

    /// <summary>Bit 11: the destination is logical.</summary>
    public bool Logical
    {
        get => Bit(11);
        init => Bits = With(11, value);
    }

    /// <summary>Bit 12, read-only to the guest.</summary>
    public bool DeliveryStatus
    {
        get => Bit(12);
        init => Bits = With(12, value);
    }

    /// <summary>Bit 13: active low.</summary>
    public bool ActiveLow
    {
        get => Bit(13);
        init => Bits = With(13, value);
    }

    /// <summary>Bit 14, read-only to the guest: delivered and not acknowledged.</summary>
    public bool RemoteIrr
    {
        get => Bit(14);
        init => Bits = With(14, value);
    }

    /// <summary>Bit 15: level-triggered.</summary>
    public bool Level
    {
        get => Bit(15);
        init => Bits = With(15, value);
    }

    /// <summary>Bit 16.</summary>
    public bool IsMasked
    {
        get => Bit(16);
        init => Bits = With(16, value);
    }

    /// <summary>Bits 63:56.</summary>
    public byte Destination
    {
        get => (byte)(Bits >> 56);
        init => Bits = (Bits & ~(0xfful << 56)) | ((ulong)value << 56);
    }

    /// <summary>What is written to the even register.</summary>
    public uint Low => (uint)Bits;

    /// <summary>What is written to the odd register.</summary>
    public uint High => (uint)(Bits >> 32);

    /// <summary>Edge-triggered, fixed, physical, not masked.</summary>
    public static RedirectionEntry Edge(ApicVector vector, byte destination = 0) => new(0) { Vector = vector, Destination = destination };

    /// <summary>Level-triggered, fixed, physical, not masked.</summary>
    public static RedirectionEntry LevelTriggered(ApicVector vector, byte destination = 0) => Edge(vector, destination) with { Level = true };

    public override string ToString() => $"{Vector} {DeliveryMode} {(Logical ? "logical" : "physical")} 0x{Destination:x2} {(Level ? "level" : "edge")}"
        + (IsMasked ? " masked" : "") + (RemoteIrr ? " remote-irr" : "") + (ActiveLow ? " low" : "") + (DeliveryStatus ? " pending" : "");

    private bool Bit(int bit) => ((Bits >> bit) & 1) != 0;

    private ulong With(int bit, bool value) => (Bits & ~(1ul << bit)) | (value ? 1ul << bit : 0);
}

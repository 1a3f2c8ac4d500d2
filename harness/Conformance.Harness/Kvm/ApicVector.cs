// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>A local APIC interrupt vector, 0x00-0xff. Never an MSI-X table entry, which VFIO also calls a vector.</summary>
public readonly record struct ApicVector(byte Value) : IComparable<ApicVector>
{
    public int CompareTo(ApicVector other) => Value.CompareTo(other.Value);

    public override string ToString() => $"0x{Value:x2}";

    public static implicit operator byte(ApicVector vector) => vector.Value;
}

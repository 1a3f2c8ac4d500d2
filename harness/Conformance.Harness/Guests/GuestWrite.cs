// SPDX-License-Identifier: MIT
namespace Conformance.Guests;

/// <summary>Bytes to be put into guest memory.</summary>
/// <param name="Address">Guest-physical.</param>
public readonly record struct GuestWrite(ulong Address, byte[] Bytes)
{
    public override string ToString() => $"0x{Address:x8} {Bytes.Length} bytes";
}

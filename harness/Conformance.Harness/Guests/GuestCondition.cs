// SPDX-License-Identifier: MIT
namespace Conformance.Guests;

/// <summary>What a guest waits for in memory: <c>(memory &amp; Mask) Comparison Value</c>, unsigned.</summary>
public readonly record struct GuestCondition(ulong Address, Comparison Comparison, ulong Value, AccessWidth Width = AccessWidth.Dword, ulong Mask = ulong.MaxValue)
{
    public override string ToString()
    {
        string sign = Comparison switch
        {
            Comparison.Equal => "==",
            Comparison.NotEqual => "!=",
            Comparison.AtLeast => ">=",
            _ => "<",
        };
        string mask = Mask == ulong.MaxValue ? "" : $" & 0x{Mask:x}";
        return $"[0x{Address:x}].{(int)Width}{mask} {sign} 0x{Value:x}";
    }
}

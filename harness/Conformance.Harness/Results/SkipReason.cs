// SPDX-License-Identifier: MIT
using System.Diagnostics.CodeAnalysis;

namespace Conformance.Results;

/// <summary>The only three reasons for which a claim may be skipped.</summary>
public enum SkipKind
{
    /// <summary>The kernel says it does not have a capability.</summary>
    CapabilityAbsent,

    /// <summary>This machine does not have the hardware, real or emulated.</summary>
    HardwareAbsent,

    /// <summary>The kernel is older than a named change.</summary>
    KernelPredates,
}

/// <summary>
/// Why a claim was skipped: the kind, what the claim needs, and the value that was seen. The text form is
/// <c>capability-absent: needs KVM_XEN_HVM_CONFIG_EVTCHN_SEND; KVM_CAP_XEN_HVM = 0x1f</c>.
/// </summary>
/// <param name="Kind">Which of the three reasons.</param>
/// <param name="Needs">What the claim needs, by the kernel's own name for it.</param>
/// <param name="Seen">The value that was seen, with the name of what was asked.</param>
public sealed record SkipReason(SkipKind Kind, string Needs, string Seen)
{
    private const string NeedsWord = ": needs ";

    /// <summary>The machine-readable prefix of a kind.</summary>
    /// <param name="kind">The kind.</param>
    public static string Prefix(SkipKind kind) => kind switch
    {
        SkipKind.CapabilityAbsent => "capability-absent",
        SkipKind.HardwareAbsent => "hardware-absent",
        SkipKind.KernelPredates => "kernel-predates",
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, null),
    };

    /// <summary>Reads the text form back.</summary>
    /// <param name="text">A reason as <see cref="ToString"/> wrote it.</param>
    /// <param name="reason">The reason, when the text is one.</param>
    /// <returns>False for any other text: a skip without one of the three reasons is not a skip.</returns>
    public static bool TryParse(string? text, [NotNullWhen(true)] out SkipReason? reason)
    {
        reason = null;
        foreach (SkipKind kind in Enum.GetValues<SkipKind>())
        {
            string start = Prefix(kind) + NeedsWord;
            if (text is null || !text.StartsWith(start, StringComparison.Ordinal))
            {
                continue;
            }

            int separator = text.IndexOf("; ", start.Length, StringComparison.Ordinal);
            if (separator <= start.Length || separator + 2 >= text.Length)
            {
                return false;
            }

            reason = new SkipReason(kind, text[start.Length..separator], text[(separator + 2)..]);
            return true;
        }

        return false;
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Prefix(Kind)}{NeedsWord}{Needs}; {Seen}";
}

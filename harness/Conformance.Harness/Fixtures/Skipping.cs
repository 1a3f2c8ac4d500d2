// SPDX-License-Identifier: MIT
using System.Diagnostics.CodeAnalysis;
using Conformance.Results;
using Xunit.Sdk;

namespace Conformance.Fixtures;

/// <summary>Ends a test as skipped, for one of the three reasons there are.</summary>
public static class Skipping
{
    /// <summary>Skips the current test.</summary>
    /// <param name="reason">Why, with the value seen.</param>
    [DoesNotReturn]
    public static void Because(SkipReason reason) => throw SkipException.ForSkip(reason.ToString());

    /// <summary>Skips the current test unless the kernel has a capability.</summary>
    /// <param name="present">Whether it has.</param>
    /// <param name="needs">The capability's or flag's name, as the uapi headers spell it.</param>
    /// <param name="seen">What was asked and what came back, for example <c>KVM_CAP_XEN_HVM = 0x1f</c>.</param>
    public static void UnlessCapability([DoesNotReturnIf(false)] bool present, string needs, string seen) =>
        Unless(present, SkipKind.CapabilityAbsent, needs, seen);

    /// <summary>Skips the current test unless this machine has the hardware.</summary>
    /// <param name="present">Whether it has.</param>
    /// <param name="needs">The hardware, for example <c>posted interrupts</c>.</param>
    /// <param name="seen">What was looked at and what it said.</param>
    public static void UnlessHardware([DoesNotReturnIf(false)] bool present, string needs, string seen) =>
        Unless(present, SkipKind.HardwareAbsent, needs, seen);

    /// <summary>Skips the current test unless the kernel has a named change.</summary>
    /// <param name="present">Whether it has.</param>
    /// <param name="change">The change's name in <c>suites/changes.tsv</c>.</param>
    /// <param name="seen">How that was decided, for example <c>release 6.12.117</c>.</param>
    public static void UnlessChange([DoesNotReturnIf(false)] bool present, string change, string seen) =>
        Unless(present, SkipKind.KernelPredates, change, seen);

    private static void Unless([DoesNotReturnIf(false)] bool present, SkipKind kind, string needs, string seen)
    {
        if (!present)
        {
            Because(new SkipReason(kind, needs, seen));
        }
    }
}

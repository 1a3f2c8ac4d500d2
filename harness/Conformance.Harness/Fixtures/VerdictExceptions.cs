// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>The kernel under test died, or reported a fault of its own: the verdict is Crash.</summary>
/// <param name="title">The report's title, for example <c>KASAN: use-after-free Read in kvm_xen_set_evtchn</c>.</param>
/// <param name="report">The report itself, as the console had it; null when nothing was printed.</param>
/// <param name="innerException">What the test noticed of it, if anything.</param>
public sealed class KernelCrashException(string title, string? report = null, Exception? innerException = null)
    : Exception(report is null ? title : $"{title}\n{report}", innerException)
{
    /// <summary>The report as the console had it; null when nothing was printed.</summary>
    public string? Report { get; } = report;
}

/// <summary>The kernel under test, or a guest on it, gave no answer before the deadline: the verdict is Hang.</summary>
/// <param name="message">What was waited for, and how long.</param>
/// <param name="innerException">The expired operation, if there is one.</param>
public sealed class HangException(string message, Exception? innerException = null)
    : Exception(message, innerException);

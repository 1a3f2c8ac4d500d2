// SPDX-License-Identifier: MIT

namespace Conformance.Targets;

/// <summary>How a target came to its end.</summary>
public enum TargetEnd
{
    /// <summary>The kernel said that it is dying: a panic, an oops, an exception it could not handle.</summary>
    KernelDied,

    /// <summary>The kernel stopped answering and said nothing.</summary>
    KernelHung,

    /// <summary>What carries the kernel ended (QEMU killed, agent gone) and the kernel had said nothing: nobody's claim is at fault.</summary>
    Lost,

    /// <summary>It was asked to end.</summary>
    ShutDown,
}

/// <summary>Why a target is gone, with the evidence.</summary>
/// <param name="End">Which kind of end.</param>
/// <param name="Reason">One line for people.</param>
/// <param name="ConsoleExcerpt">The report the kernel printed, or the last lines of its console.</param>
/// <param name="Report">The kernel's own report, when it made one.</param>
public sealed record TargetDeath(TargetEnd End, string Reason, string ConsoleExcerpt, KernelReport? Report = null)
{
    /// <summary>Registers of the processors and the like, gathered before the target was ended; null when nothing could be asked.</summary>
    public string? Evidence { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Reason;
}

// SPDX-License-Identifier: MIT

namespace Conformance.Targets;

/// <summary>What a report means for the kernel that printed it.</summary>
public enum Severity
{
    /// <summary>A claim of the kernel against itself is broken; it runs on.</summary>
    Warning,

    /// <summary>The kernel is gone, or no longer to be trusted: boot another.</summary>
    Dead,
}

/// <summary>One complaint of the kernel about itself.</summary>
/// <param name="Severity">Whether the kernel survived it.</param>
/// <param name="Title">One line that is the same each time this happens: <c>WARNING in kvm_set_routing_entry</c>.</param>
/// <param name="Text">The lines as the console had them, without carriage returns.</param>
/// <param name="Fingerprint">The first five functions on the stack, innermost first, joined with <c>:</c>; the title where there is no stack.</param>
public sealed record KernelReport(Severity Severity, string Title, string Text, string Fingerprint)
{
    /// <summary>The last mark before the report began; null when there was none.</summary>
    public string? During { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Title;
}

// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>
/// Names the kernel commit that made a claim true. Silent on a pass; on a failure the hint that the kernel may lack it.
/// It never changes a verdict.
/// </summary>
/// <param name="commit">Commit id in the mainline tree, twelve digits or more.</param>
/// <param name="subject">The commit's subject line.</param>
[AttributeUsage(AttributeTargets.Method, AllowMultiple = true)]
public sealed class FixedByAttribute(string commit, string subject) : Attribute
{
    /// <summary>Commit id in the mainline tree.</summary>
    public string Commit { get; } = commit;

    /// <summary>The commit's subject line.</summary>
    public string Subject { get; } = subject;
}

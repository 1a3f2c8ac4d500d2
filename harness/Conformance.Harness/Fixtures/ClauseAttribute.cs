// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>Ties a claim to a rule of <c>suites/clauses</c>.</summary>
/// <param name="id">The rule's id, for example <c>kvm-irqfd/deassign/drains</c>.</param>
[AttributeUsage(AttributeTargets.Method | AttributeTargets.Class, AllowMultiple = true)]
public sealed class ClauseAttribute(string id) : Attribute
{
    /// <summary>The rule's id.</summary>
    public string Id { get; } = id;
}

// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>
/// Marks a test that must fail, because it is given a deliberately wrong route or guest: the proof that a suite can turn red.
/// Normal runs leave it out; <c>conformance run --negative-controls</c> runs only these, and there a failed assertion is the Pass.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class NegativeControlAttribute : Attribute;

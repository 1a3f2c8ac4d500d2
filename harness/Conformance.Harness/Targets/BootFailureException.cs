// SPDX-License-Identifier: MIT
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>A kernel was started and did not come as far as its first test: it died, hung, or its machine was lost.</summary>
/// <param name="message">What it was doing and the end of its console.</param>
/// <param name="death">How it ended.</param>
/// <param name="inner">What was noticed of it.</param>
public sealed class BootFailureException(string message, TargetDeath death, Exception? inner = null) : MachineFaultException(message, inner)
{
    /// <summary>How it ended.</summary>
    public TargetDeath Death { get; } = death;
}

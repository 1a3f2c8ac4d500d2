// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>A call that a claim needed to succeed did not.</summary>
/// <param name="call">Name and arguments as the journal prints them.</param>
/// <param name="error">What the kernel answered.</param>
/// <param name="hint">What else is known, for example that the VM is dead.</param>
public sealed class KvmException(string call, Errno error, string? hint = null)
    : Exception($"{call} failed: {error} ({(int)error}){(hint is null ? "" : "; " + hint)}"), IAssertionException
{
    public Errno Error { get; } = error;

    public string Call { get; } = call;
}

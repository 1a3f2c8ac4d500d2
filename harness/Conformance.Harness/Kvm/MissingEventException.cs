// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>xunit's convention: an exception with an interface of this name is a broken claim, not a broken test.</summary>
internal interface IAssertionException;

/// <summary>Something that the kernel had to bring about did not happen while it went on answering.</summary>
public sealed class MissingEventException(string message) : Exception(message), IAssertionException;

/// <summary>A vCPU came back to user space for a reason that the claim rules out.</summary>
public sealed class UnexpectedExitException(string message) : Exception(message), IAssertionException;

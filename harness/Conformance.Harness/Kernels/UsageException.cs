// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>
/// The request itself cannot be carried out: a kernel, module or option that does not exist or does not fit.
/// The message says what to do; the command line exits with 64.
/// </summary>
public sealed class UsageException(string message, Exception? inner = null) : Exception(message, inner);

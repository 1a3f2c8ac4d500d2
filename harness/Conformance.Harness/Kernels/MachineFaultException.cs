// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>
/// The machine could not do what a sound request needs: no network, no space, a missing tool.
/// Says nothing about the kernel under test; the command line exits with 4.
/// </summary>
public class MachineFaultException(string message, Exception? inner = null) : Exception(message, inner);

// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>One loadable module of a kernel.</summary>
/// <param name="Name">The kernel's own name, with underscores: <c>kvm_amd</c>.</param>
/// <param name="Path">Where the agent finds it in the kernel under test: <c>/modules/kvm-amd.ko</c>.</param>
/// <param name="Sha256">Lower-case hex digest of the uncompressed module as it was built.</param>
/// <param name="Overridden">It came from <c>--module</c>, not from the kernel.</param>
public sealed record KernelModule(string Name, string Path, string Sha256, bool Overridden)
{
    /// <summary>
    /// A file of this machine that is written to <see cref="Path"/> before the module is loaded; null when the initramfs has it. So every
    /// build of a module is loaded into the one booted kernel that is kept.
    /// </summary>
    public string? Upload { get; init; }
}

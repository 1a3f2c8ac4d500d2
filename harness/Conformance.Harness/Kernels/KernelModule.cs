// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>One loadable module in the initramfs.</summary>
/// <param name="Name">The kernel's own name, with underscores: <c>kvm_amd</c>.</param>
/// <param name="PathInInitramfs">Where the agent finds it: <c>/modules/kvm-amd.ko</c>.</param>
/// <param name="Sha256">Lower-case hex digest of the uncompressed module as it was built.</param>
/// <param name="Overridden">It came from <c>--module</c>, not from the kernel.</param>
public sealed record KernelModule(string Name, string PathInInitramfs, string Sha256, bool Overridden);

// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>The modules the suites and the agent use; a kernel that lacks one is tested without it.</summary>
internal static class WantedModules
{
    /// <summary>Without these, where they are not built in, the agent has no way to speak.</summary>
    public static IReadOnlyList<string> Boot { get; } = ["virtio_pci", "virtio_console"];

    private static readonly string[] s_common =
        ["irqbypass", "vfio_pci", "vfio_iommu_type1", "iommufd", "vdpa", "vdpa_sim", "vdpa_sim_net", "vhost_vdpa"];

    private static readonly string[] s_x86 = ["kvm", "kvm_amd", "kvm_intel", "msr"];

    /// <summary>All roots for an architecture, in the order they are wanted.</summary>
    public static IReadOnlyList<string> For(KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64
            ? [.. Boot, .. s_x86, .. s_common]
            : [.. Boot, "kvm", .. s_common];

    /// <summary>
    /// Whether a module of a package is kept in the cache although nobody asked for it yet: what a later version of the suites,
    /// or a developer's --module, is likely to want without fetching a hundred megabytes again.
    /// </summary>
    /// <param name="path">Relative to the module directory: <c>kernel/drivers/vfio/vfio.ko.xz</c>.</param>
    public static bool IsWorthKeeping(string path)
    {
        string[] parts = path.Split('/');
        return (path.StartsWith("kernel/arch/", StringComparison.Ordinal) && parts.Length > 4 && parts[3] == "kvm")
            || path.StartsWith("kernel/virt/", StringComparison.Ordinal)
            || path.StartsWith("kernel/drivers/vfio/", StringComparison.Ordinal)
            || path.StartsWith("kernel/drivers/iommu/", StringComparison.Ordinal)
            || path.StartsWith("kernel/drivers/vdpa/", StringComparison.Ordinal)
            || path.StartsWith("kernel/drivers/vhost/", StringComparison.Ordinal)
            || path.StartsWith("kernel/drivers/virtio/", StringComparison.Ordinal)
            || path.StartsWith("kernel/drivers/crypto/ccp/", StringComparison.Ordinal)
            || ModuleName.Canonical(path) is "msr" or "cpuid" or "virtio_console" or "rng_core";
    }
}

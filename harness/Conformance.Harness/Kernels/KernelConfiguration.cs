// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Kernels;

/// <summary>A kernel's <c>.config</c>.</summary>
internal sealed partial class KernelConfiguration
{
    private static readonly (string Option, KernelArchitecture? Architecture, string Consequence)[] s_advised =
    [
        ("SERIAL_8250_CONSOLE", KernelArchitecture.X86_64, "what the kernel prints when it crashes is not seen"),
        ("SERIAL_AMBA_PL011_CONSOLE", KernelArchitecture.Arm64, "what the kernel prints when it crashes is not seen"),
        ("KVM", null, "every claim about KVM is skipped"),
        ("KVM_AMD", KernelArchitecture.X86_64, "there is no KVM in an emulated machine, whose processor has SVM"),
        ("VFIO_PCI", null, "every claim about VFIO is skipped"),
        ("INTEL_IOMMU", KernelArchitecture.X86_64, "the emulated machine has no IOMMU for VFIO"),
        ("IRQ_REMAP", KernelArchitecture.X86_64, "VFIO refuses interrupts without remapping"),
        ("ARM_SMMU_V3", KernelArchitecture.Arm64, "the emulated machine has no IOMMU for VFIO"),
    ];

    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);

    private KernelConfiguration(IEnumerable<string> lines)
    {
        foreach (string line in lines)
        {
            Match match = Assignment().Match(line);
            if (match.Success)
            {
                _values[match.Groups[1].Value] = match.Groups[2].Value;
            }
        }
    }

    /// <summary>Options without which the agent cannot run or be spoken to, and which are off.</summary>
    public IReadOnlyList<string> Obstacles =>
        [.. new[] { "BLK_DEV_INITRD", "BINFMT_ELF", "PCI", "VIRTIO_PCI", "VIRTIO_CONSOLE" }.Where(option => this[option] == 'n').Select(option => $"CONFIG_{option}")];

    /// <summary>How an option was chosen: <c>y</c>, <c>m</c> or <c>n</c>.</summary>
    /// <param name="option">Without <c>CONFIG_</c>.</param>
    public char this[string option] => _values.TryGetValue(option, out string? value) && value is "y" or "m" ? value[0] : 'n';

    public static KernelConfiguration Read(string path) => new(File.ReadLines(path));

    public static KernelConfiguration Parse(string text) => new(text.Split('\n'));

    /// <summary>Options that are off and leave less to test, each with what follows.</summary>
    public IReadOnlyList<string> Doubts(KernelArchitecture architecture) =>
    [
        .. s_advised
            .Where(a => (a.Architecture is null || a.Architecture == architecture) && this[a.Option] == 'n')
            .Select(a => $"CONFIG_{a.Option} is off: {a.Consequence}"),
    ];

    [GeneratedRegex("^CONFIG_([A-Za-z0-9_]+)=(.*?)\r?$")]
    private static partial Regex Assignment();
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>QEMU's arguments for one architecture. Every part can be saved and restored.</summary>
internal abstract record MachineLine
{
    public static MachineLine For(KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64 ? new X86MachineLine() : new Arm64MachineLine();

    public abstract string Program { get; }

    public abstract string Package { get; }

    protected abstract IEnumerable<string> Machine(MachineOptions options);

    protected abstract string KernelArguments(MachineOptions options);

    /// <summary>Everything but the channels, which differ from start to start and are no part of the machine.</summary>
    public IReadOnlyList<string> Arguments(MachineOptions options, string image, string initramfs)
    {
        var line = new List<string>(Machine(options))
        {
            "-smp", $"{options.Processors}", "-m", $"{options.MemoryMiB}M",
            "-display", "none", "-nodefaults", "-no-reboot", "-no-user-config",
            "-device", "virtio-serial-pci,id=channels", "-device", "virtserialport,chardev=agent,name=agent.0",
            "-kernel", image, "-initrd", initramfs,
            "-append", $"panic=-1 quiet {KernelArguments(options)} {string.Join(' ', options.ExtraKernelArguments)}".TrimEnd(),
        };
        for (int i = 0; i < options.Devices.Count; i++)
        {
            // An empty romfile: the firmware would otherwise run the option ROM, which costs seconds.
            string device = options.Devices[i];
            bool network = device.StartsWith("e1000", StringComparison.Ordinal) || device.StartsWith("igb", StringComparison.Ordinal);
            line.AddRange(["-device", $"pcie-root-port,id=port{i},slot={i + 1},chassis={i + 1}", "-device", $"{device},bus=port{i}{(network ? ",romfile=" : "")}"]);
        }

        return line;
    }

    private sealed record X86MachineLine : MachineLine
    {
        public override string Program => "qemu-system-x86_64";

        public override string Package => "qemu-system-x86";

        // thread=single: QEMU 7.2's multi-threaded TCG breaks while a kernel patches itself. intel-iommu: amd-iommu cannot be saved.
        protected override IEnumerable<string> Machine(MachineOptions options)
        {
            yield return "-M";
            yield return "q35,kernel-irqchip=split";
            yield return "-accel";
            yield return "tcg,thread=single";
            yield return "-cpu";
            yield return "EPYC,+svm,+npt";
            if (options.Iommu)
            {
                yield return "-device";
                yield return "intel-iommu,intremap=on";
            }
        }

        protected override string KernelArguments(MachineOptions options) =>
            "console=ttyS0 mitigations=off" + (options.Iommu ? " intel_iommu=on" : "");
    }

    private sealed record Arm64MachineLine : MachineLine
    {
        public override string Program => "qemu-system-aarch64";

        public override string Package => "qemu-system-arm";

        protected override IEnumerable<string> Machine(MachineOptions options)
        {
            yield return "-M";
            yield return "virt,virtualization=on,gic-version=4" + (options.Iommu ? ",iommu=smmuv3" : "");
            yield return "-accel";
            yield return "tcg,thread=single";
            yield return "-cpu";
            yield return "max";
        }

        protected override string KernelArguments(MachineOptions options) => "console=ttyAMA0 kvm-arm.vgic_v4_enable=1";
    }
}

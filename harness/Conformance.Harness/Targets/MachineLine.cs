// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>The memory of a machine that is to be saved, or was.</summary>
/// <param name="File">Holds it, page for page.</param>
/// <param name="Shared">The machine writes to the file; otherwise to copies of the pages it changes, and the file stays as it is.</param>
internal sealed record MemoryFile(string File, bool Shared);

/// <summary>QEMU's arguments for one architecture. Every part of it can be saved and restored; devices that cannot are named in <see cref="Unsaved"/>.</summary>
internal abstract record MachineLine
{
    private const string MemoryId = "ram";

    // Prints what is more urgent than 5: warnings are 4.
    private const int WarningsShown = 5;

    // nvme says so itself; edu has no state description and would lose its registers without a word.
    private static readonly string[] s_unsaved = ["nvme", "edu", "ivshmem-doorbell"];

    public static MachineLine For(KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64 ? new X86MachineLine() : new Arm64MachineLine();

    /// <summary>Name of the program.</summary>
    public abstract string Program { get; }

    /// <summary>Debian's package with it.</summary>
    public abstract string Package { get; }

    /// <summary>The first device among the options whose state QEMU cannot save; null when the machine can be saved.</summary>
    public static string? Unsaved(MachineOptions options) =>
        options.Devices.Select(d => d.Split(',')[0]).FirstOrDefault(d => s_unsaved.Contains(d, StringComparer.Ordinal));

    /// <summary>The machine without the channels, which differ from start to start, and without what it boots.</summary>
    public IReadOnlyList<string> Machine(MachineOptions options, MemoryFile? memory)
    {
        List<string> line = ["-M", MachineType(options) + (memory is null ? "" : $",memory-backend={MemoryId}")];
        if (memory is not null)
        {
            line.AddRange(["-object", $"memory-backend-file,id={MemoryId},size={options.MemoryMiB}M,mem-path={QemuProcess.Escape(memory.File)},share={(memory.Shared ? "on" : "off")}"]);
        }

        // thread=single: QEMU 7.2's multi-threaded TCG breaks while a kernel patches itself.
        line.AddRange(
        [
            "-accel", "tcg,thread=single", "-cpu", Processor, "-smp", $"{options.Processors}", "-m", $"{options.MemoryMiB}M",
            "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
        ]);
        line.AddRange(Parts(options));
        line.AddRange(["-device", "virtio-serial-pci,id=channels", "-device", "virtserialport,chardev=agent,name=agent.0"]);
        for (int i = 0; i < options.Devices.Count; i++)
        {
            // An empty romfile: the firmware would otherwise run the option ROM, which costs seconds.
            string device = options.Devices[i];
            bool network = device.StartsWith("e1000", StringComparison.Ordinal) || device.StartsWith("igb", StringComparison.Ordinal);
            line.AddRange([.. RootPort($"port{i}", i + 1), "-device", $"{device},bus=port{i}{(network ? ",romfile=" : "")}"]);
        }

        for (int i = 0; i < options.SparePorts; i++)
        {
            line.AddRange(RootPort($"spare{i}", options.Devices.Count + i + 1));
        }

        return line;
    }

    private static string[] RootPort(string id, int slot) => ["-device", $"pcie-root-port,id={id},slot={slot},chassis={slot}"];

    /// <summary>What the machine boots.</summary>
    public IReadOnlyList<string> Boot(MachineOptions options, PreparedKernel kernel) =>
        ["-kernel", kernel.ImagePath, "-initrd", kernel.InitramfsPath, "-append", CommandLine(options)];

    /// <summary>
    /// The kernel's command line. Of an option given twice the kernel takes the last: what shows its warnings on the console, and does not limit marks
    /// written to /dev/kmsg to ten in five seconds, stands behind everything that a user adds.
    /// </summary>
    public string CommandLine(MachineOptions options)
    {
        string added = string.Concat(options.ExtraKernelArguments.Select(a => a + " "));
        return string.Create(
            CultureInfo.InvariantCulture,
            $"panic=-1 sysrq_always_enabled {KernelArguments(options)} {added}loglevel={LogLevel(added)} printk.time=1 printk.devkmsg=on");
    }

    // A level that a user asks for counts while it is no lower than warnings need.
    private static int LogLevel(string added) => added.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)
        .Select(a => a == "debug" ? 10 : a.StartsWith("loglevel=", StringComparison.Ordinal) && int.TryParse(a[9..], CultureInfo.InvariantCulture, out int level) ? level : 0)
        .Append(WarningsShown)
        .Max();

    protected abstract string Processor { get; }

    protected abstract string MachineType(MachineOptions options);

    protected abstract IEnumerable<string> Parts(MachineOptions options);

    protected abstract string KernelArguments(MachineOptions options);

    private sealed record X86MachineLine : MachineLine
    {
        public override string Program => "qemu-system-x86_64";

        public override string Package => "qemu-system-x86";

        protected override string Processor => "EPYC,+svm,+npt";

        protected override string MachineType(MachineOptions options) => "q35,kernel-irqchip=split";

        // Not amd-iommu, which QEMU refuses to save; an AMD processor with Intel's IOMMU is odd and works.
        protected override IEnumerable<string> Parts(MachineOptions options) => options.Iommu ? ["-device", "intel-iommu,intremap=on"] : [];

        protected override string KernelArguments(MachineOptions options) =>
            "console=ttyS0 mitigations=off" + (options.Iommu ? " intel_iommu=on" : "");
    }

    private sealed record Arm64MachineLine : MachineLine
    {
        public override string Program => "qemu-system-aarch64";

        public override string Package => "qemu-system-arm";

        protected override string Processor => "max";

        protected override string MachineType(MachineOptions options) => "virt,virtualization=on,gic-version=4" + (options.Iommu ? ",iommu=smmuv3" : "");

        protected override IEnumerable<string> Parts(MachineOptions options) => [];

        protected override string KernelArguments(MachineOptions options) => "console=ttyAMA0 kvm-arm.vgic_v4_enable=1 kvm-arm.wfi_trap_policy=trap";
    }
}

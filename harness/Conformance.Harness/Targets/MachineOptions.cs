// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Targets;

/// <summary>How often the kernel is fresh.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Isolation>))]
public enum Isolation
{
    Suite,
    Class,
    Test,
}

/// <summary>The machine an emulated kernel runs on.</summary>
/// <remarks>Settable, not init: generated JSON readers lose the defaults of init-only properties.</remarks>
public sealed record MachineOptions
{
    public int MemoryMiB { get; set; } = 512;

    public int Processors { get; set; } = 2;

    /// <summary>An IOMMU with interrupt remapping.</summary>
    public bool Iommu { get; set; }

    /// <summary>QEMU devices with their properties, each behind a root port of its own.</summary>
    public IReadOnlyList<string> Devices { get; set; } = [];

    /// <summary>PCI functions of a machine that is there which the claims may take: no others. An emulated machine's are all the suite's own.</summary>
    public IReadOnlyList<string> VfioDevices { get; set; } = [];

    /// <summary>Root ports with nothing behind them, for devices that are plugged in while the kernel runs.</summary>
    public int SparePorts { get; set; }

    /// <summary>Added to the kernel's command line.</summary>
    public IReadOnlyList<string> ExtraKernelArguments { get; set; } = [];

    /// <summary>Modules under test, with all they need: loaded when the target is started; a saved machine has them already.</summary>
    public IReadOnlyList<string> Modules { get; set; } = [];

    /// <summary>Where booted kernels are kept to be restored; null: always boot.</summary>
    public string? SnapshotDirectory { get; set; }

    /// <summary>Boot even when a snapshot could be restored.</summary>
    public bool FreshBoot { get; set; }

    public Isolation Isolation { get; set; }

    /// <summary>How long a kernel that boots may print nothing before it counts as hung; one that prints is given a quarter of an hour.</summary>
    public TimeSpan BootSilence { get; set; } = TimeSpan.FromMinutes(5);
}

/// <summary>JSON of <see cref="MachineOptions"/>, as <c>conformance run</c> hands it to suites.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(MachineOptions))]
public sealed partial class MachineJson : JsonSerializerContext;

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
public sealed record MachineOptions
{
    public int MemoryMiB { get; init; } = 512;

    public int Processors { get; init; } = 2;

    /// <summary>An IOMMU with interrupt remapping.</summary>
    public bool Iommu { get; init; }

    /// <summary>QEMU devices with their properties, each behind a root port of its own.</summary>
    public IReadOnlyList<string> Devices { get; init; } = [];

    /// <summary>Added to the kernel's command line.</summary>
    public string ExtraKernelArguments { get; init; } = "";

    /// <summary>Where booted kernels are kept to be restored; null: always boot.</summary>
    public string? SnapshotDirectory { get; init; }

    /// <summary>Boot even when a snapshot could be restored.</summary>
    public bool FreshBoot { get; init; }

    public Isolation Isolation { get; init; }
}

/// <summary>JSON of <see cref="MachineOptions"/>, as <c>conformance run</c> hands it to suites.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(MachineOptions))]
public sealed partial class MachineJson : JsonSerializerContext;

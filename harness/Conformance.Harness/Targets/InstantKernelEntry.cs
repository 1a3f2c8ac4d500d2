// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Targets;

/// <summary>What is known of a kernel kept for restoring; <c>entry.json</c> beside its files.</summary>
internal sealed record InstantKernelEntry
{
    public required string Kernel { get; init; }

    public required string Qemu { get; init; }

    public required DateTimeOffset Made { get; init; }

    public required long MemoryBytes { get; init; }

    /// <summary>Bytes of pages that are not all zero, about what the file takes on disk.</summary>
    public required long UsedBytes { get; init; }

    public required string StateSha256 { get; init; }

    /// <summary>Over the pages that are not all zero, with their numbers.</summary>
    public required uint MemoryChecksum { get; init; }

    /// <summary>Modification time of the memory file when it was summed: nothing has written to it while this is the same.</summary>
    public required DateTime MemoryWritten { get; init; }

    /// <summary>
    /// /proc/sys/kernel/random/boot_id of the machine when it was summed. While the machine runs, what was written is what is read; after
    /// a crash of the machine the disk may have missed some of it, and the sum is made again.
    /// </summary>
    public required string MachineBoot { get; init; }
}

/// <summary>JSON of <see cref="InstantKernelEntry"/>.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(InstantKernelEntry))]
internal sealed partial class InstantKernelJson : JsonSerializerContext;

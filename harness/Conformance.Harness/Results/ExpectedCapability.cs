// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kernels;

namespace Conformance.Results;

/// <summary>A capability that kernels have: a row of <c>suites/capabilities.tsv</c>. To skip a claim for want of it is no skip there.</summary>
public sealed record ExpectedCapability
{
    private static readonly string[] s_columns = ["name", "kernels", "config", "summary"];

    /// <summary>As skips name it.</summary>
    public required string Name { get; init; }

    /// <summary>The kernels that have it.</summary>
    public required KernelRange Kernels { get; init; }

    /// <summary>What must be set in the kernel's configuration for it, without <c>CONFIG_</c>; empty for nothing.</summary>
    public IReadOnlyList<string> Config { get; init; } = [];

    /// <summary>What it says, in one sentence.</summary>
    public required string Summary { get; init; }

    /// <summary>Where it is written, <c>file:line</c>.</summary>
    public required string Place { get; init; }

    /// <summary>Reads the table.</summary>
    /// <param name="text">The table.</param>
    /// <param name="file">What messages call it.</param>
    /// <param name="changes">The changes its kernels may name.</param>
    /// <exception cref="UsageException">A row is wrong.</exception>
    public static IReadOnlyList<ExpectedCapability> Read(string text, string file, ChangeTable changes) => Table.Read(text, file, s_columns, (fields, place) => new ExpectedCapability
    {
        Name = fields[0],
        Kernels = KernelRange.Parse(fields[1], changes),
        Config = [.. fields[2].Split(' ', StringSplitOptions.RemoveEmptyEntries).Where(o => o != "-")],
        Summary = fields[3],
        Place = place,
    });

    /// <summary>Whether a configuration has what it takes. Of a kernel whose configuration is not known nothing is expected that depends on it.</summary>
    /// <param name="config">The configuration's file; null when it is not known.</param>
    public bool IsConfigured(string? config)
    {
        KernelConfiguration? read = Config.Count == 0 || !File.Exists(config) ? null : KernelConfiguration.Read(config);
        return Config.All(option => read is not null && read[option] != 'n');
    }
}

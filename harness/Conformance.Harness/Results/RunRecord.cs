// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;
using Conformance.Fixtures;
using Conformance.Kernels;

namespace Conformance.Results;

/// <summary>Everything known about one kernel after one run: the content of <c>results.json</c>, from which every other format is written.</summary>
public sealed record RunRecord
{
    /// <summary>The schema this build writes.</summary>
    public const int CurrentSchema = 1;

    /// <summary>Version of this layout.</summary>
    public int Schema { get; init; } = CurrentSchema;

    /// <summary>Version of the suites that ran.</summary>
    public required string SuiteVersion { get; init; }

    /// <summary>The kernel under test.</summary>
    public required KernelIdentity Kernel { get; init; }

    /// <summary>Where it ran; null when it was never reached.</summary>
    public TargetIdentity? Target { get; init; }

    /// <summary>When the run began, in UTC.</summary>
    public required DateTimeOffset Started { get; init; }

    /// <summary>How long it took, in milliseconds.</summary>
    public long DurationMs { get; init; }

    /// <summary>One record per test that reached a verdict, ordered by id.</summary>
    public IReadOnlyList<TestRecord> Tests { get; init; } = [];

    /// <summary>Ids of tests that were to run and have no verdict, ordered; null when there is none.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Missing { get; init; }

    /// <summary>Which part of the tests this is, <c>2/3</c>; null for all.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Shard { get; init; }

    /// <summary>The kernel's release with its stable number: as it said itself, or as older results tell it; null when they do not.</summary>
    [JsonIgnore]
    public Version? StableRelease
    {
        get
        {
            string[] id = Kernel.Id.Split('-');
            foreach (string? text in new[] { Target?.Release, id is ["debian", var version, ..] ? version : null, Kernel.Release })
            {
                try
                {
                    if (text is not null)
                    {
                        return ChangeTable.ParseRelease(text);
                    }
                }
                catch (FormatException)
                {
                    // The next may say.
                }
            }

            return null;
        }
    }

    /// <summary>What went wrong beside the tests (a suite that could not start, a disk that was full); null when nothing did.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Faults { get; init; }
}

/// <summary>The kernel under test.</summary>
/// <param name="Id">Name of its folder in the output, for example <c>debian-6.12.117-amd64</c>.</param>
/// <param name="Release">What <c>uname -r</c> prints on it.</param>
/// <param name="Arch"><c>x86_64</c> or <c>arm64</c>.</param>
/// <param name="Source">The text it was asked for with.</param>
/// <param name="ImageSha256">Hash of the image, in lower-case hex; null for a kernel that was not booted from a file.</param>
/// <param name="Modules">Hash of every module put into the initramfs, by file name.</param>
public sealed record KernelIdentity(
    string Id,
    string Release,
    string Arch,
    string Source,
    string? ImageSha256,
    IReadOnlyDictionary<string, string> Modules)
{
    /// <summary>The identity of a prepared kernel.</summary>
    /// <param name="kernel">The kernel.</param>
    public static KernelIdentity Of(PreparedKernel kernel) => new(
        kernel.Id,
        kernel.Release,
        kernel.Architecture.Name(),
        kernel.Source,
        kernel.ImageSha256.Length == 0 ? null : kernel.ImageSha256,
        kernel.Modules
            .OrderBy(m => m.Path, StringComparer.Ordinal)
            .ToDictionary(m => Path.GetFileName(m.Path), m => m.Sha256));
}

/// <summary>Where the kernel under test ran.</summary>
/// <param name="Kind"><c>emulated</c>, <c>local</c> or <c>ssh</c>.</param>
/// <param name="Accelerator"><c>tcg</c>, <c>kvm</c>, or <c>none</c> when QEMU is not involved.</param>
/// <param name="Qemu">QEMU's version; null when it is not involved.</param>
public sealed record TargetIdentity(string Kind, string Accelerator, string? Qemu)
{
    /// <summary>The kernel's release with its stable number, which <c>uname -r</c> does not always have; null in results of older versions.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Release { get; init; }
}

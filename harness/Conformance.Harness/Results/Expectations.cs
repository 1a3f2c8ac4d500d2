// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Conformance.Fixtures;
using Conformance.Kernels;

namespace Conformance.Results;

/// <summary>
/// What is expected of one kernel beside its claims: failures that are known, capabilities that it has. They are kept in the kernel's
/// folder, so that its verdicts come out the same when they are merged again later.
/// </summary>
public sealed record Expectations
{
    /// <summary>Name of the file in the kernel's folder.</summary>
    public const string FileName = "expected.json";

    /// <summary>Failures that may concern the kernel.</summary>
    public IReadOnlyList<KnownFailure> Known { get; init; } = [];

    /// <summary>Capabilities whose configuration the kernel has.</summary>
    public IReadOnlyList<ExpectedCapability> Capabilities { get; init; } = [];

    /// <summary>The day by which rows expire: that of the run.</summary>
    public DateOnly Day { get; init; }

    /// <summary>Those of one kernel.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="known">All ledgers.</param>
    /// <param name="capabilities">The table of capabilities.</param>
    /// <param name="day">The day of the run.</param>
    public static Expectations Of(PreparedKernel kernel, IReadOnlyList<KnownFailure> known, IReadOnlyList<ExpectedCapability> capabilities, DateOnly day) => new()
    {
        Known = [.. known.Where(k => k.Kernels.MayCover(kernel.Architecture.Name()))],
        Capabilities = [.. capabilities.Where(c => c.Kernels.MayCover(kernel.Architecture.Name()) && c.IsConfigured(kernel.Config))],
        Day = day,
    };

    /// <summary>Reads those a run left in a kernel's folder; null when there are none.</summary>
    /// <exception cref="JsonException">The file is something else.</exception>
    public static Expectations? In(string folder)
    {
        string file = Path.Combine(folder, FileName);
        return File.Exists(file) ? JsonSerializer.Deserialize(File.ReadAllBytes(file), ExpectationsJson.Default.Expectations) : null;
    }

    /// <summary>Leaves them in a kernel's folder.</summary>
    public void Write(string folder) =>
        File.WriteAllBytes(Path.Combine(folder, FileName), JsonSerializer.SerializeToUtf8Bytes(this, ExpectationsJson.Default.Expectations));

    /// <summary>
    /// The verdict in the light of what is expected: a failure that is explained is Known; a test that passes although a row says that it
    /// fails, and a skip for want of what the kernel has, are Fail.
    /// </summary>
    /// <param name="test">As the suite reported it.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="target">Where it ran; null when it was never reached.</param>
    public TestRecord Apply(TestRecord test, KernelIdentity kernel, TargetIdentity? target)
    {
        if (test.Said is not null || Release(kernel, target) is not Version release)
        {
            return test;
        }

        List<KnownFailure> rows = [.. Known.Where(k => k.Kernels.Covers(kernel.Arch, release) && new TestPattern(k.Test).Matches(test.Id))];
        return test.Verdict switch
        {
            Verdict.Fail or Verdict.Crash or Verdict.Hang => rows.Count > 0 ? Failed(test, rows) : test,
            Verdict.Pass when rows.Find(r => !r.MayPass) is { } row => Passed(test, row),
            Verdict.Skip => Skipped(test, kernel, release),
            _ => test,
        };
    }

    private TestRecord Failed(TestRecord test, List<KnownFailure> rows)
    {
        Explanation said = new("failed", $"{test.Verdict}: {test.Reason}");
        if (rows.Find(r => r.Explains(test) && r.Expires >= Day) is { } row)
        {
            return test with
            {
                Verdict = Verdict.Known,
                Said = test.Verdict,
                Row = row.Place,
                Reason = $"{row.Reason} ({row.Link}; {row.Owner}, until {Date(row.Expires)})",
                Explained = [said, .. test.Explained ?? []],
            };
        }

        string text = rows.Find(r => r.Explains(test)) is { } expired
            ? $"{expired.Place} explained this until {Date(expired.Expires)}: {expired.Reason} ({expired.Link}). Ask {expired.Owner}; then write a new date or remove the row."
            : $"{rows[0].Place} explains {Expected(rows[0])}, not this.";
        return test with { Explained = [.. test.Explained ?? [said], new Explanation("ledger", text)] };
    }

    private static TestRecord Passed(TestRecord test, KnownFailure row) => test with
    {
        Verdict = Verdict.Fail,
        Said = test.Verdict,
        Row = row.Place,
        Reason = $"passes, and {row.Place} says that it fails",
        Explained =
        [
            new Explanation("wanted", $"{Expected(row)}, for the reason of {row.Place}: {row.Reason} ({row.Link})"),
            new Explanation("seen", "Pass"),
            new Explanation("edit", $"{row.Place}: remove the row, or narrow its test or its kernels ({row.Test} on {row.Kernels})"),
        ],
    };

    private TestRecord Skipped(TestRecord test, KernelIdentity kernel, Version release)
    {
        if (!SkipReason.TryParse(test.Reason, out SkipReason? reason) || reason.Kind != SkipKind.CapabilityAbsent
            || Capabilities.FirstOrDefault(c => reason.Needs.Split(" and ").Contains(c.Name) && c.Kernels.Covers(kernel.Arch, release)) is not { } row)
        {
            return test;
        }

        return test with
        {
            Verdict = Verdict.Fail,
            Said = test.Verdict,
            Row = row.Place,
            Reason = $"{row.Name} is gone, which this kernel must have",
            Explained =
            [
                new Explanation("wanted", $"{row.Name}: {row.Summary} ({row.Kernels}{string.Concat(row.Config.Select(c => $", CONFIG_{c}"))}; {row.Place})"),
                new Explanation("seen", reason.Seen),
            ],
        };
    }

    private static string Expected(KnownFailure row) => row.With is null ? row.Verdict.ToString() : $"{row.Verdict}: {row.With}";

    private static string Date(DateOnly day) => day.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);

    private static Version? Release(KernelIdentity kernel, TargetIdentity? target)
    {
        try
        {
            return target?.Release is { } stable ? Version.Parse(stable) : ChangeTable.ParseRelease(kernel.Release);
        }
        catch (FormatException)
        {
            return null;
        }
    }
}

/// <summary>JSON of <see cref="Expectations"/>.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true, UseStringEnumConverter = true)]
[JsonSerializable(typeof(Expectations))]
internal sealed partial class ExpectationsJson : JsonSerializerContext;

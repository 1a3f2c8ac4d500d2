// SPDX-License-Identifier: MIT
using System.Globalization;
using System.IO.Enumeration;
using Conformance.Fixtures;
using Conformance.Kernels;

namespace Conformance.Results;

/// <summary>A failure somebody has explained: a row of <c>suites/known-failures.tsv</c>, or of a ledger of the user's own.</summary>
public sealed record KnownFailure
{
    private static readonly string[] s_columns = ["test", "kernels", "fails", "reason", "link", "owner", "expires"];

    /// <summary>The tests it is about, as <c>--test</c> takes them.</summary>
    public required string Test { get; init; }

    /// <summary>The kernels it is about.</summary>
    public required KernelRange Kernels { get; init; }

    /// <summary>How they fail: Fail, Crash or Hang.</summary>
    public required Verdict Verdict { get; init; }

    /// <summary>Nobody knows whether they still fail there: a test that passes is not red.</summary>
    public bool MayPass { get; init; }

    /// <summary>What the test's own reason must match, with * and ?; null for any.</summary>
    public string? With { get; init; }

    /// <summary>Why, in one sentence.</summary>
    public required string Reason { get; init; }

    /// <summary>Where it is discussed.</summary>
    public required string Link { get; init; }

    /// <summary>Who looks at it again.</summary>
    public required string Owner { get; init; }

    /// <summary>The last day it explains anything.</summary>
    public required DateOnly Expires { get; init; }

    /// <summary>Where it is written, <c>file:line</c>.</summary>
    public required string Place { get; init; }

    /// <summary>Reads a ledger.</summary>
    /// <param name="text">The table.</param>
    /// <param name="file">What messages call it.</param>
    /// <param name="changes">The changes its kernels may name.</param>
    /// <exception cref="UsageException">A row is wrong.</exception>
    public static IReadOnlyList<KnownFailure> Read(string text, string file, ChangeTable changes) => Table.Read(text, file, s_columns, (fields, place) =>
    {
        (Verdict verdict, bool mayPass, string? with) = Failing(fields[2]);
        return new KnownFailure
        {
            Test = fields[0],
            Kernels = KernelRange.Parse(fields[1], changes),
            Verdict = verdict,
            MayPass = mayPass,
            With = with,
            Reason = fields[3].TrimEnd('.'),
            Link = Uri.TryCreate(fields[4], UriKind.Absolute, out Uri? link) && link.Scheme is "https" or "http"
                ? fields[4]
                : throw new FormatException($"'{fields[4]}' is no link; it begins with https://"),
            Owner = fields[5],
            Expires = DateOnly.TryParseExact(fields[6], "yyyy-MM-dd", CultureInfo.InvariantCulture, DateTimeStyles.None, out DateOnly day)
                ? day
                : throw new FormatException($"'{fields[6]}' is no date; write it as 2027-01-31"),
            Place = place,
        };
    });

    /// <summary>Whether it explains a failure.</summary>
    public bool Explains(TestRecord test) =>
        test.Verdict == Verdict && (With is null || FileSystemName.MatchesSimpleExpression(With, test.Reason ?? string.Empty, ignoreCase: false));

    private static (Verdict Verdict, bool MayPass, string? With) Failing(string text)
    {
        string[] parts = text.Split(": ", 2);
        string name = parts[0].TrimEnd('?');
        return Enum.TryParse(name, out Verdict verdict) && verdict is Verdict.Fail or Verdict.Crash or Verdict.Hang && name == verdict.ToString() && parts[0].Length - name.Length <= 1
            ? (verdict, parts[0] != name, parts.Length == 2 ? parts[1].Replace("\\", "\\\\", StringComparison.Ordinal) : null)
            : throw new FormatException($"'{text}' is no way to fail; write Fail, Crash or Hang (Fail? where it may also pass), and after a colon what the failure's sentence must match: Crash: KASAN*");
    }
}

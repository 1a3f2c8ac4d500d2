// SPDX-License-Identifier: MIT
namespace Conformance.Results.Formats;

/// <summary>A way to write runs down for somebody else's tool. All are made from <see cref="RunRecord"/> and nothing else.</summary>
public abstract class ResultFormat
{
    public static IReadOnlyList<ResultFormat> All { get; } =
        [new Ktap(), new JUnit(), new Ctrf(), new Trx(), new Kcidb(), new Lava(), new GitHub(), new Markdown(), new Mail()];

    /// <summary>As it is asked for.</summary>
    public abstract string Name { get; }

    /// <summary>Name of the file it is usually kept in.</summary>
    public abstract string FileName { get; }

    /// <summary>What it is, for help.</summary>
    public abstract string Description { get; }

    /// <param name="runs">One per kernel.</param>
    public abstract string Write(IReadOnlyList<RunRecord> runs);

    /// <summary>Tests of a run by suite, and those without a verdict: every format says that they are missing.</summary>
    protected static IEnumerable<IGrouping<string, TestRecord>> BySuite(RunRecord run) => run.Tests.GroupBy(t => t.Suite);

    protected static string Because(TestRecord test) => test.Explained is { Count: > 0 } lines
        ? string.Join('\n', lines.Select(l => $"{l.Label}: {l.Text}"))
        : test.Reason ?? "";

    /// <summary>One line, without what would end it.</summary>
    protected static string Line(string? text) => string.Join(' ', (text ?? "").Split((char[])['\r', '\n'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));

    protected static string Seconds(long milliseconds) => (milliseconds / 1000.0).ToString("0.000", System.Globalization.CultureInfo.InvariantCulture);

    protected static string Where(RunRecord run) => run.Target is TargetIdentity t ? $"{t.Kind}, {t.Accelerator}{(t.Qemu is null ? "" : $", QEMU {t.Qemu}")}" : "never reached";

    /// <summary>Counts by verdict, in the order of severity, zeroes left out.</summary>
    protected static string Counts(IEnumerable<TestRecord> tests, int missing = 0)
    {
        Dictionary<Verdict, int> counts = tests.CountBy(t => t.Verdict).ToDictionary();
        IEnumerable<string> words = Enum.GetValues<Verdict>().Where(v => counts.GetValueOrDefault(v) > 0)
            .Select(v => $"{counts[v]} {v switch { Verdict.Pass => "passed", Verdict.Fail => "failed", Verdict.Skip => "skipped", Verdict.Known => "known", Verdict.Crash => "crashed", Verdict.Hang => "hung", _ => "broken" }}");
        words = missing > 0 ? words.Append($"{missing} missing") : words;
        return words.Any() ? string.Join(", ", words) : "nothing ran";
    }
}

// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;

namespace Conformance.Results.Formats;

/// <summary>LAVA signals, as its test shell reads them from a console.</summary>
internal sealed class Lava : ResultFormat
{
    public override string Name => "lava";

    public override string FileName => "results.lava";

    public override string Description => "LAVA_SIGNAL lines for a LAVA test shell";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        var text = new StringBuilder();
        foreach (RunRecord run in runs)
        {
            text.Append($"<LAVA_SIGNAL_TESTSET START {run.Kernel.Id}>\n");
            foreach (TestRecord test in run.Tests)
            {
                string result = test.Verdict switch { Verdict.Pass => "pass", Verdict.Skip or Verdict.Known => "skip", Verdict.Broken => "unknown", _ => "fail" };
                text.Append($"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID={test.Id} RESULT={result}>\n");
            }

            foreach (string id in run.Missing ?? [])
            {
                text.Append($"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID={id} RESULT=unknown>\n");
            }

            text.Append("<LAVA_SIGNAL_TESTSET STOP>\n");
        }

        return text.ToString();
    }
}

/// <summary>GitHub workflow commands: an annotation per failure, as many as GitHub shows.</summary>
internal sealed class GitHub : ResultFormat
{
    // GitHub shows ten annotations of a kind per step and drops the rest.
    private const int Shown = 10;

    public override string Name => "github";

    public override string FileName => "annotations.txt";

    public override string Description => "GitHub annotations (print them in a step; markdown is for the step summary)";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        List<(RunRecord Run, TestRecord Test)> bad = [.. runs.SelectMany(r => r.Tests.Where(t => t.Verdict is not (Verdict.Pass or Verdict.Skip or Verdict.Known)).Select(t => (r, t)))];
        var text = new StringBuilder();
        foreach ((RunRecord run, TestRecord test) in bad.Take(bad.Count > Shown ? Shown - 1 : Shown))
        {
            string[] source = (test.Source ?? "").Split(':');
            string place = source.Length == 2 ? $"file={Property(source[0])},line={source[1]}," : "";
            text.Append(CultureInfo.InvariantCulture, $"::error {place}title={Property($"{test.Verdict}: {test.Id}")}::{Data($"{run.Kernel.Release}: {test.Reason}")}\n");
        }

        return bad.Count > Shown ? text.Append(CultureInfo.InvariantCulture, $"::error title=conformance::{bad.Count - Shown + 1} more; see the step summary\n").ToString() : text.ToString();
    }

    private static string Data(string text) => text.Replace("%", "%25", StringComparison.Ordinal).Replace("\r", "%0D", StringComparison.Ordinal).Replace("\n", "%0A", StringComparison.Ordinal);

    private static string Property(string text) => Data(text).Replace(":", "%3A", StringComparison.Ordinal).Replace(",", "%2C", StringComparison.Ordinal);
}

/// <summary>Markdown: a table of kernels and suites, then what is wrong.</summary>
internal sealed class Markdown : ResultFormat
{
    public override string Name => "markdown";

    public override string FileName => "summary.md";

    public override string Description => "Markdown, for $GITHUB_STEP_SUMMARY";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        List<string> suites = [.. runs.SelectMany(r => r.Tests.Select(t => t.Suite)).Distinct().Order(StringComparer.Ordinal)];
        var text = new StringBuilder("## Conformance\n\n").Append("| kernel | ").AppendJoin(" | ", suites).Append(" | missing |\n|---|").Append(string.Concat(suites.Select(_ => "---|"))).Append("---|\n");
        foreach (RunRecord run in runs)
        {
            text.Append($"| {run.Kernel.Release} {run.Kernel.Arch} ({Where(run)}) | ")
                .AppendJoin(" | ", suites.Select(s => run.Tests.Any(t => t.Suite == s) ? Counts(run.Tests.Where(t => t.Suite == s)) : "-"))
                .Append($" | {run.Missing?.Count ?? 0} |\n");
        }

        foreach (RunRecord run in runs)
        {
            foreach (TestRecord test in run.Tests.Where(t => t.Verdict is not (Verdict.Pass or Verdict.Skip)))
            {
                text.Append($"\n### {test.Verdict}: `{test.Id}` on {run.Kernel.Release}\n\n```\n{Because(test).Replace("```", "'''", StringComparison.Ordinal)}\n```\n");
            }
        }

        return text.ToString();
    }
}

/// <summary>Plain text for a mailing list: 72 columns, failures first, what was not tested said.</summary>
internal sealed class Mail : ResultFormat
{
    private const int Columns = 72;

    public override string Name => "mail";

    public override string FileName => "report.txt";

    public override string Description => "plain text for a mailing list, 72 columns";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        var text = new StringBuilder();
        bool good = runs.Count > 0 && runs.All(r => r.Missing is null or { Count: 0 } && r.Tests.Any(t => t.Verdict == Verdict.Pass) && r.Tests.All(t => t.Verdict is Verdict.Pass or Verdict.Skip or Verdict.Known));
        Wrap(text, "", good ? "Nothing wrong was found." : "Something is wrong or was not tested.");
        foreach (RunRecord run in runs)
        {
            text.Append('\n');
            Wrap(text, "", $"{run.Kernel.Release} {run.Kernel.Arch}, {run.Kernel.Source} ({Where(run)})");
            foreach (IGrouping<string, TestRecord> suite in BySuite(run))
            {
                Wrap(text, "  ", $"{suite.Key}: {Counts(suite)}");
            }

            if (run.Missing is { Count: > 0 } missing)
            {
                Wrap(text, "  ", $"{missing.Count} tests have no verdict.");
            }

            foreach (TestRecord test in run.Tests.Where(t => t.Verdict is not (Verdict.Pass or Verdict.Skip)))
            {
                text.Append($"\n  {test.Verdict} {test.Id}\n");
                foreach (string line in Because(test).Split('\n'))
                {
                    Wrap(text, "    ", line);
                }

                foreach (Fix fix in test.FixedBy ?? [])
                {
                    Wrap(text, "    ", $"this kernel may lack {fix.Commit} (\"{fix.Subject}\")");
                }
            }
        }

        return text.ToString();
    }

    private static void Wrap(StringBuilder text, string indent, string line)
    {
        int used = 0;
        foreach (string word in line.Split(' '))
        {
            if (used > 0 && indent.Length + used + 1 + word.Length > Columns)
            {
                text.Append('\n');
                used = 0;
            }

            text.Append(used == 0 ? indent : " ").Append(word);
            used += word.Length + (used == 0 ? 0 : 1);
        }

        text.Append('\n');
    }
}

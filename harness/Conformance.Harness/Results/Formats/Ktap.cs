// SPDX-License-Identifier: MIT
using System.Text;

namespace Conformance.Results.Formats;

/// <summary>KTAP version 1 (Documentation/dev-tools/ktap.rst): kernel, suite and test as nested subtests.</summary>
public sealed class Ktap : ResultFormat
{
    public override string Name => "ktap";

    public override string FileName => "results.ktap";

    public override string Description => "KTAP 1, nested: kernel, suite, test";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        var text = new StringBuilder("KTAP version 1\n").Append($"1..{runs.Count}\n");
        for (int r = 0; r < runs.Count; r++)
        {
            RunRecord run = runs[r];
            List<(string Suite, List<TestRecord> Tests, List<string> Missing)> suites = [.. run.Tests.Select(t => t.Suite)
                .Concat(Missing(run).Select(SuiteOf)).Distinct().Order(StringComparer.Ordinal)
                .Select(s => (s, run.Tests.Where(t => t.Suite == s).ToList(), Missing(run).Where(m => SuiteOf(m) == s).ToList()))];
            text.Append("  KTAP version 1\n").Append($"  # {run.Kernel.Release} {run.Kernel.Arch} ({Where(run)})\n").Append($"  1..{suites.Count}\n");
            bool good = suites.Count > 0;
            for (int s = 0; s < suites.Count; s++)
            {
                (string suite, List<TestRecord> tests, List<string> missing) = suites[s];
                text.Append("    KTAP version 1\n").Append($"    1..{tests.Count + missing.Count}\n");
                int number = 0;
                foreach (TestRecord test in tests)
                {
                    WriteTest(text, ++number, test);
                }

                foreach (string id in missing)
                {
                    text.Append($"    not ok {++number} {id} # ERROR no verdict\n");
                }

                bool ok = missing.Count == 0 && tests.All(t => t.Verdict is Verdict.Pass or Verdict.Skip or Verdict.Known);
                good &= ok;
                text.Append($"  {(ok ? "ok" : "not ok")} {s + 1} {suite}\n");
            }

            text.Append($"{(good ? "ok" : "not ok")} {r + 1} {run.Kernel.Id}\n");
        }

        int Count(params Verdict[] verdicts) => runs.Sum(r => r.Tests.Count(t => verdicts.Contains(t.Verdict)));
        return text.Append($"# Totals: pass:{Count(Verdict.Pass)} fail:{Count(Verdict.Fail, Verdict.Crash, Verdict.Hang)} xfail:{Count(Verdict.Known)} xpass:0 skip:{Count(Verdict.Skip)} error:{Count(Verdict.Broken) + runs.Sum(r => r.Missing?.Count ?? 0)}\n").ToString();
    }

    private static IReadOnlyList<string> Missing(RunRecord run) => run.Missing ?? [];

    private static string SuiteOf(string id) => id[..id.IndexOf('.', StringComparison.Ordinal)];

    // A '#' in a description would begin a directive.
    private static void WriteTest(StringBuilder text, int number, TestRecord test)
    {
        string reason = Line(test.Reason).Replace('#', ' ');
        text.Append(test.Verdict switch
        {
            Verdict.Pass => $"    ok {number} {test.Id}\n",
            Verdict.Skip => $"    ok {number} {test.Id} # SKIP {reason}\n",
            Verdict.Known => $"    ok {number} {test.Id} # XFAIL {reason}\n",
            Verdict.Hang => $"    not ok {number} {test.Id} # TIMEOUT {reason}\n",
            Verdict.Broken => $"    not ok {number} {test.Id} # ERROR {reason}\n",
            _ => $"    not ok {number} {test.Id}\n",
        });
        if (test.Verdict is not (Verdict.Pass or Verdict.Skip))
        {
            text.Append($"    # {test.Verdict}: {reason}\n");
            foreach (string line in Because(test).Split('\n'))
            {
                text.Append($"    # {line}\n");
            }
        }
    }
}

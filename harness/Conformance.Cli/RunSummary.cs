// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>What a run ends with: a line per suite and kernel, what is missing, the totals, and where the results are.</summary>
internal sealed class RunSummary(CommandOutput output)
{
    private const int MissingShown = 10;

    public void Write(IReadOnlyList<(KernelRun Run, RunRecord Record)> finished, string folder, TimeSpan elapsed, string ended)
    {
        TextWriter to = output.Out;
        foreach ((KernelRun run, RunRecord record) in finished)
        {
            string where = record.Target is { } target
                ? $"{target.Kind}, {target.Accelerator}{(target.Qemu is null ? string.Empty : $", QEMU {target.Qemu}")}"
                : "never reached";
            to.WriteLine();
            to.WriteLine($"{run.Kernel.Id}   {record.Kernel.Release} {record.Kernel.Arch} ({where})");
            foreach (IGrouping<string, TestRecord> suite in record.Tests.GroupBy(t => t.Suite))
            {
                to.WriteLine($"  {suite.Key,-12} {RunView.Counts(CountsOf(suite))}");
            }

            WriteKnown(record);
            WriteUnsteady(record);
            WriteMissing(record);
            to.WriteLine($"  {"results",-12} {Path.Combine(folder, run.Kernel.Id, ResultsFolder.FileName)}");
        }

        IReadOnlyDictionary<Verdict, int> all = CountsOf(finished.SelectMany(f => f.Record.Tests));
        int missing = finished.Sum(f => f.Record.Missing?.Count ?? 0);
        string tail = (missing > 0 ? $", {missing.ToString(CultureInfo.InvariantCulture)} missing" : string.Empty)
            + $" in {elapsed.TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture)} s"
            + ended;
        to.WriteLine();
        to.WriteLine(RunView.Counts(all) + tail);
        if (all.Values.Sum() == all.GetValueOrDefault(Verdict.Skip))
        {
            to.WriteLine(all.Count == 0 ? "Nothing ran." : "Nothing ran: every claim was skipped.");
        }
    }

    private static Dictionary<Verdict, int> CountsOf(IEnumerable<TestRecord> tests) => tests.CountBy(t => t.Verdict).ToDictionary();

    private void WriteKnown(RunRecord record)
    {
        foreach (IGrouping<string?, TestRecord> row in record.Tests.Where(t => t.Verdict == Verdict.Known).GroupBy(t => t.Row))
        {
            string tests = row.Count() == 1 ? row.First().Id : $"{row.First().Id} and {(row.Count() - 1).ToString(CultureInfo.InvariantCulture)} more";
            output.Out.WriteLine($"  {"known",-12} {tests}: {row.First().Reason} [{row.Key}]");
        }
    }

    private void WriteUnsteady(RunRecord record)
    {
        foreach (TestRecord test in record.Tests.Where(t => t.Verdicts?.Distinct().Count() > 1))
        {
            output.Out.WriteLine($"  {"not steady",-12} {test.Id}: {RunView.Counts(test.Verdicts!.CountBy(v => v).ToDictionary())}");
        }
    }

    private void WriteMissing(RunRecord record)
    {
        if (record.Missing is not { Count: > 0 } missing)
        {
            return;
        }

        output.Out.WriteLine($"  {"missing",-12} {string.Join(", ", missing.Take(MissingShown))}"
            + (missing.Count > MissingShown ? $" and {(missing.Count - MissingShown).ToString(CultureInfo.InvariantCulture)} more" : string.Empty));
    }
}

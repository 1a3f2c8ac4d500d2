// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance explain</c>: what a test claims, on which rules, and how kernels answered.</summary>
internal static class ExplainCommand
{
    public static async Task<int> RunAsync(Installation installation, string id, string results, CommandOutput output, CancellationToken cancellation)
    {
        IReadOnlyList<ListedTest> tests = await new ListCommand(installation, output).TestsAsync(cancellation).ConfigureAwait(false);
        TestPattern pattern = new(id);
        List<ListedTest> found = [.. tests.Where(t => pattern.Matches(t.Id))];
        if (found.Count == 0)
        {
            throw new UsageException($"There is no test '{id}'. {NearestNames.Hint(id, [.. tests.Select(t => t.Id)])}".TrimEnd());
        }

        IReadOnlyList<KnownFailure> known = Ledgers.Load(installation, [], suites: null).Known;
        ClauseIndex clauses = ClauseIndex.Load(installation.Clauses);
        IReadOnlyList<(string Folder, RunRecord Run)> runs = Directory.Exists(results) ? ResultsFolders.Read(results) : [];
        foreach (ListedTest test in found)
        {
            output.Out.WriteLine(test.Id);
            output.Out.WriteLine($"  written   {test.Source ?? "source not recorded"}{(test.NegativeControl ? " (negative control: it must fail)" : "")}");
            foreach (string clause in test.Clauses)
            {
                Clause? rule = clauses.All.FirstOrDefault(c => c.Id == clause);
                output.Out.WriteLine($"  rule      {clause}");
                output.Out.WriteLine($"            {rule?.Text}");
                output.Out.WriteLine($"            [{rule?.Source}]");
            }

            foreach (Fix fix in test.FixedBy)
            {
                output.Out.WriteLine($"  fixed by  {fix.Commit} (\"{fix.Subject}\")");
            }

            foreach (KnownFailure row in known.Where(k => new TestPattern(k.Test).Matches(test.Id)))
            {
                output.Out.WriteLine($"  known     {row.Verdict} on {row.Kernels.Text}: {row.Reason}");
                output.Out.WriteLine($"            [{row.Link}; {row.Place}, {row.Owner}, until {row.Expires:yyyy-MM-dd}]");
            }

            foreach ((_, RunRecord run) in runs)
            {
                if (run.Tests.FirstOrDefault(t => t.Id == test.Id) is TestRecord record)
                {
                    output.Out.WriteLine($"  {run.Kernel.Release,-24} {record.Verdict}{(record.Reason is null ? "" : ": " + record.Reason)}");
                }
            }
        }

        return ExitCode.Clean;
    }
}

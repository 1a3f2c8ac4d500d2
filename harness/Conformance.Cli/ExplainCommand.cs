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
        List<ListedTest> found = [.. tests.Where(t => t.Id == id || t.Id.StartsWith(id + ".", StringComparison.Ordinal))];
        if (found.Count == 0)
        {
            throw new UsageException($"There is no test '{id}'. {NearestNames.Hint(id, [.. tests.Select(t => t.Id)])}".TrimEnd());
        }

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

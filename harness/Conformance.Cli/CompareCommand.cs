// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance compare</c>: what became of each test between two runs, or between two kernels of one.</summary>
internal static class CompareCommand
{
    /// <summary>Prints the changes, worst first.</summary>
    /// <returns>1 only when something regressed.</returns>
    public static int Run(string before, string after, CommandOutput output)
    {
        IReadOnlyList<(string Folder, RunRecord Run)> old = ResultsFolders.Read(before), now = ResultsFolders.Read(after);
        bool regressed = false;
        foreach ((RunRecord Before, RunRecord After) pair in Pair([.. old.Select(r => r.Run)], [.. now.Select(r => r.Run)]))
        {
            RunComparison comparison = RunComparison.Of(pair.Before, pair.After);
            regressed |= comparison.HasRegressions;
            output.Out.WriteLine($"{pair.Before.Kernel.Release} ({pair.Before.Started.UtcDateTime:yyyy-MM-dd HH:mm}) -> {pair.After.Kernel.Release} ({pair.After.Started.UtcDateTime:yyyy-MM-dd HH:mm})");
            foreach (IGrouping<Change, TestChange> group in comparison.Changes.GroupBy(c => c.Change).OrderBy(g => g.Key))
            {
                string word = char.ToLowerInvariant(group.Key.ToString()[0]) + group.Key.ToString()[1..];
                output.Out.WriteLine($"  {word}: {group.Count()}");
                foreach (TestChange change in group.Key == Change.Same ? [] : group.AsEnumerable())
                {
                    output.Out.WriteLine($"    {change.Id}  {change.Before?.Verdict.ToString() ?? "absent"} -> {change.After?.Verdict.ToString() ?? "absent"}{(change.After?.Reason is string reason ? ": " + reason : "")}");
                }
            }
        }

        return regressed ? ExitCode.ClaimFailed : ExitCode.Clean;
    }

    // The same kernels at two times are paired by id; one kernel against another by being alone.
    private static IEnumerable<(RunRecord, RunRecord)> Pair(IReadOnlyList<RunRecord> old, IReadOnlyList<RunRecord> now)
    {
        List<(RunRecord, RunRecord)> pairs = [.. now.SelectMany(n => old.Where(o => o.Kernel.Id == n.Kernel.Id).Select(o => (o, n)))];
        return pairs.Count > 0 ? pairs
            : old.Count == 1 && now.Count == 1 ? [(old[0], now[0])]
            : throw new UsageException("No kernel is in both folders. Name the folders of two kernels to compare those.");
    }
}

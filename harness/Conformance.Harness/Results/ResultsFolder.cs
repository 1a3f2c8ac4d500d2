// SPDX-License-Identifier: MIT
namespace Conformance.Results;

/// <summary>The folder of one kernel in the output: its journals, and the <c>results.json</c> merged from them.</summary>
public static class ResultsFolder
{
    /// <summary>Name of the merged file.</summary>
    public const string FileName = "results.json";

    /// <summary>Whether a folder has journals that are not merged yet, because the run was killed.</summary>
    /// <param name="folder">The kernel's folder.</param>
    public static bool NeedsMerge(string folder)
    {
        string merged = Path.Combine(folder, FileName);
        return Directory.Exists(folder)
            && ResultsJournal.In(folder) is { Count: > 0 } journals
            && (!File.Exists(merged) || journals.Any(j => File.GetLastWriteTimeUtc(j) > File.GetLastWriteTimeUtc(merged)));
    }

    /// <summary>Builds the run from the journals of a folder, in the light of what the run expected of the kernel.</summary>
    /// <param name="folder">The kernel's folder.</param>
    /// <returns>Null when no journal says which kernel it is about.</returns>
    public static RunRecord? Merge(string folder) =>
        Merge(ResultsJournal.In(folder).SelectMany(ResultsJournal.Read), Expectations.In(folder));

    /// <summary>Builds the run from journal lines of any number of suites on one kernel.</summary>
    /// <param name="lines">The lines; of each suite in their order.</param>
    /// <param name="expected">What is expected of the kernel beside the claims.</param>
    /// <returns>Null when no line says which kernel it is about.</returns>
    public static RunRecord? Merge(IEnumerable<JournalLine> lines, Expectations? expected = null)
    {
        JournalLine? open = null;
        TargetIdentity? target = null;
        DateTimeOffset last = default;
        SortedSet<string> planned = new(StringComparer.Ordinal);
        SortedDictionary<string, List<TestRecord>> tests = new(StringComparer.Ordinal);
        SortedSet<string> shards = new(StringComparer.Ordinal);
        List<string> faults = [];
        foreach (JournalLine line in lines)
        {
            last = line.At > last ? line.At : last;
            if (line.Event == JournalEvent.Open)
            {
                shards.Add(line.Shard ?? "");
            }

            switch (line.Event)
            {
                case JournalEvent.Open when open is null || line.At < open.At:
                    open = line;
                    break;
                case JournalEvent.Plan:
                    planned.UnionWith(line.Tests ?? []);
                    break;
                case JournalEvent.Target:
                    target = line.Target ?? target;
                    break;
                case JournalEvent.Verdict when line.Record is { } record:
                    if (!tests.TryGetValue(record.Id, out List<TestRecord>? attempts))
                    {
                        tests[record.Id] = attempts = [];
                    }

                    attempts.Add(record);
                    break;
                case JournalEvent.Fault when line.Text is { } text:
                    faults.Add(text);
                    break;
            }
        }

        if (open?.Kernel is null)
        {
            return null;
        }

        planned.ExceptWith(tests.Keys);
        return new RunRecord
        {
            SuiteVersion = open.SuiteVersion ?? "unknown",
            Kernel = open.Kernel,
            Target = target,
            Started = open.At,
            DurationMs = (long)(last - open.At).TotalMilliseconds,
            Tests = [.. tests.Values.Select(a => Attempts([.. a.Select(t => expected?.Apply(t, open.Kernel, target) ?? t)]))],
            Shard = shards is { Count: 1 } && shards.Min is { Length: > 0 } shard ? shard : null,
            Missing = planned.Count == 0 ? null : [.. planned],
            Faults = faults.Count == 0 ? null : faults,
        };
    }

    /// <summary>What journals do not say by themselves: which parts of a suite are not among those that were brought together.</summary>
    /// <param name="lines">The lines of all of them.</param>
    /// <returns>Ids for what is missing, <c>Suite.Shard.2of3</c>.</returns>
    public static IReadOnlyList<string> MissingShards(IEnumerable<JournalLine> lines)
    {
        SortedSet<string> missing = new(StringComparer.Ordinal);
        foreach (IGrouping<string, JournalLine> suite in lines.Where(l => l is { Event: JournalEvent.Open, Suite: not null }).GroupBy(l => l.Suite!))
        {
            List<Shard> parts = [.. suite.Select(l => l.Shard is null ? new Shard(1, 1) : Shard.Parse(l.Shard)).OfType<Shard>().Distinct()];
            int count = parts.Max(p => p.Count);
            missing.UnionWith(parts.Exists(p => p.Count == 1) ? [] : Enumerable.Range(1, count).Where(n => !parts.Contains(new Shard(n, count))).Select(n => $"{suite.Key}.Shard.{n}of{count}"));
        }

        return [.. missing];
    }

    /// <summary>One record of all attempts: the worst, which says so when they do not agree. What was green and red is never green.</summary>
    private static TestRecord Attempts(List<TestRecord> all)
    {
        if (all.Count == 1)
        {
            return all[0];
        }

        TestRecord worst = all.MaxBy(t => t.Verdict switch
        {
            Verdict.Crash => 6,
            Verdict.Hang => 5,
            Verdict.Fail => 4,
            Verdict.Broken => 3,
            Verdict.Known => 2,
            Verdict.Skip => 1,
            _ => 0,
        })!;
        List<string> counts = [.. all.CountBy(t => t.Verdict).OrderByDescending(c => c.Value).Select(c => $"{c.Value} {c.Key}")];
        return worst with
        {
            Attempts = all.Count,
            Verdicts = [.. all.Select(t => t.Verdict)],
            DurationMs = all.Max(t => t.DurationMs),
            // The text of a skip has a form of its own.
            Reason = counts.Count == 1 || worst.Verdict == Verdict.Skip ? worst.Reason : $"not steady, {string.Join(", ", counts)} in {all.Count}: {worst.Reason}",
            Explained = counts.Count == 1 || worst.Verdict == Verdict.Skip ? worst.Explained : [new Explanation("attempts", $"not steady: {string.Join(", ", counts)} in {all.Count}"), .. worst.Explained ?? []],
        };
    }

    /// <summary>Writes <c>results.json</c> in one step: a reader sees the old file or the new one, and a full disk leaves the old one.</summary>
    /// <param name="folder">The kernel's folder.</param>
    /// <param name="run">What to write.</param>
    /// <exception cref="IOException">It could not be written; the message names the file.</exception>
    public static void Write(string folder, RunRecord run)
    {
        string path = Path.Combine(folder, FileName);
        string partial = path + ".partial";
        try
        {
            File.WriteAllBytes(partial, ResultsJson.Write(run));
            File.Move(partial, path, overwrite: true);
        }
        catch (IOException failure)
        {
            File.Delete(partial);
            throw new IOException($"cannot write {path}: {failure.Message}", failure);
        }
    }
}

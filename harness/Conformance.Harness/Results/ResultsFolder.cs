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
        Merge(ResultsJournal.In(folder).SelectMany(ResultsJournal.Read)) is { } run ? Expectations.In(folder)?.Apply(run) ?? run : null;

    /// <summary>Builds the run from journal lines of any number of suites on one kernel.</summary>
    /// <param name="lines">The lines; of each suite in their order.</param>
    /// <returns>Null when no line says which kernel it is about.</returns>
    public static RunRecord? Merge(IEnumerable<JournalLine> lines)
    {
        JournalLine? open = null;
        TargetIdentity? target = null;
        DateTimeOffset last = default;
        SortedSet<string> planned = new(StringComparer.Ordinal);
        SortedDictionary<string, TestRecord> tests = new(StringComparer.Ordinal);
        List<string> faults = [];
        foreach (JournalLine line in lines)
        {
            last = line.At > last ? line.At : last;
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
                    tests[record.Id] = record;
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
            Tests = [.. tests.Values],
            Missing = planned.Count == 0 ? null : [.. planned],
            Faults = faults.Count == 0 ? null : faults,
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

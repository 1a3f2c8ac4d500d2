// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance merge</c>.</summary>
internal static class MergeCommand
{
    // What belongs to a test, by its id; and what belongs to the kernel, the same in each.
    private static readonly string[] s_evidence = ["journal", "console"];
    private static readonly string[] s_once = [Expectations.FileName, "prepared.json", "machine.json"];

    /// <summary>Merges the journals of every kernel in output folders.</summary>
    /// <param name="folders">Folders given to <c>run --output</c>, or those of one kernel.</param>
    /// <param name="into">Where the results of several are brought together; null to merge one where it is.</param>
    /// <param name="output">Where to say what was found.</param>
    /// <returns>The exit code the run would have had.</returns>
    /// <exception cref="UsageException">There is nothing to merge, or it does not belong together.</exception>
    /// <exception cref="MachineFaultException">The results cannot be written.</exception>
    public static int Run(IReadOnlyList<string> folders, string? into, CommandOutput output)
    {
        if (folders.FirstOrDefault(f => !Directory.Exists(f)) is { } absent)
        {
            throw new UsageException($"There is no folder {absent}.");
        }

        if (into is null && folders.Count > 1)
        {
            throw new UsageException("Several folders are brought together in a new one: add --into DIR.");
        }

        try
        {
            return into is null ? InPlace(folders[0], output) : Together(folders, into, output);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new MachineFaultException(failure.Message, failure);
        }
    }

    private static int InPlace(string folder, CommandOutput output)
    {
        List<RunRecord> runs = [];
        foreach (string kernel in KernelsIn(folder))
        {
            if (ResultsFolder.Merge(kernel) is { } run)
            {
                ResultsFolder.Write(kernel, run);
                runs.Add(run);
                Say(kernel, run, output);
            }
        }

        return runs.Count > 0 ? ExitCode.Of(runs) : throw new UsageException($"{folder} holds no results of a run.");
    }

    private static int Together(IReadOnlyList<string> folders, string into, CommandOutput output)
    {
        if (Directory.Exists(into) && Directory.EnumerateFileSystemEntries(into).Any())
        {
            throw new UsageException($"--into {into}: there is something in it already; name a new folder.");
        }

        List<(string Folder, RunRecord Run)> parts =
            [.. folders.Select(Path.GetFullPath).Distinct().SelectMany(KernelsIn).Select(k => (Folder: k, Run: ResultsFolder.Merge(k))).Where(p => p.Run is not null).Select(p => (p.Folder, p.Run!))];
        if (parts.Count == 0)
        {
            throw new UsageException($"{string.Join(", ", folders)}: no results of a run.");
        }

        List<RunRecord> runs = [];
        foreach (IGrouping<string, (string Folder, RunRecord Run)> kernel in parts.GroupBy(p => p.Run.Kernel.Id))
        {
            CheckSame([.. kernel]);
            string folder = Path.Combine(into, kernel.Key);
            int number = 0;
            foreach ((string from, _) in kernel)
            {
                Copy(from, folder, ++number);
            }

            // A part that did not come is in no journal; written down as planned, it is missing whenever the folder is merged again.
            foreach (string id in ResultsFolder.MissingShards(ResultsJournal.In(folder).SelectMany(ResultsJournal.Read)))
            {
                using ResultsJournal journal = ResultsJournal.Open(folder, id.Split('.')[0]);
                journal.Append(JournalLine.Now(JournalEvent.Plan) with { Tests = [id] });
            }

            RunRecord run = ResultsFolder.Merge(folder)!;
            ResultsFolder.Write(folder, run);
            runs.Add(run);
            Say(folder, run, output);
        }

        return ExitCode.Of(runs);
    }

    private static void CheckSame(List<(string Folder, RunRecord Run)> parts)
    {
        (string first, RunRecord of) = parts[0];
        foreach ((string folder, RunRecord run) in parts.Skip(1))
        {
            if (run.Kernel.ImageSha256 != of.Kernel.ImageSha256 || !run.Kernel.Modules.OrderBy(m => m.Key).SequenceEqual(of.Kernel.Modules.OrderBy(m => m.Key)))
            {
                throw new UsageException($"{first} and {folder} are of different kernels, both named {of.Kernel.Id}: their images or modules differ.");
            }

            if (run.SuiteVersion != of.SuiteVersion)
            {
                throw new UsageException($"{first} and {folder} are of different versions of the suites: {of.SuiteVersion} and {run.SuiteVersion}.");
            }
        }
    }

    // Two parts may have run the same test: each keeps its evidence, under a name of its own.
    private static void Copy(string from, string to, int number)
    {
        Directory.CreateDirectory(to);
        foreach (string kind in s_evidence.Where(k => Directory.Exists(Path.Combine(from, k))))
        {
            Directory.CreateDirectory(Path.Combine(to, kind));
            foreach (string file in Directory.EnumerateFiles(Path.Combine(from, kind)))
            {
                File.Copy(file, Path.Combine(to, Named($"{kind}/{Path.GetFileName(file)}", number)!));
            }
        }

        foreach (string name in s_once.Where(n => File.Exists(Path.Combine(from, n)) && !File.Exists(Path.Combine(to, n))))
        {
            File.Copy(Path.Combine(from, name), Path.Combine(to, name));
        }

        foreach (string path in ResultsJournal.In(from))
        {
            using FileStream journal = new(Path.Combine(to, Path.GetFileName(path)), FileMode.Append);
            foreach (JournalLine line in ResultsJournal.Read(path))
            {
                journal.Write((line with
                {
                    Record = line.Record is { } record ? record with { Console = Named(record.Console, number), Journal = Named(record.Journal, number) } : null,
                }).ToBytes());
            }
        }
    }

    private static string? Named(string? file, int number) => file is null || number == 1 ? file : $"{Path.ChangeExtension(file, null)}.part{number}{Path.GetExtension(file)}";

    private static IEnumerable<string> KernelsIn(string folder) => Directory.EnumerateDirectories(folder).Append(folder).Order(StringComparer.Ordinal);

    private static void Say(string folder, RunRecord run, CommandOutput output)
    {
        string missing = run.Missing is { } ids ? $", {ids.Count} missing" : string.Empty;
        output.Out.WriteLine($"{Path.Combine(folder, ResultsFolder.FileName)}: {RunView.Counts(run.Tests.CountBy(t => t.Verdict).ToDictionary())}{missing}");
    }
}

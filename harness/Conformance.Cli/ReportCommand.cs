// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance report</c>: one page for release qualification.</summary>
internal static class ReportCommand
{
    /// <param name="baseline">Results to compare with; null: none.</param>
    /// <param name="file">The page; null: report.html in the results folder.</param>
    public static int Run(Installation installation, string folder, string? baseline, string? file, CommandOutput output)
    {
        IReadOnlyList<(string Folder, RunRecord Run)> runs =
            [.. ResultsFolders.Read(folder).OrderBy(r => r.Run.Kernel.Arch, StringComparer.Ordinal).ThenBy(r => r.Run.StableRelease)];
        RunRecord? before = baseline is null ? null : ResultsFolders.Read(baseline)[0].Run;
        ReportClause[] clauses = [.. ClauseIndex.Load(installation.Clauses).All.Select(c => new ReportClause(c.Id, c.Text, c.Source))];
        Ledgers ledgers = Ledgers.Load(installation, [], null);
        var report = new HtmlReport([.. runs.Select(r => r.Run)], clauses, before) { KnownChanges = ledgers.Changes, Expected = ledgers.Capabilities };
        string page = report.Write((run, path) =>
        {
            string full = Path.Combine(runs.First(r => r.Run == run).Folder, path);
            return File.Exists(full) ? File.ReadAllText(full) : null;
        });
        file ??= Path.Combine(folder, "report.html");
        try
        {
            File.WriteAllText(file, page);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new UsageException($"--output {file}: {failure.Message}", failure);
        }

        output.Out.WriteLine(file);
        return ExitCode.Clean;
    }
}

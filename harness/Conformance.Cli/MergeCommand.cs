// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance merge</c>.</summary>
internal static class MergeCommand
{
    /// <summary>Merges the journals of every kernel in an output folder.</summary>
    /// <param name="folder">The folder given to <c>run --output</c>, or that of one kernel.</param>
    /// <param name="output">Where to say what was found.</param>
    /// <returns>The exit code the run would have had.</returns>
    /// <exception cref="UsageException">There is nothing to merge.</exception>
    /// <exception cref="MachineFaultException">The results cannot be written.</exception>
    public static int Run(string folder, CommandOutput output)
    {
        if (!Directory.Exists(folder))
        {
            throw new UsageException($"There is no folder {folder}.");
        }

        List<RunRecord> runs = [];
        foreach (string kernel in Directory.EnumerateDirectories(folder).Append(folder).Order(StringComparer.Ordinal))
        {
            if (ResultsFolder.Merge(kernel) is not { } run)
            {
                continue;
            }

            try
            {
                ResultsFolder.Write(kernel, run);
            }
            catch (IOException failure)
            {
                throw new MachineFaultException(failure.Message, failure);
            }

            runs.Add(run);
            string missing = run.Missing is { } ids ? $", {ids.Count} missing" : string.Empty;
            output.Out.WriteLine($"{Path.Combine(kernel, ResultsFolder.FileName)}: {RunView.Counts(run.Tests.CountBy(t => t.Verdict).ToDictionary())}{missing}");
        }

        return runs.Count > 0 ? ExitCode.Of(runs) : throw new UsageException($"{folder} holds no results of a run.");
    }
}

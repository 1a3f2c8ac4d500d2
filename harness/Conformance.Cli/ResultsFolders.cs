// SPDX-License-Identifier: MIT
using System.Text.Json;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>Results as commands name them: an output folder with a folder per kernel, or that of one kernel.</summary>
internal static class ResultsFolders
{
    /// <exception cref="UsageException">There are no results, or they cannot be read.</exception>
    public static IReadOnlyList<(string Folder, RunRecord Run)> Read(string folder)
    {
        if (!Directory.Exists(folder))
        {
            throw new UsageException($"There is no folder {folder}. Name the one given to 'run --output'.");
        }

        var runs = new List<(string, RunRecord)>();
        foreach (string kernel in Directory.EnumerateDirectories(folder).Prepend(folder).Order(StringComparer.Ordinal))
        {
            string file = Path.Combine(kernel, ResultsFolder.FileName);
            if (!File.Exists(file))
            {
                continue;
            }

            try
            {
                runs.Add((kernel, ResultsJson.Read(file)));
            }
            catch (Exception e) when (e is JsonException or InvalidDataException or NotSupportedException)
            {
                throw new UsageException($"{file} cannot be read: {e.Message}");
            }
        }

        return runs.Count > 0 ? runs : throw new UsageException($"{folder} holds no results.json. 'conformance merge {folder}' builds it from what a killed run left.");
    }
}

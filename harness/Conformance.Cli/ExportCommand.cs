// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results.Formats;

namespace Conformance.Cli;

/// <summary><c>conformance export</c>: results in the formats of other tools.</summary>
internal static class ExportCommand
{
    public static string Known => string.Join("; ", ResultFormat.All.Select(f => $"{f.Name}: {f.Description}"));

    /// <param name="formats">Names; one is printed, several need a folder.</param>
    /// <param name="into">Folder for the files; null: standard output.</param>
    public static int Run(string folder, IReadOnlyList<string> formats, string? into, CommandOutput output)
    {
        List<ResultFormat> wanted = [.. formats.SelectMany(f => f.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)).Select(Find)];
        if (into is null && wanted.Count > 1)
        {
            throw new UsageException("Several formats need --into DIR.");
        }

        IReadOnlyList<Results.RunRecord> runs = [.. ResultsFolders.Read(folder).Select(r => r.Run)];
        foreach (ResultFormat format in wanted)
        {
            string text = format.Write(runs);
            if (into is null)
            {
                output.Out.Write(text);
                continue;
            }

            Directory.CreateDirectory(into);
            string file = Path.Combine(into, format.FileName);
            File.WriteAllText(file, text);
            output.Out.WriteLine(file);
        }

        return Results.ExitCode.Clean;
    }

    private static ResultFormat Find(string name) => ResultFormat.All.FirstOrDefault(f => f.Name == name)
        ?? throw new UsageException($"There is no format '{name}'. {NearestNames.Hint(name, [.. ResultFormat.All.Select(f => f.Name)])}".TrimEnd());
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;

namespace Conformance.Results;

/// <summary>A table of ours: tab-separated, with a line of names on top; lines that begin with <c>#</c> and empty ones are for people.</summary>
internal static class Table
{
    /// <summary>Reads the rows.</summary>
    /// <param name="text">The table.</param>
    /// <param name="file">What messages call it.</param>
    /// <param name="columns">The names on top, in order.</param>
    /// <param name="read">Makes a row of its fields and of the place it is written at, <c>file:line</c>.</param>
    /// <exception cref="UsageException">A line is wrong; the message says which and how.</exception>
    public static IReadOnlyList<T> Read<T>(string text, string file, string[] columns, Func<string[], string, T> read)
    {
        List<T> rows = [];
        bool named = false;
        string[] lines = text.Split('\n');
        for (int i = 0; i < lines.Length; i++)
        {
            string line = lines[i].TrimEnd('\r'), place = $"{file}:{i + 1}";
            if (line.Trim().Length == 0 || line[0] == '#')
            {
                continue;
            }

            string[] fields = [.. line.Split('\t').Select(f => f.Trim())];
            if (!named)
            {
                named = fields.SequenceEqual(columns) ? true
                    : throw new UsageException($"{place}: the first line names the columns, with tabs between them: {string.Join(", ", columns)}.");
                continue;
            }

            if (fields.Length != columns.Length)
            {
                throw new UsageException($"{place}: {fields.Length} fields; wanted {columns.Length} with tabs between them: {string.Join(", ", columns)}.");
            }

            if (Array.FindIndex(fields, f => f.Length == 0) is >= 0 and var empty)
            {
                throw new UsageException($"{place}: {columns[empty]} is empty.");
            }

            try
            {
                rows.Add(read(fields, place));
            }
            catch (FormatException wrong)
            {
                throw new UsageException($"{place}: {wrong.Message}.", wrong);
            }
        }

        return named ? rows : throw new UsageException($"{file}: nothing in it; the first line names the columns, with tabs between them: {string.Join(", ", columns)}.");
    }
}

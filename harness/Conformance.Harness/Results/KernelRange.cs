// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kernels;

namespace Conformance.Results;

/// <summary>
/// Which kernels a row of a table is about: words that must all hold. <c>x86_64</c> or <c>arm64</c>; a release (<c>6.12</c> is the whole
/// series, <c>6.12.117</c> one release); a range with either end open, both ends in it (<c>6.1..6.12.40</c>, <c>7.2..</c>);
/// <c>has:CHANGE</c> or <c>lacks:CHANGE</c> of <c>suites/changes.tsv</c>; <c>*</c> for all.
/// </summary>
public sealed record KernelRange
{
    /// <summary>As it is written.</summary>
    public required string Text { get; init; }

    /// <summary>The changes it names, so that it can be read again without the table.</summary>
    public IReadOnlyList<KernelChange> Changes { get; init; } = [];

    /// <summary>Reads a range.</summary>
    /// <param name="text">As it is written.</param>
    /// <param name="changes">What <c>has:</c> and <c>lacks:</c> may name.</param>
    /// <exception cref="FormatException">A word is none of those above; the message says which.</exception>
    public static KernelRange Parse(string text, ChangeTable changes)
    {
        List<KernelChange> named = [];
        foreach (string word in Words(text))
        {
            if (NameIn(word) is { } name)
            {
                named.Add(changes.Changes.FirstOrDefault(c => c.Name == name) ?? throw new FormatException($"suites/changes.tsv has no change named '{name}'"));
            }
            else if (word is not ("*" or "x86_64" or "arm64"))
            {
                _ = Includes(word, new Version(0, 0, 0));
            }
        }

        return named.Count > 0 || Words(text).Length > 0 ? new KernelRange { Text = text, Changes = named } : throw new FormatException("no kernels; write * for all");
    }

    /// <summary>Whether a kernel is meant.</summary>
    /// <param name="architecture"><c>x86_64</c> or <c>arm64</c>.</param>
    /// <param name="release">Its release, with the stable number.</param>
    public bool Covers(string architecture, Version release) => Words(Text).All(word =>
        word == "*" || word == architecture
        || (word is not ("x86_64" or "arm64") && (NameIn(word) is { } name
            ? Changes.First(c => c.Name == name).IsIn(release) == word.StartsWith("has:", StringComparison.Ordinal)
            : Includes(word, release))));

    /// <summary>Whether every kernel of an architecture it is about is of that one.</summary>
    /// <param name="architecture"><c>x86_64</c> or <c>arm64</c>.</param>
    public bool MayCover(string architecture) => Words(Text).All(word => word is not ("x86_64" or "arm64") || word == architecture);

    /// <inheritdoc/>
    public override string ToString() => Text;

    private static string[] Words(string text) => text.Split(' ', StringSplitOptions.RemoveEmptyEntries);

    private static string? NameIn(string word) =>
        word.StartsWith("has:", StringComparison.Ordinal) ? word[4..] : word.StartsWith("lacks:", StringComparison.Ordinal) ? word[6..] : null;

    private static bool Includes(string word, Version release)
    {
        int dots = word.IndexOf("..", StringComparison.Ordinal);
        if (dots < 0)
        {
            int[] only = Numbers(word, word);
            return Compare(release, only) == 0;
        }

        string from = word[..dots], to = word[(dots + 2)..];
        int[]? low = from.Length == 0 ? null : Numbers(from, word), high = to.Length == 0 ? null : Numbers(to, word);
        return low is null && high is null
            ? throw new FormatException($"'{word}' is a range without ends; write * for all")
            : (low is null || Compare(release, low) >= 0) && (high is null || Compare(release, high) <= 0);
    }

    // A series is as wide as it is written: every 6.12.y is in 6.12.
    private static int Compare(Version release, int[] numbers)
    {
        int[] seen = [release.Major, release.Minor, Math.Max(0, release.Build)];
        return Enumerable.Range(0, numbers.Length).Select(i => seen[i].CompareTo(numbers[i])).FirstOrDefault(c => c != 0);
    }

    private static int[] Numbers(string text, string word)
    {
        string[] parts = text.Split('.');
        int[] numbers = [.. parts.Select(p => p.Length is > 0 and < 6 && p.All(char.IsAsciiDigit) ? int.Parse(p, System.Globalization.CultureInfo.InvariantCulture) : -1)];
        return parts.Length is 2 or 3 && !numbers.Contains(-1)
            ? numbers
            : throw new FormatException($"'{word}' is no architecture, release (6.12, 6.12.117), range (6.1..6.12.40, 7.2..), has:CHANGE or lacks:CHANGE");
    }
}

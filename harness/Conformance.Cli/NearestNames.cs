// SPDX-License-Identifier: MIT
namespace Conformance.Cli;

/// <summary>Suggestions for a name that does not exist.</summary>
internal static class NearestNames
{
    private const int Most = 3;

    /// <summary>A sentence that names the nearest of what exists, or all of it when there is little.</summary>
    /// <param name="wanted">What was asked for.</param>
    /// <param name="known">What there is.</param>
    public static string Hint(string wanted, IReadOnlyCollection<string> known)
    {
        IReadOnlyList<string> nearest = Of(wanted, known);
        return nearest.Count > 0 ? $"Nearest: {string.Join(", ", nearest)}."
            : known.Count is > 0 and <= 2 * Most ? $"There is: {string.Join(", ", known)}."
            : string.Empty;
    }

    /// <summary>What exists and is near enough to be meant, nearest first.</summary>
    /// <param name="wanted">What was asked for.</param>
    /// <param name="known">What there is; of dotted names each end counts as a name too.</param>
    public static IReadOnlyList<string> Of(string wanted, IEnumerable<string> known) =>
    [
        .. known
            .Select(name => (Name: name, Cost: Tails(name).Min(tail => Cost(wanted, tail))))
            .Where(c => c.Cost <= Math.Max(2, wanted.Length / 3))
            .OrderBy(c => c.Cost)
            .ThenBy(c => c.Name, StringComparer.Ordinal)
            .Take(Most)
            .Select(c => c.Name),
    ];

    private static IEnumerable<string> Tails(string name)
    {
        yield return name;
        for (int dot = name.IndexOf('.'); dot >= 0; dot = name.IndexOf('.', dot + 1))
        {
            yield return name[(dot + 1)..];
        }
    }

    // A part of a long name is nearer than its length suggests: people type beginnings.
    private static int Cost(string wanted, string name) =>
        wanted.Length >= 4 && name.Contains(wanted, StringComparison.OrdinalIgnoreCase) ? 0 : Distance(wanted, name);

    private static int Distance(string a, string b)
    {
        int[] previous = [.. Enumerable.Range(0, b.Length + 1)];
        int[] current = new int[b.Length + 1];
        for (int i = 0; i < a.Length; i++)
        {
            current[0] = i + 1;
            for (int j = 0; j < b.Length; j++)
            {
                int change = char.ToUpperInvariant(a[i]) == char.ToUpperInvariant(b[j]) ? 0 : 1;
                current[j + 1] = Math.Min(Math.Min(current[j] + 1, previous[j + 1] + 1), previous[j] + change);
            }

            (previous, current) = (current, previous);
        }

        return previous[b.Length];
    }
}

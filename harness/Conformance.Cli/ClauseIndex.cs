// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Cli;

/// <summary>A rule of <c>suites/clauses</c>.</summary>
/// <param name="Id">The rule's id, for example <c>kvm-irqfd/deassign/drains</c>.</param>
/// <param name="Text">The rule, one line.</param>
/// <param name="Source">Where it comes from; null when the line does not say.</param>
internal sealed record Clause(string Id, string Text, string? Source);

/// <summary>
/// The rules of <c>suites/clauses/*.md</c>: every list item that begins with an id in backquotes is a rule, and the brackets it
/// ends with say where the rule comes from.
/// </summary>
internal sealed partial class ClauseIndex
{
    private readonly Dictionary<string, Clause> _clauses;

    private ClauseIndex(IEnumerable<Clause> clauses) =>
        _clauses = clauses.DistinctBy(c => c.Id).ToDictionary(c => c.Id, StringComparer.Ordinal);

    public IEnumerable<Clause> All => _clauses.Values.OrderBy(c => c.Id, StringComparer.Ordinal);

    public static ClauseIndex Load(string folder) => new(
        Directory.Exists(folder)
            ? Directory.EnumerateFiles(folder, "*.md").Order(StringComparer.Ordinal).SelectMany(f => Parse(File.ReadLines(f)))
            : []);

    public static IEnumerable<Clause> Parse(IEnumerable<string> lines)
    {
        foreach (string line in lines)
        {
            if (Rule().Match(line) is { Success: true } rule)
            {
                string source = rule.Groups["source"].Value;
                yield return new Clause(rule.Groups["id"].Value, rule.Groups["text"].Value.Trim(), source.Length == 0 ? null : source);
            }
        }
    }

    public string? SourceOf(string id) => _clauses.GetValueOrDefault(id)?.Source;

    [GeneratedRegex(@"^\s*[-*]\s+`(?<id>[a-z0-9-]+(?:/[a-z0-9-]+)+)`\s*(?<text>.*?)\s*(?:\[(?<source>[^\]]+)\])?\s*$")]
    private static partial Regex Rule();
}

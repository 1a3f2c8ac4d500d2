// SPDX-License-Identifier: MIT
using System.IO.Enumeration;

namespace Conformance.Results;

/// <summary>
/// What <c>--test</c> takes. Without <c>*</c> or <c>?</c> it is a run of whole id segments (<c>MsiRoute.SignalledIrqfd…</c>,
/// a class, a method, a whole id); with them it is a glob that starts at any segment and ends at the id's end. A class may
/// carry its <c>Tests</c> suffix.
/// </summary>
public sealed class TestPattern
{
    /// <summary>What a test class's name may end with and its id does not.</summary>
    public const string ClassSuffix = "Tests";

    private readonly string[] _segments;
    private readonly string? _glob;

    /// <summary>Reads a pattern.</summary>
    /// <param name="text">As it was given on the command line.</param>
    public TestPattern(string text)
    {
        Text = text;
        _segments = [.. text.Split('.').Select(WithoutSuffix)];
        _glob = text.AsSpan().ContainsAny('*', '?') ? string.Join('.', _segments) : null;
    }

    /// <summary>The pattern as it was given.</summary>
    public string Text { get; }

    /// <summary>Whether a test is meant.</summary>
    /// <param name="id">The test's id.</param>
    public bool Matches(string id)
    {
        string[] segments = id.Split('.');
        return Enumerable.Range(0, segments.Length).Any(start => _glob is not null
            ? FileSystemName.MatchesSimpleExpression(_glob, string.Join('.', segments[start..]), ignoreCase: false)
            : segments.AsSpan(start).StartsWith(_segments));
    }

    /// <summary>Whether a row of a theory could be meant: the rows of a theory are known only when it is discovered.</summary>
    /// <param name="theory">The theory's id, without a row.</param>
    public bool MayMatchRowOf(string theory)
    {
        if (Matches(theory) || (_glob is not null && Matches(theory + ".row")))
        {
            return true;
        }

        // The pattern's last segment may name the row.
        return _segments.Length > 1 && new TestPattern(string.Join('.', _segments[..^1])) is var withoutRow
            && theory.Split('.') is var segments
            && Enumerable.Range(0, segments.Length).Any(start => withoutRow._glob is not null
                ? FileSystemName.MatchesSimpleExpression(withoutRow._glob, string.Join('.', segments[start..]), ignoreCase: false)
                : segments.AsSpan(start).SequenceEqual(withoutRow._segments));
    }

    /// <inheritdoc/>
    public override string ToString() => Text;

    private static string WithoutSuffix(string segment) =>
        segment.Length > ClassSuffix.Length && segment.EndsWith(ClassSuffix, StringComparison.Ordinal)
            ? segment[..^ClassSuffix.Length]
            : segment;
}

// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;
using Conformance.Results;

namespace Conformance.Fixtures;

/// <summary>
/// Splits an assertion's message into what was wanted and what was seen. The second label is the name of the variable under
/// test where the message has it, so that <c>taken.Should().Equal(…)</c> reads <c>wanted … / taken …</c>.
/// </summary>
internal static partial class AssertionText
{
    private const string Wanted = "wanted";
    private const string Seen = "seen";

    public static IReadOnlyList<Explanation> Explain(string message)
    {
        string text = message.Trim();
        if (Fluent().Match(text) is { Success: true } fluent)
        {
            string subject = fluent.Groups["subject"].Value;
            return
            [
                new(Wanted, fluent.Groups["wanted"].Value.Trim()),
                new(Word().IsMatch(subject) ? subject : Seen, fluent.Groups["seen"].Value.Trim().TrimEnd('.')),
            ];
        }

        if (Xunit().Match(text) is { Success: true } xunit)
        {
            return
            [
                new("claim", xunit.Groups["claim"].Value.Trim()),
                new(Wanted, xunit.Groups["wanted"].Value.Trim()),
                new(Seen, xunit.Groups["seen"].Value.Trim()),
            ];
        }

        return [new("claim", text)];
    }

    // FluentAssertions: "Expected taken to be equal to {0x41, 0x31}, but {0x31} contains 1 item(s) less."
    [GeneratedRegex(@"^Expected (?<subject>.+?) to (?:be )?(?<wanted>.+), but (?:found )?(?<seen>.+)$", RegexOptions.Singleline)]
    private static partial Regex Fluent();

    // xunit: a title, then "Expected: …" and "Actual:   …" on lines of their own.
    [GeneratedRegex(@"^(?<claim>.+?)\n\s*Expected: (?<wanted>.*?)\n\s*Actual: (?<seen>.*)$", RegexOptions.Singleline)]
    private static partial Regex Xunit();

    [GeneratedRegex(@"^[A-Za-z_]\w{0,15}$")]
    private static partial Regex Word();
}

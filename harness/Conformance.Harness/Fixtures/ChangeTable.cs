// SPDX-License-Identifier: MIT
using System.Globalization;

namespace Conformance.Fixtures;

/// <summary>A behaviour change between kernels: one line of <c>suites/changes.tsv</c>.</summary>
/// <param name="Name">Used in snapshot variants and skip reasons.</param>
/// <param name="Commit">Mainline commit, twelve digits or more.</param>
/// <param name="Mainline">First mainline release with it, for example 6.17.</param>
/// <param name="Stable">Stable releases that took it, for example 6.12.41.</param>
/// <param name="Summary">What changed, in one sentence.</param>
public sealed record KernelChange(string Name, string Commit, Version Mainline, IReadOnlyList<Version> Stable, string Summary)
{
    /// <summary>Whether a release has it by its number: at or after mainline, or at or after the backport of its own stable series.</summary>
    public bool IsIn(Version release)
    {
        var series = new Version(release.Major, release.Minor);
        return series >= new Version(Mainline.Major, Mainline.Minor)
            || Stable.Any(s => s.Major == release.Major && s.Minor == release.Minor && release >= s);
    }
}

/// <summary>All of <c>suites/changes.tsv</c>.</summary>
public sealed class ChangeTable
{
    private readonly Dictionary<string, KernelChange> _changes;

    private ChangeTable(Dictionary<string, KernelChange> changes) => _changes = changes;

    public IReadOnlyCollection<KernelChange> Changes => _changes.Values;

    public KernelChange this[string name] => _changes.TryGetValue(name, out KernelChange? change)
        ? change
        : throw new ArgumentException($"suites/changes.tsv has no change named {name}.", nameof(name));

    /// <exception cref="FormatException">A line is not five tab-separated fields.</exception>
    public static ChangeTable Parse(string text)
    {
        var changes = new Dictionary<string, KernelChange>(StringComparer.Ordinal);
        string[] lines = text.Split('\n');
        for (int number = 1; number < lines.Length; number++)
        {
            string line = lines[number].TrimEnd('\r');
            if (line.Length == 0 || line[0] == '#')
            {
                continue;
            }

            string[] fields = line.Split('\t');
            if (fields.Length != 5)
            {
                throw new FormatException($"suites/changes.tsv:{number + 1}: {fields.Length} fields; wanted name, commit, mainline, stable, summary.");
            }

            changes.Add(fields[0], new KernelChange(fields[0], fields[1], ParseRelease(fields[2]),
                [.. fields[3].Split([' ', ','], StringSplitOptions.RemoveEmptyEntries).Where(s => s != "-").Select(ParseRelease)], fields[4]));
        }

        return new ChangeTable(changes);
    }

    /// <summary>
    /// The stable release in /proc/version: Debian's <c>Linux version 6.1.0-56-amd64 (…) … Debian 6.1.192-2 (…)</c> is 6.1.192, any other
    /// kernel's is the third word.
    /// </summary>
    public static Version ParseStableRelease(string procVersion)
    {
        string[] words = procVersion.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        int debian = Array.LastIndexOf(words, "Debian");
        return ParseRelease(debian >= 0 && debian + 1 < words.Length && char.IsAsciiDigit(words[debian + 1][0]) ? words[debian + 1] : words[2]);
    }

    /// <summary>The numbers at the head of a release string: 6.12.117+deb13-amd64 is 6.12.117.</summary>
    /// <remarks>Debian's 5.10.0-46 and 6.1.0-56 name an ABI there; the stable number is in /proc/version.</remarks>
    public static Version ParseRelease(string release)
    {
        string head = new([.. release.TakeWhile(c => char.IsAsciiDigit(c) || c == '.')]);
        string[] parts = head.Trim('.').Split('.');
        return parts.Length >= 2
            ? new Version(Number(parts[0]), Number(parts[1]), parts.Length > 2 ? Number(parts[2]) : 0)
            : throw new FormatException($"\"{release}\" is not a kernel release.");

        static int Number(string digits) => int.Parse(digits, CultureInfo.InvariantCulture);
    }
}

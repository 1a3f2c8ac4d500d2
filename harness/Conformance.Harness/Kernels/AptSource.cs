// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Kernels;

/// <summary>
/// One repository of this machine's own apt configuration (sources.list(5)), read to learn which mirror serves Debian here.
/// </summary>
/// <param name="Options">What the machine says about trusting it, under deb822 names: Signed-By, Trusted ...</param>
internal sealed partial record AptSource(string Uri, IReadOnlyList<string> Suites, IReadOnlyList<string> Components, IReadOnlyDictionary<string, string> Options)
{
    private static readonly HashSet<string> s_debianSuites = new(StringComparer.Ordinal)
    {
        "buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid", "experimental", "rc-buggy",
        "oldoldstable", "oldstable", "stable", "testing", "unstable",
    };

    /// <summary>Reads every file apt itself would read.</summary>
    /// <param name="directory">Usually <c>/etc/apt</c>.</param>
    public static IReadOnlyList<AptSource> ReadAll(string directory)
    {
        List<string> files = [];
        string main = Path.Combine(directory, "sources.list");
        if (File.Exists(main))
        {
            files.Add(main);
        }

        string parts = Path.Combine(directory, "sources.list.d");
        if (Directory.Exists(parts))
        {
            files.AddRange(Directory.EnumerateFiles(parts).Order(StringComparer.Ordinal));
        }

        List<AptSource> sources = [];
        foreach (string file in files)
        {
            // apt skips a file with any other ending.
            if (file.EndsWith(".sources", StringComparison.Ordinal))
            {
                sources.AddRange(ParseDeb822(File.ReadAllText(file)));
            }
            else if (file.EndsWith(".list", StringComparison.Ordinal))
            {
                sources.AddRange(ParseList(File.ReadAllText(file)));
            }
        }

        return sources;
    }

    /// <summary>Reads the form with one field per line.</summary>
    public static IEnumerable<AptSource> ParseDeb822(string text)
    {
        foreach (IReadOnlyDictionary<string, string> stanza in Stanzas(text))
        {
            if ((stanza.TryGetValue("Enabled", out string? enabled) && enabled.Trim().ToLowerInvariant() is "no" or "false" or "0" or "off" or "disable" or "without")
                || !Words(stanza, "Types").Contains("deb"))
            {
                continue;
            }

            Dictionary<string, string> options = new(StringComparer.OrdinalIgnoreCase);
            foreach (string name in new[] { "Signed-By", "Trusted", "Check-Valid-Until", "Allow-Insecure", "Allow-Weak" })
            {
                if (stanza.TryGetValue(name, out string? value))
                {
                    options[name] = value;
                }
            }

            foreach (string uri in Words(stanza, "URIs"))
            {
                yield return new AptSource(WithSlash(uri), Words(stanza, "Suites"), Words(stanza, "Components"), options);
            }
        }
    }

    /// <summary>Reads the form with one repository per line.</summary>
    public static IEnumerable<AptSource> ParseList(string text)
    {
        foreach (string raw in text.Split('\n'))
        {
            string line = raw.Split('#', 2)[0].Trim();
            Match match = OneLine().Match(line);
            if (!match.Success)
            {
                continue;
            }

            Dictionary<string, string> options = new(StringComparer.OrdinalIgnoreCase);
            foreach (string option in match.Groups["options"].Value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
            {
                string[] pair = option.Split('=', 2);
                if (pair.Length == 2 && pair[0].ToLowerInvariant() is "signed-by" or "trusted" or "check-valid-until" or "allow-insecure" or "allow-weak")
                {
                    options[pair[0]] = pair[1];
                }
            }

            string[] rest = match.Groups["rest"].Value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            if (rest.Length >= 1)
            {
                yield return new AptSource(WithSlash(match.Groups["uri"].Value), [rest[0]], rest[1..], options);
            }
        }
    }

    /// <summary>The machine's mirror of Debian's main archive, or of its security archive; null when it names none.</summary>
    public static AptSource? FindMirror(IEnumerable<AptSource> sources, bool security) =>
        sources
            .Where(source => source.Suites.Any(suite => IsDebianSuite(suite, security)) && source.Components.Contains("main"))
            .MaxBy(source => source.Likeness);

    // Third parties publish suites named like Debian's: an archive that carries Debian's own signature or name comes first.
    private int Likeness =>
        (Options.TryGetValue("Signed-By", out string? key) && key.Contains("debian-archive", StringComparison.Ordinal) ? 4 : 0)
        + (Uri.Contains("debian.org/", StringComparison.Ordinal) ? 2 : 0)
        + (DebianPath().IsMatch(Uri) ? 1 : 0);

    private static bool IsDebianSuite(string suite, bool security)
    {
        bool isSecurity = suite.EndsWith("-security", StringComparison.Ordinal) || suite.EndsWith("/updates", StringComparison.Ordinal);
        string codename = suite.Split('-', '/')[0];
        return s_debianSuites.Contains(codename) && isSecurity == security;
    }

    private static IEnumerable<IReadOnlyDictionary<string, string>> Stanzas(string text)
    {
        Dictionary<string, string> stanza = new(StringComparer.OrdinalIgnoreCase);
        string? field = null;
        foreach (string raw in text.Split('\n').Append(""))
        {
            string line = raw.TrimEnd('\r');
            if (line.StartsWith('#'))
            {
                continue;
            }

            if (line.Trim().Length == 0)
            {
                if (stanza.Count > 0)
                {
                    yield return stanza;
                }

                stanza = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
                field = null;
            }
            else if (line[0] is ' ' or '\t')
            {
                if (field is not null)
                {
                    stanza[field] += "\n" + line;
                }
            }
            else if (line.IndexOf(':') is var colon and > 0)
            {
                field = line[..colon].Trim();
                stanza[field] = line[(colon + 1)..].Trim();
            }
        }
    }

    private static string[] Words(IReadOnlyDictionary<string, string> stanza, string field) =>
        stanza.TryGetValue(field, out string? value) ? value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries) : [];

    private static string WithSlash(string uri) => uri.EndsWith('/') ? uri : uri + "/";

    [GeneratedRegex(@"^deb\s+(\[(?<options>[^\]]*)\]\s+)?(?<uri>\S+)\s+(?<rest>.+)$")]
    private static partial Regex OneLine();

    [GeneratedRegex("/debian(-security|-secure-testing)?/$")]
    private static partial Regex DebianPath();
}

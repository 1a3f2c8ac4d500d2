// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>
/// A package version, ordered as dpkg does (deb-version(7)): epoch, upstream version, revision; runs of digits compare as
/// numbers, letters before other characters, and <c>~</c> before everything, even the end.
/// </summary>
internal readonly record struct DebianVersion : IComparable<DebianVersion>
{
    public DebianVersion(string text)
    {
        Text = text;
        int colon = text.IndexOf(':');
        Epoch = colon > 0 && uint.TryParse(text[..colon], out uint epoch) ? epoch : 0;
        string rest = text[(colon + 1)..];
        int dash = rest.LastIndexOf('-');
        Upstream = dash < 0 ? rest : rest[..dash];
        Revision = dash < 0 ? "" : rest[(dash + 1)..];
    }

    public string Text { get; }

    public uint Epoch { get; }

    /// <summary>The kernel's own version: <c>6.12.117</c>, <c>7.3~rc7</c>.</summary>
    public string Upstream { get; }

    public string Revision { get; }

    /// <summary>It was packaged before upstream released it.</summary>
    public bool IsCandidate => Upstream.Contains("~rc", StringComparison.Ordinal);

    public static bool operator <(DebianVersion left, DebianVersion right) => left.CompareTo(right) < 0;

    public static bool operator >(DebianVersion left, DebianVersion right) => left.CompareTo(right) > 0;

    public int CompareTo(DebianVersion other)
    {
        int order = Epoch.CompareTo(other.Epoch);
        if (order == 0)
        {
            order = Compare(Upstream, other.Upstream);
        }

        return order != 0 ? order : Compare(Revision, other.Revision);
    }

    public override string ToString() => Text;

    private static int Compare(string a, string b)
    {
        int i = 0;
        int j = 0;
        while (i < a.Length || j < b.Length)
        {
            while ((i < a.Length && !char.IsAsciiDigit(a[i])) || (j < b.Length && !char.IsAsciiDigit(b[j])))
            {
                int order = Weight(a, i).CompareTo(Weight(b, j));
                if (order != 0)
                {
                    return order;
                }

                i++;
                j++;
            }

            ReadOnlySpan<char> left = Number(a, ref i);
            ReadOnlySpan<char> right = Number(b, ref j);
            int length = left.Length.CompareTo(right.Length);
            int digits = length != 0 ? length : left.SequenceCompareTo(right);
            if (digits != 0)
            {
                return digits;
            }
        }

        return 0;
    }

    private static int Weight(string text, int at)
    {
        if (at >= text.Length || char.IsAsciiDigit(text[at]))
        {
            return 0;
        }

        char c = text[at];
        return c == '~' ? -1 : char.IsAsciiLetter(c) ? c : c + 256;
    }

    private static ReadOnlySpan<char> Number(string text, ref int at)
    {
        int start = at;
        while (at < text.Length && char.IsAsciiDigit(text[at]))
        {
            at++;
        }

        return text.AsSpan(start, at - start).TrimStart('0');
    }
}

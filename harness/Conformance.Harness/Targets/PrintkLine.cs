// SPDX-License-Identifier: MIT

namespace Conformance.Targets;

/// <summary>A console line taken apart.</summary>
internal static class PrintkLine
{
    /// <summary>
    /// Whether the kernel printed this line, by the time stamp printk.time puts before it; firmware, boot loaders and programs that
    /// write to the terminal have none. Forms: <c>[  12.345678] text</c>, with <c>&lt;4&gt;</c> before it, with the caller after it
    /// (CONFIG_PRINTK_CALLER, <c>[    T1]</c> or <c>[    C0]</c>), and after a note of dropped messages.
    /// </summary>
    public static bool TryParse(ReadOnlySpan<char> line, out ReadOnlySpan<char> text)
    {
        text = default;
        const string Dropped = " printk messages dropped ** ";
        if (line.StartsWith("** ") && line.IndexOf(Dropped) is >= 0 and int at)
        {
            line = line[(at + Dropped.Length)..];
        }

        if (line.Length > 2 && line[0] == '<' && line[1..].IndexOf('>') is > 0 and < 5 and int close)
        {
            line = line[(close + 2)..];
        }

        if (!TakeBracket(ref line, out ReadOnlySpan<char> stamp) || !IsSeconds(stamp.TrimStart(' ')))
        {
            return false;
        }

        ReadOnlySpan<char> rest = line;
        if (TakeBracket(ref rest, out ReadOnlySpan<char> caller))
        {
            caller = caller.Trim(' ');
            if (caller.Length > 1 && caller[0] is 'T' or 'C' && caller[1..].IndexOfAnyExceptInRange('0', '9') < 0)
            {
                line = rest;
            }
        }

        text = line.Length > 0 && line[0] == ' ' ? line[1..] : line;
        return true;
    }

    private static bool TakeBracket(ref ReadOnlySpan<char> line, out ReadOnlySpan<char> inside)
    {
        inside = default;
        if (line.Length == 0 || line[0] != '[' || line.IndexOf(']') is not (> 0 and int close))
        {
            return false;
        }

        inside = line[1..close];
        line = line[(close + 1)..];
        return true;
    }

    private static bool IsSeconds(ReadOnlySpan<char> stamp)
    {
        int dot = stamp.IndexOf('.');
        return dot > 0 && stamp.Length == dot + 7
            && stamp[..dot].IndexOfAnyExceptInRange('0', '9') < 0
            && stamp[(dot + 1)..].IndexOfAnyExceptInRange('0', '9') < 0;
    }
}

// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using System.Text;

namespace Conformance.Kernels;

/// <summary>Reads a Packages index: paragraphs of fields, parted by empty lines.</summary>
internal static class DebianIndex
{
    /// <summary>The kernel packages in it.</summary>
    /// <remarks>The indexes hold some 700 MB of text in all, of which a thousandth is wanted: whole paragraphs are skipped as bytes.</remarks>
    public static async IAsyncEnumerable<DebianPackage> ReadAsync(
        Stream stream,
        string suite,
        string repository,
        [EnumeratorCancellation] CancellationToken cancellation)
    {
        byte[] buffer = new byte[1 << 20];
        int filled = 0;
        List<DebianPackage> found = [];
        while (true)
        {
            int count = await stream.ReadAsync(buffer.AsMemory(filled), cancellation).ConfigureAwait(false);
            filled += count;
            int used = Scan(buffer.AsSpan(0, filled), atEnd: count == 0, suite, repository, found);
            foreach (DebianPackage package in found)
            {
                yield return package;
            }

            found.Clear();
            if (count == 0)
            {
                yield break;
            }

            buffer.AsSpan(used, filled - used).CopyTo(buffer);
            filled -= used;
            if (filled == buffer.Length)
            {
                Array.Resize(ref buffer, buffer.Length * 2);
            }
        }
    }

    private static int Scan(ReadOnlySpan<byte> text, bool atEnd, string suite, string repository, List<DebianPackage> found)
    {
        int start = 0;
        while (start < text.Length)
        {
            int length = text[start..].IndexOf("\n\n"u8);
            if (length < 0)
            {
                if (!atEnd)
                {
                    break;
                }

                length = text.Length - start;
            }

            ReadOnlySpan<byte> paragraph = text.Slice(start, length);
            if (paragraph.StartsWith("Package: linux-"u8) && Parse(Encoding.UTF8.GetString(paragraph), suite, repository) is { } package)
            {
                found.Add(package);
            }

            start = Math.Min(start + length + 2, text.Length);
        }

        return start;
    }

    private static DebianPackage? Parse(string paragraph, string suite, string repository)
    {
        Dictionary<string, string> fields = new(StringComparer.Ordinal);
        foreach (string line in paragraph.Split('\n'))
        {
            int colon = line.IndexOf(": ", StringComparison.Ordinal);
            if (colon > 0 && line[0] != ' ')
            {
                fields[line[..colon]] = line[(colon + 2)..].Trim();
            }
        }

        string name = fields.GetValueOrDefault("Package", "");
        return DebianPackage.Classify(name) is not null
            && fields.TryGetValue("Version", out string? version)
            && fields.TryGetValue("Architecture", out string? architecture)
            && fields.TryGetValue("Filename", out string? filename)
            && fields.TryGetValue("SHA256", out string? digest)
            && long.TryParse(fields.GetValueOrDefault("Size"), out long size)
                ? new DebianPackage(name, version, architecture, suite, repository, filename, size, digest)
                : null;
    }
}

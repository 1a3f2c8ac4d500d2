// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using System.Text;
using Conformance.Fixtures;
using Xunit.Sdk;

namespace Conformance.Snapshots;

/// <summary>
/// Compares a transcript with its approved file, <c>Snapshots/Class.Method[_variant].verified.txt</c> beside the test. A difference writes
/// <c>….received.txt</c> next to it; <c>conformance accept</c> shows and takes it.
/// </summary>
public static class Snapshot
{
    /// <param name="text">The transcript: values under test as they are, identities by name, absence stated.</param>
    /// <param name="variant">Name of the older behaviour, <c>before-CHANGE</c>; null: today's. A file per behaviour, never per kernel.</param>
    /// <exception cref="XunitException">The text differs from the approved one, or nothing was approved yet.</exception>
    public static void Verify(string text, string? variant = null, [CallerFilePath] string source = "", [CallerMemberName] string method = "")
    {
        string folder = Path.Combine(SourcePath.Absolute(Path.GetDirectoryName(source)!), "Snapshots");
        string name = $"{Path.GetFileNameWithoutExtension(source)}.{method}{(variant is null ? "" : "_" + variant)}";
        string approved = Path.Combine(folder, name + ".verified.txt");
        string received = Path.Combine(folder, name + ".received.txt");
        if (TestEvidence.Current is TestEvidence evidence)
        {
            evidence.Snapshot = $"Snapshots/{name}.verified.txt";
        }

        string seen = Normalise(text);
        string? wanted = File.Exists(approved) ? Normalise(File.ReadAllText(approved)) : null;
        if (seen == wanted)
        {
            return;
        }

        Directory.CreateDirectory(folder);
        File.WriteAllText(received, seen, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false));
        throw new XunitException(wanted is null
            ? $"Nothing is approved as {name}.\nReceived:\n{seen}"
            : $"{name} differs from what is approved.\n{Difference(wanted, seen)}");
    }

    /// <summary>Line by line, with the common ones as context: enough to see what changed without another tool.</summary>
    public static string Difference(string wanted, string seen)
    {
        string[] a = wanted.TrimEnd('\n').Split('\n');
        string[] b = seen.TrimEnd('\n').Split('\n');
        int[,] common = new int[a.Length + 1, b.Length + 1];
        for (int i = a.Length - 1; i >= 0; i--)
        {
            for (int j = b.Length - 1; j >= 0; j--)
            {
                common[i, j] = a[i] == b[j] ? common[i + 1, j + 1] + 1 : Math.Max(common[i + 1, j], common[i, j + 1]);
            }
        }

        var text = new StringBuilder();
        for (int i = 0, j = 0; i < a.Length || j < b.Length;)
        {
            if (i < a.Length && j < b.Length && a[i] == b[j])
            {
                text.Append("  ").AppendLine(a[i++]);
                j++;
            }
            else if (j >= b.Length || (i < a.Length && common[i + 1, j] >= common[i, j + 1]))
            {
                text.Append("- ").AppendLine(a[i++]);
            }
            else
            {
                text.Append("+ ").AppendLine(b[j++]);
            }
        }

        return text.ToString();
    }

    private static string Normalise(string text) => text.Replace("\r\n", "\n").TrimEnd('\n') + "\n";
}

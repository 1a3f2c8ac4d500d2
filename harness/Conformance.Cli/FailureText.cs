// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary>A test that did not pass, as it is shown: one claim, what was wanted, what was seen, and how to see it again.</summary>
internal static class FailureText
{
    private const int LabelWidth = 8;

    /// <summary>The lines of one failure.</summary>
    /// <param name="test">The test.</param>
    /// <param name="kernel">The kernel it ran on.</param>
    /// <param name="folder">The kernel's results, as the reader can open them.</param>
    /// <param name="again">The command that runs it again.</param>
    /// <param name="clauses">Where a clause comes from; null for one that is not known.</param>
    public static IEnumerable<string> Lines(TestRecord test, KernelIdentity kernel, string folder, string again, Func<string, string?> clauses)
    {
        yield return $"{test.Id}   kernel {kernel.Release} {kernel.Arch}";
        IReadOnlyList<Explanation> explained = test.Explained ?? [];

        // A broken assertion is told by what was wanted and seen; for the rest the sentence comes first.
        if (test.Verdict != Verdict.Fail || explained.Count == 0)
        {
            foreach (string line in Labelled(Word(test.Verdict), test.Reason ?? string.Empty))
            {
                yield return line;
            }
        }

        foreach (Explanation one in explained.Where(e => e.Label is not "at"))
        {
            foreach (string line in Labelled(one.Label, one.Text))
            {
                yield return line;
            }
        }

        foreach (string clause in test.Clauses)
        {
            yield return Label("clause", clauses(clause) is { } source ? $"{clause} ({source})" : clause);
        }

        foreach (Fix fix in test.FixedBy ?? [])
        {
            yield return Label("fix", $"this kernel may lack {fix.Commit} (\"{fix.Subject}\")");
        }

        string? at = explained.FirstOrDefault(e => e.Label == "at")?.Text ?? test.Source;
        foreach ((string label, string? text) in new[] { ("at", at), ("journal", InFolder(folder, test.Journal)), ("console", InFolder(folder, test.Console)), ("again", again) })
        {
            if (text is not null)
            {
                yield return Label(label, text);
            }
        }
    }

    /// <summary>The command that runs one test again on the same kernel.</summary>
    /// <param name="request">The run it was part of.</param>
    /// <param name="kernel">The kernel's specification.</param>
    /// <param name="id">The test's id.</param>
    public static string Again(RunRequest request, string kernel, string id)
    {
        List<string> words = ["conformance", "run", "--kernel", kernel];
        if (request.Architecture is { } architecture)
        {
            words.AddRange(["--arch", architecture]);
        }

        foreach (string module in request.Modules)
        {
            words.AddRange(["--module", module]);
        }

        foreach (string device in request.VfioDevices)
        {
            words.AddRange(["--vfio-device", device]);
        }

        foreach (string argument in request.Append)
        {
            words.AddRange(["--append", argument]);
        }

        foreach ((bool on, string option) in new[]
        {
            (request.FreshBoot, "--fresh-boot"), (request.Isolation != Isolation.Suite, $"--isolation {request.Isolation.ToString().ToLowerInvariant()}"), (request.NegativeControls, "--negative-controls"),
        })
        {
            if (on)
            {
                words.Add(option);
            }
        }

        foreach (string ledger in request.KnownFailures)
        {
            words.AddRange(["--known-failures", ledger]);
        }

        words.AddRange(["--test", id]);
        return string.Join(' ', words.Select(Quoted));
    }

    /// <summary>The word a verdict is shown with.</summary>
    /// <param name="verdict">The verdict.</param>
    public static string Word(Verdict verdict) => verdict.ToString().ToLowerInvariant();

    private static IEnumerable<string> Labelled(string label, string text)
    {
        string[] lines = text.ReplaceLineEndings("\n").Split('\n');
        yield return Label(label, lines[0]);
        foreach (string line in lines.Skip(1))
        {
            yield return Label(string.Empty, line);
        }
    }

    private static string Label(string label, string text) => $"  {label.PadRight(LabelWidth)} {text}".TrimEnd();

    private static string? InFolder(string folder, string? relative) => relative is null ? null : Path.Combine(folder, relative);

    private static string Quoted(string word) =>
        word.Length > 0 && word.All(c => char.IsAsciiLetterOrDigit(c) || "-_./:=,+@%~".Contains(c)) ? word : $"'{word.Replace("'", "'\\''")}'";
}

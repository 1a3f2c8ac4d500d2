// SPDX-License-Identifier: MIT
using System.Text;
using Conformance.Fixtures;
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

/// <summary>
/// Console logs under Corpus/console: a header naming the reports in the log (or NOTHING), an empty line, the log. Most were printed by
/// Debian's kernels when a module provoked them; those named handmade have the shape of what no packaged kernel prints.
/// </summary>
public sealed class ConsoleCorpusTests
{
    private static readonly string s_folder = Path.Combine(AppContext.BaseDirectory, "Corpus", "console");

    public static TheoryData<string> Names => [.. Directory.GetFiles(s_folder, "*.txt").Select(p => Path.GetFileNameWithoutExtension(p)).Order(StringComparer.Ordinal)];

    [Theory]
    [MemberData(nameof(Names))]
    public void ReportsOfALogAreThoseItsHeaderNames(string name)
    {
        (IReadOnlyList<string> header, string text) = Read(name);
        Describe(Feed(text, chunk: 4096)).Should().Equal(header);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void ReportsDoNotDependOnHowTheConsoleIsCutIntoReads(string name)
    {
        (IReadOnlyList<string> header, string text) = Read(name);
        Describe(Feed(text.Replace("\n", "\r\n", StringComparison.Ordinal), chunk: 1)).Should().Equal(header);
        Describe(Feed(text, chunk: 7)).Should().Equal(header);
    }

    [Fact]
    public void CorpusCoversBothArchitecturesAndBothSeverities()
    {
        string[] headers = [.. Names.Select(row => string.Join('\n', Read(row.Data).Header))];
        Names.Select(row => row.Data.Split('-')[0]).Distinct().Should().Contain(["x86_64", "arm64", "handmade"]);
        headers.Should().Contain(h => h.Contains("SEVERITY: dead")).And.Contain(h => h.Contains("SEVERITY: warning")).And.Contain("NOTHING");
    }

    private static (IReadOnlyList<string> Header, string Text) Read(string name)
    {
        string all = File.ReadAllText(Path.Combine(s_folder, name + ".txt"));
        int end = all.IndexOf("\n\n", StringComparison.Ordinal);
        return (all[..end].Split('\n'), all[(end + 2)..]);
    }

    private static IReadOnlyList<KernelReport> Feed(string text, int chunk)
    {
        KernelLog log = new((_, _) => Task.CompletedTask);
        foreach (byte[] bytes in Encoding.UTF8.GetBytes(text).Chunk(chunk))
        {
            log.Feed(bytes);
        }

        log.End();
        return log.ReportsSince(KernelLog.Start);
    }

    private static IEnumerable<string> Describe(IReadOnlyList<KernelReport> reports) => reports.Count == 0
        ? ["NOTHING"]
        : reports.SelectMany(r => new[] { $"TITLE: {r.Title}", $"SEVERITY: {r.Severity.ToString().ToLowerInvariant()}", $"FINGERPRINT: {r.Fingerprint}" });
}

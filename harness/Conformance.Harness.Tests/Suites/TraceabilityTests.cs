// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;
using Conformance.Cli;
using Conformance.Fixtures;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Suites;

/// <summary>What the suites refer to exists: clauses, changes, approved files. Rot fails here, not in a reader's hands.</summary>
public sealed partial class TraceabilityTests
{
    private static readonly Installation s_repository = Installation.Find(AppContext.BaseDirectory);

    private static IEnumerable<string> Sources => Directory
        .EnumerateFiles(s_repository.Suites, "*.cs", SearchOption.AllDirectories)
        .Where(f => !f.Contains("/obj/", StringComparison.Ordinal) && !f.Contains("/bin/", StringComparison.Ordinal));

    [Fact]
    public void EveryClauseThatATestNamesExists()
    {
        HashSet<string> known = [.. ClauseIndex.Load(s_repository.Clauses).All.Select(c => c.Id)];
        IEnumerable<string> named = Sources.SelectMany(f => ClauseUse().Matches(File.ReadAllText(f)).Select(m => m.Groups["id"].Value)).Distinct();
        named.Where(id => !known.Contains(id)).Should().BeEmpty("a claim rests on a rule that is written down in suites/clauses");
    }

    [Fact]
    public void EveryClauseIsWrittenOnceAndSaysWhereItComesFrom()
    {
        List<Clause> all = [.. Directory.EnumerateFiles(s_repository.Clauses, "*.md").SelectMany(f => ClauseIndex.Parse(File.ReadLines(f)))];
        all.GroupBy(c => c.Id).Where(g => g.Count() > 1).Select(g => g.Key).Should().BeEmpty();
        all.Where(c => c.Source is null).Select(c => c.Id).Should().BeEmpty();
    }

    [Fact]
    public void EveryChangeThatATestNamesIsInTheTable()
    {
        ChangeTable table = ChangeTable.Parse(File.ReadAllText(Path.Combine(s_repository.Suites, "changes.tsv")));
        IEnumerable<string> named = Sources.SelectMany(f => ChangeUse().Matches(File.ReadAllText(f)).Select(m => m.Groups["name"].Value)).Distinct();
        named.Except(table.Changes.Select(c => c.Name)).Should().BeEmpty();
    }

    [Fact]
    public void LedgersCanBeReadAndNameWhatThereIs()
    {
        IReadOnlyList<SuiteAssembly> suites = SuiteAssembly.LoadAll(s_repository);
        Ledgers ledgers = Ledgers.Load(s_repository, [], suites);
        string sources = string.Concat(Sources.Concat(Directory.EnumerateFiles(Path.Combine(s_repository.Harness, "Conformance.Harness", "Uapi"), "*.cs")).Select(File.ReadAllText));
        ledgers.Capabilities.Should().NotBeEmpty().And.OnlyContain(c => sources.Contains(c.Name, StringComparison.Ordinal) || c.Name.StartsWith("KVM_CAP_", StringComparison.Ordinal));
    }

    [Fact]
    public void EveryApprovedFileBelongsToATest()
    {
        IEnumerable<string> approved = Directory.EnumerateFiles(s_repository.Suites, "*.verified.txt", SearchOption.AllDirectories);
        string sources = string.Concat(Sources.Select(File.ReadAllText));
        approved.Where(f => Path.GetFileName(f).Split('.') is var name && !sources.Contains($" {name[1].Split('_')[0]}(", StringComparison.Ordinal))
            .Select(Path.GetFileName).Should().BeEmpty("an approved file that no test can reach is dead");
    }

    [Theory]
    [InlineData("Linux version 6.1.0-56-amd64 (x@y) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)", "6.1.192")]
    [InlineData("Linux version 7.2.13+deb14-amd64 (x@y) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 7.2.13-1 (2026-11-01)", "7.2.13")]
    [InlineData("Linux version 6.18.44-fc-v657 (x@y) (gcc) #1 SMP", "6.18.44")]
    [InlineData("Linux version 7.3-rc1 (x@y) (gcc) #1 SMP", "7.3.0")]
    public void TheStableReleaseIsReadFromProcVersion(string text, string release) =>
        ChangeTable.ParseStableRelease(text).Should().Be(Version.Parse(release));

    [Theory]
    [InlineData("6.15.0", true)]
    [InlineData("7.2.1", true)]
    [InlineData("6.14.9", false)]
    [InlineData("6.12.38", false)]
    [InlineData("6.12.39", true)]
    [InlineData("6.6.99", false)]
    public void AChangeIsInMainlineAndInTheStableSeriesThatTookIt(string release, bool present) =>
        ChangeTable.Parse("name\tcommit\tmainline\tstable\tsummary\nx\tabc\t6.15\t6.12.39\tx\n")["x"].IsIn(Version.Parse(release)).Should().Be(present);

    [GeneratedRegex(@"\[Clause\(""(?<id>[^""]+)""\)")]
    private static partial Regex ClauseUse();

    [GeneratedRegex(@"\b(?:Has|RequireChange)\(""(?<name>[^""]+)""\)")]
    private static partial Regex ChangeUse();
}

// SPDX-License-Identifier: MIT
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Conformance.Results;
using Conformance.Results.Formats;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

/// <summary>One run with every verdict in it, in every format: the verdicts stay distinct and nothing missing looks green.</summary>
public sealed class FormatTests
{
    internal static readonly RunRecord EveryVerdict = new()
    {
        SuiteVersion = "0.1.0",
        Kernel = new KernelIdentity("debian-6.12.117-amd64", "6.12.117+deb13-amd64", "x86_64", "debian:6.12", new string('a', 64), new Dictionary<string, string> { ["kvm.ko"] = new('b', 64) }),
        Target = new TargetIdentity("emulated", "tcg", "7.2.22"),
        Started = new DateTimeOffset(2026, 11, 21, 9, 0, 0, TimeSpan.Zero),
        DurationMs = 1500,
        Tests =
        [
            .. Enum.GetValues<Verdict>().Select(v => new TestRecord
            {
                Id = $"KvmXen.Event.Is{v}", Suite = "KvmXen", Verdict = v, DurationMs = 12, Clauses = ["kvm-xen/a"], Source = "suites/KvmXen/EventTests.cs:7",
                Reason = v == Verdict.Pass ? null : v == Verdict.Skip ? "capability-absent: needs X; Y = 0x1" : $"{v} # because, of: 100 %\nsecond line",
                Explained = v == Verdict.Fail ? [new("wanted", "0x41 0x31"), new("taken", "0x31\u0007")] : null,
            }),
        ],
        Missing = ["KvmXen.Event.NeverRan"],
    };

    [Fact]
    public void KtapNestsKernelSuiteAndTest()
    {
        string[] lines = Write("ktap").TrimEnd('\n').Split('\n');
        lines[0].Should().Be("KTAP version 1");
        lines[1].Should().Be("1..1");
        lines.Should().Contain(["    1..8", "    ok 1 KvmXen.Event.IsPass", "    not ok 2 KvmXen.Event.IsFail", "    ok 3 KvmXen.Event.IsSkip # SKIP capability-absent: needs X; Y = 0x1",
            "    not ok 8 KvmXen.Event.NeverRan # ERROR no verdict", "  not ok 1 KvmXen", "not ok 1 debian-6.12.117-amd64"]);
        lines.Where(l => l.Contains("ok 6", StringComparison.Ordinal)).Should().ContainSingle().Which.Should().Contain("# TIMEOUT");
        lines[^1].Should().Be("# Totals: pass:1 fail:3 xfail:1 xpass:0 skip:1 error:2");
        lines.Should().OnlyContain(l => Regex.IsMatch(l, @"^ *(KTAP version 1|1\.\.\d+|(not )?ok \d+ [^#]+( # (SKIP|XFAIL|TIMEOUT|ERROR) .*)?|# .*)$"));
    }

    [Fact]
    public void KtapOfAnEmptyRunIsNotOk() => new Ktap().Write([EveryVerdict with { Tests = [], Missing = null }]).Should().Contain("not ok 1 debian-6.12.117-amd64");

    [Fact]
    public void JUnitCountsAddUpAndControlCharactersAreGone()
    {
        XElement root = XDocument.Parse(Write("junit")).Root!;
        root.Attribute("tests")!.Value.Should().Be("8");
        root.Attribute("failures")!.Value.Should().Be("1");
        root.Attribute("errors")!.Value.Should().Be("4");
        root.Attribute("skipped")!.Value.Should().Be("2");
        root.Descendants("testcase").Should().HaveCount(8);
        root.Descendants("error").Select(e => e.Attribute("type")!.Value).Should().BeEquivalentTo("Crash", "Hang", "Broken", "Missing");
    }

    [Fact]
    public void TrxIsTheSameBytesForTheSameRun()
    {
        Write("trx").Should().Be(Write("trx"));
        XNamespace ns = "http://microsoft.com/schemas/VisualStudio/TeamTest/2010";
        XDocument.Parse(Write("trx")).Descendants(ns + "UnitTestResult").Select(r => r.Attribute("outcome")!.Value)
            .Should().Equal("Passed", "Failed", "NotExecuted", "NotExecuted", "Failed", "Timeout", "Error", "Aborted");
    }

    [Fact]
    public void CtrfSummaryCountsEveryTestOnce()
    {
        JsonNode results = JsonNode.Parse(Write("ctrf"))!["results"]!;
        JsonNode summary = results["summary"]!;
        summary["tests"]!.GetValue<int>().Should().Be(8);
        new[] { "passed", "failed", "skipped", "pending", "other" }.Sum(k => summary[k]!.GetValue<int>()).Should().Be(8);
        results["tests"]!.AsArray().Select(t => t!["status"]!.GetValue<string>()).Should().OnlyContain(s => new[] { "passed", "failed", "skipped", "pending", "other" }.Contains(s));
        results["tests"]!.AsArray().Should().OnlyContain(t => t!["suite"]!.AsArray().Count > 0);
    }

    [Fact]
    public void KcidbIdsAndPathsMatchItsSchema()
    {
        JsonNode root = JsonNode.Parse(Write("kcidb"))!;
        root["version"]!["major"]!.GetValue<int>().Should().Be(5);
        foreach (JsonNode? test in root["tests"]!.AsArray())
        {
            test!["id"]!.GetValue<string>().Should().MatchRegex("^[a-z0-9_]+:.*$");
            test["path"]!.GetValue<string>().Should().MatchRegex(@"^([a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*)?$");
            (test["log_excerpt"]?.GetValue<string>().Length ?? 0).Should().BeLessThanOrEqualTo(16384);
        }

        root["tests"]!.AsArray().Select(t => t!["status"]!.GetValue<string>()).Should().Equal("PASS", "FAIL", "SKIP", "FAIL", "FAIL", "FAIL", "ERROR", "MISS");
    }

    [Fact]
    public void LavaSignalsAreReadableByItsExpression()
    {
        MatchCollection signals = Regex.Matches(Write("lava"), @"<LAVA_SIGNAL_(\S+) ([^>]+)>");
        signals.Where(m => m.Groups[1].Value == "TESTCASE").Should().HaveCount(8);
        signals.Select(m => m.Groups[2].Value).Should().Contain("TEST_CASE_ID=KvmXen.Event.IsBroken RESULT=unknown");
    }

    [Fact]
    public void GitHubAnnotationsAreEscapedAndFew()
    {
        string[] lines = Write("github").TrimEnd('\n').Split('\n');
        lines.Should().HaveCount(4);
        lines[0].Should().Be("::error file=suites/KvmXen/EventTests.cs,line=7,title=Fail%3A KvmXen.Event.IsFail::6.12.117+deb13-amd64: Fail # because, of: 100 %25%0Asecond line");
        RunRecord many = EveryVerdict with { Tests = [.. Enumerable.Range(0, 30).Select(i => EveryVerdict.Tests[1] with { Id = $"KvmXen.Event.Row.{i}" })] };
        ResultFormat.All.Single(f => f.Name == "github").Write([many]).TrimEnd('\n').Split('\n').Should().HaveCount(10);
    }

    [Fact]
    public void MailKeepsToSeventyTwoColumnsAndNeverSaysFineWhenItIsNot()
    {
        string mail = Write("mail");
        mail.Should().StartWith("Something is wrong").And.Contain("1 tests have no verdict");
        mail.Split('\n').Should().OnlyContain(l => l.Length <= 72 || !l.Trim().Contains(' '));
        ResultFormat.All.Single(f => f.Name == "mail").Write([EveryVerdict with { Tests = [EveryVerdict.Tests[2]], Missing = null }]).Should().StartWith("Something is wrong");
    }

    [Theory]
    [InlineData(Verdict.Pass, Verdict.Fail, Change.Regression)]
    [InlineData(Verdict.Pass, Verdict.Crash, Change.Regression)]
    [InlineData(Verdict.Fail, Verdict.Pass, Change.Fixed)]
    [InlineData(Verdict.Hang, Verdict.Fail, Change.StillFailing)]
    [InlineData(Verdict.Skip, Verdict.Fail, Change.NewFailure)]
    [InlineData(null, Verdict.Fail, Change.NewFailure)]
    [InlineData(Verdict.Broken, Verdict.Pass, Change.NewPass)]
    [InlineData(null, Verdict.Pass, Change.Appeared)]
    [InlineData(Verdict.Pass, null, Change.Disappeared)]
    [InlineData(Verdict.Pass, Verdict.Skip, Change.Disappeared)]
    [InlineData(Verdict.Pass, Verdict.Pass, Change.Same)]
    public void ChangesAreNamedAsKernelCiNamesThem(Verdict? before, Verdict? after, Change change) =>
        RunComparison.Of(One(before), One(after)).Changes.Single().Change.Should().Be(change);

    [Fact]
    public void TheReportStandsOnItsOwn()
    {
        string page = new HtmlReport([EveryVerdict], [new ReportClause("kvm-xen/a", "A <rule>.", "code xen.c"), new ReportClause("kvm-xen/b", "Untested.", null)], One(Verdict.Pass) with { Kernel = EveryVerdict.Kernel })
            .Write((_, _) => null);
        page.Should().Contain("of 8 claims 1 failed, 1 crashed the kernel, 1 hung it, 1 could not be judged, 1 have no verdict").And.Contain("A &lt;rule&gt;.").And.Contain("1 of 2 rules were tested");
        page.Should().NotContain("http://").And.NotContain("https://").And.NotContain("src=").And.NotContain("<link");
    }

    internal static string Write(string format) => ResultFormat.All.Single(f => f.Name == format).Write([EveryVerdict]);

    private static RunRecord One(Verdict? verdict) => EveryVerdict with
    {
        Missing = null,
        Tests = verdict is Verdict v ? [EveryVerdict.Tests[0] with { Verdict = v }] : [],
    };
}

// SPDX-License-Identifier: MIT
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class ResultsJsonTests
{
    private static readonly RunRecord Run = Samples.Run(Verdict.Pass) with
    {
        Target = new TargetIdentity("emulated", "tcg", "7.2.22"),
        DurationMs = 4100,
    };

    [Fact]
    public void RunHasTheMembersOfTheSchemaInTheirOrder()
    {
        JsonObject run = JsonNode.Parse(ResultsJson.Write(Run))!.AsObject();

        run.Select(p => p.Key).Should().Equal("schema", "suiteVersion", "kernel", "target", "started", "durationMs", "tests");
        run["kernel"]!.AsObject().Select(p => p.Key).Should().Equal("id", "release", "arch", "source", "imageSha256", "modules");
        run["target"]!.AsObject().Select(p => p.Key).Should().Equal("kind", "accelerator", "qemu");
        run["tests"]![0]!.AsObject().Select(p => p.Key).Should().Equal(
            "id", "suite", "verdict", "reason", "durationMs", "clauses", "attempts", "snapshot", "console", "journal");
        run["schema"]!.GetValue<int>().Should().Be(1);
    }

    [Theory]
    [InlineData(Verdict.Pass, "Pass")]
    [InlineData(Verdict.Fail, "Fail")]
    [InlineData(Verdict.Skip, "Skip")]
    [InlineData(Verdict.Known, "Known")]
    [InlineData(Verdict.Crash, "Crash")]
    [InlineData(Verdict.Hang, "Hang")]
    [InlineData(Verdict.Broken, "Broken")]
    public void VerdictsAreWrittenAsTheirWords(Verdict verdict, string word) =>
        JsonNode.Parse(ResultsJson.Write(Samples.Run(verdict)))!["tests"]![0]!["verdict"]!.GetValue<string>().Should().Be(word);

    [Fact]
    public void ReadGivesBackWhatWriteWrote()
    {
        using TemporaryFolder folder = new();
        RunRecord run = Run with { Missing = ["KvmXen.A.B"], Faults = ["a < b & c"] };
        ResultsFolder.Write(folder.Path, run);

        RunRecord read = ResultsJson.Read(folder[ResultsFolder.FileName]);

        read.Should().BeEquivalentTo(run);
    }

    [Fact]
    public void SameRunIsTheSameBytes() => ResultsJson.Write(Run).Should().Equal(ResultsJson.Write(Run with { }));

    [Fact]
    public void TextStaysReadable() =>
        Encoding.UTF8.GetString(ResultsJson.Write(Run with { Faults = ["vCPU 0 <halted>"] })).Should().Contain("vCPU 0 <halted>");

    [Fact]
    public void OtherSchemaIsRefused()
    {
        using TemporaryFolder folder = new();
        File.WriteAllBytes(folder["r.json"], ResultsJson.Write(Run with { Schema = 2 }));

        Action read = () => ResultsJson.Read(folder["r.json"]);

        read.Should().Throw<JsonException>().WithMessage("*schema 2*");
    }
}

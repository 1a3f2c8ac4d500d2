// SPDX-License-Identifier: MIT
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class ExitCodeTests
{
    [Theory]
    [InlineData(ExitCode.Clean, new[] { Verdict.Pass })]
    [InlineData(ExitCode.Clean, new[] { Verdict.Pass, Verdict.Skip, Verdict.Known })]
    [InlineData(ExitCode.Clean, new[] { Verdict.Known })]
    [InlineData(ExitCode.ClaimFailed, new[] { Verdict.Pass, Verdict.Fail })]
    [InlineData(ExitCode.ClaimFailed, new[] { Verdict.Broken, Verdict.Fail })]
    [InlineData(ExitCode.ResultsMissing, new Verdict[0])]
    [InlineData(ExitCode.ResultsMissing, new[] { Verdict.Skip, Verdict.Skip })]
    [InlineData(ExitCode.KernelDied, new[] { Verdict.Pass, Verdict.Crash })]
    [InlineData(ExitCode.KernelDied, new[] { Verdict.Fail, Verdict.Hang, Verdict.Broken })]
    [InlineData(ExitCode.MachineFault, new[] { Verdict.Pass, Verdict.Broken })]
    public void WorstFindingAboutTheKernelDecides(int code, Verdict[] verdicts) =>
        ExitCode.Of([Samples.Run(verdicts)]).Should().Be(code);

    [Fact]
    public void NoRunIsNotGreen() => ExitCode.Of([]).Should().Be(ExitCode.ResultsMissing);

    [Fact]
    public void MissingResultsAreNotGreen() =>
        ExitCode.Of([Samples.Run(Verdict.Pass) with { Missing = ["KvmXen.EventChannel.Other"] }]).Should().Be(ExitCode.ResultsMissing);

    [Fact]
    public void MissingResultsDoNotHideAFailedClaim() =>
        ExitCode.Of([Samples.Run(Verdict.Fail) with { Missing = ["KvmXen.EventChannel.Other"] }]).Should().Be(ExitCode.ClaimFailed);

    [Fact]
    public void FaultExplainsMissingResults() =>
        ExitCode.Of([Samples.Run(Verdict.Pass) with { Missing = ["a"], Faults = ["the suite did not start"] }]).Should().Be(ExitCode.MachineFault);

    [Fact]
    public void LostResultsOutrankWhatTheyWouldHaveSaid() =>
        ExitCode.Of([Samples.Run(Verdict.Crash)], resultsLost: true).Should().Be(ExitCode.MachineFault);

    [Fact]
    public void OneSkippedKernelAmongOthersIsGreen() =>
        ExitCode.Of([Samples.Run(Verdict.Skip), Samples.Run(Verdict.Pass)]).Should().Be(ExitCode.Clean);
}

// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.EndToEnd.Tests;

/// <summary>Each suite can turn red: its negative controls fail, which is their pass.</summary>
public sealed class NegativeControlTests
{
    [Theory]
    [InlineData("KvmXen", "x86_64")]
    [InlineData("IrqBypass", "x86_64")]
    [InlineData("Vfio", "x86_64")]
    [InlineData("ArmRouting", "arm64")]
    public async Task EverySuiteNoticesWhatIsWrongOnPurpose(string suite, string architecture)
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Suites = [suite], Architecture = architecture, NegativeControls = true });
        exit.Should().Be(ExitCode.Clean, run.Printed);
        run.Tests.Should().HaveCountGreaterThan(1).And.OnlyContain(t => t.Verdict == Verdict.Pass);
    }
}

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
    [InlineData("KvmXen")]
    [InlineData("IrqBypass")]
    public async Task EverySuiteNoticesWhatIsWrongOnPurpose(string suite)
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Suites = [suite], NegativeControls = true });
        exit.Should().Be(ExitCode.Clean, run.Printed);
        run.Tests.Should().HaveCountGreaterThan(1).And.OnlyContain(t => t.Verdict == Verdict.Pass);
    }
}

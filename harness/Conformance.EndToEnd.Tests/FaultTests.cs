// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.EndToEnd.Tests;

/// <summary>Every way a test can end is told apart, and none of them takes the rest of the run along.</summary>
public sealed class FaultTests
{
    [Fact]
    public async Task EachFaultHasItsVerdictAndTheRunGoesOn()
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest(), "Faults");

        run.Tests.ToDictionary(t => t.Id.Split('.')[^1], t => t.Verdict).Should().Equal(new Dictionary<string, Verdict>
        {
            ["KernelPanicsInTheMiddle"] = Verdict.Crash,
            ["KernelStopsAnswering"] = Verdict.Hang,
            ["KernelWarnsWhileTheTestPasses"] = Verdict.Crash,
            ["QemuIsKilled"] = Verdict.Broken,
            ["SessionCannotBeKilled"] = Verdict.Hang,
            ["SessionDies"] = Verdict.Broken,
            ["GuestNeverComesBack"] = Verdict.Fail,
            ["ClaimIsBroken"] = Verdict.Fail,
            ["IoctlIsRefused"] = Verdict.Fail,
            ["NothingIsWrong"] = Verdict.Pass,
            ["NothingIsWrongEither"] = Verdict.Pass,
        });
        run["KernelPanicsInTheMiddle"].Reason.Should().Contain("sysrq");
        run["KernelWarnsWhileTheTestPasses"].Reason.Should().Be("WARNING in kvm_xen_set_evtchn");
        run["GuestNeverComesBack"].Reason.Should().Contain("at command 0 of 1");
        run["SessionCannotBeKilled"].Reason.Should().Contain("it sleeps uninterruptibly");
        run["IoctlIsRefused"].Reason.Should().Contain("KVM_SET_GSI_ROUTING").And.Contain("EINVAL");
        exit.Should().Be(ExitCode.KernelDied, run.Printed);
    }

    [Fact]
    public async Task KernelThatDiesWhileItBootsIsACrashOfEveryTest()
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Append = ["rdinit=/no/such/init"], Tests = ["*NothingIsWrong*", "*ClaimIsBroken"] }, "Faults");

        run.Tests.Should().HaveCount(3).And.OnlyContain(t => t.Verdict == Verdict.Crash && t.Reason!.Contains("died before its agent was up: panic"));
        exit.Should().Be(ExitCode.KernelDied, run.Printed);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Kernels;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.EndToEnd.Tests;

/// <summary>The command as its users run it: stock kernels are green where they should be, and say why where they skip.</summary>
public sealed class GreenTests
{
    [Theory]
    [InlineData("debian:6.12")]
    [InlineData("debian:7.2")]
    public async Task StockKernelBreaksNoClaim(string kernel)
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Kernels = [kernel], Tests = ["KvmXen.EventChannel.*", "KvmXen.IrqfdXenRoute.*", "IrqBypass.MsiRoute.*", "IrqBypass.RoutingTable.*"] });
        exit.Should().Be(ExitCode.Clean, run.Printed);
        run.Tests.Count(t => t.Verdict == Verdict.Pass).Should().BeGreaterThan(30);
    }

    [Fact]
    public async Task KernelWithoutXenSkipsWithTheValueSeen()
    {
        using var run = new CommandRun();
        await run.RunAsync(new RunRequest { Kernels = ["debian:6.1"], Tests = ["KvmXen.EventChannel.*"] });
        run.Tests.Should().NotBeEmpty().And.OnlyContain(t => t.Verdict == Verdict.Skip && t.Reason!.EndsWith("KVM_CAP_XEN_HVM = 0x0", StringComparison.Ordinal), run.Printed);
    }

    [Fact]
    public async Task EmptySelectionIsNeverGreen()
    {
        using var run = new CommandRun();
        Func<Task> nothing = () => run.RunAsync(new RunRequest { Tests = ["KvmXen.EventChannel.NoSuchClaim*"] });
        await nothing.Should().ThrowAsync<UsageException>();
    }
}

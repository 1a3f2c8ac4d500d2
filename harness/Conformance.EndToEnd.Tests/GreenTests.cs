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
    [InlineData("KvmXen", 450)]
    [InlineData("IrqBypass", 500)]
    [InlineData("Vfio", 100)]
    public async Task DefaultKernelBreaksNoClaim(string suite, int atLeast)
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Suites = [suite] });
        exit.Should().Be(ExitCode.Clean, run.Printed);
        run.Tests.Count(t => t.Verdict == Verdict.Pass).Should().BeGreaterThan(atLeast);
    }

    [Fact]
    public async Task NewerKernelBreaksNoClaim()
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Kernels = ["debian:7.2"], Tests = ["KvmXen.EventChannel.*", "KvmXen.IrqfdXenRoute.*", "IrqBypass.MsiRoute.*", "IrqBypass.RoutingTable.*"] });
        exit.Should().Be(ExitCode.Clean, run.Printed);
        run.Tests.Count(t => t.Verdict == Verdict.Pass).Should().BeGreaterThan(30);
    }

    [Fact]
    public async Task Gicv4SwitchedOffTakesEachInterruptThroughTheHost()
    {
        using var run = new CommandRun();
        int exit = await run.RunAsync(new RunRequest { Kernels = ["debian:6.12:arm64"], Append = ["kvm-arm.vgic_v4_enable=0"], Tests = ["ArmRouting.DirectInjection.*"] });
        exit.Should().Be(ExitCode.Clean, run.Printed);
        run["EveryInterruptOfAMappedEventIsTakenOnceEitherWay"].Verdict.Should().Be(Verdict.Pass);
        run["MappedEventIsInjectedWithoutAHostInterrupt"].Reason.Should().Contain("needs kvm-arm.vgic_v4_enable");
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

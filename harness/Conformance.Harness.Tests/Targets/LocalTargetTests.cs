// SPDX-License-Identifier: MIT
using System.Diagnostics;
using Conformance.Harness.Tests.Wire;
using Conformance.Kernels;
using Conformance.Targets;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

/// <summary>This machine's own kernel as a target, where its log may be read.</summary>
public sealed class LocalTargetTests : IAsyncLifetime
{
    private LocalTarget? _target;

    private LocalTarget Target => _target!;

    public async ValueTask InitializeAsync()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "its log and its devices are root's");
        Assert.SkipUnless(File.Exists("/dev/kmsg"), "there is no /dev/kmsg");
        _target = await LocalTarget.StartAsync(LocalAgent.Build, TestContext.Current.CancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        if (_target is not null)
        {
            await _target.DisposeAsync();
        }
    }

    [Fact]
    public async Task AgentRunsOnThisKernel()
    {
        Target.Agent.Hello.KernelRelease.Should().Be((await Target.ReadFileAsync("/proc/sys/kernel/osrelease")).Trim());
        Target.Should().Match<LocalTarget>(t => t.Kind == "local" && t.Accelerator == "none" && t.QemuVersion == null && t.Qmp == null);
        File.Exists(Target.GuestImagePath("x86_64.img")).Should().Be(File.Exists(Path.Combine(LocalAgent.Build, "guests", "x86_64.img")));
    }

    [Fact]
    public async Task MarksComeBackAndProgramsMakeNoReports()
    {
        LogMark begin = await Target.Log.MarkAsync("begin", TestContext.Current.CancellationToken);
        await using (AgentSession session = await Target.Agent.OpenSessionAsync(TestContext.Current.CancellationToken))
        {
            byte[] text = [.. "WARNING: CPU: 0 PID: 1 at nowhere.c:1 nothing+0x1/0x2\n"u8];
            int fd = (int)(await session.CallAsync(new SystemCall(LocalAgent.Calls.Openat, "open(/dev/kmsg)").Arg(-100).In("/dev/kmsg\0"u8).Arg(1).Arg(0))).Result;
            (await session.CallAsync(new SystemCall(LocalAgent.Calls.Write, "write(/dev/kmsg)").Arg(fd).In(text).Arg(text.Length))).Result.Should().Be(text.Length);
        }

        // More of them at once than the kernel lets one open file write.
        for (int i = 0; i < 30; i++)
        {
            await Target.Log.MarkAsync($"mark {i}", TestContext.Current.CancellationToken);
        }

        Target.Log.TextSince(begin).Should().Contain("WARNING: CPU: 0 PID: 1 at nowhere.c:1").And.Contain("mark 29");
        Target.Log.ReportsSince(begin).Should().NotContain(r => r.Text.Contains("nowhere.c", StringComparison.Ordinal));
    }

    [Fact]
    public async Task EndOfTheTargetLeavesNothingBehind()
    {
        AgentSession session = await Target.Agent.OpenSessionAsync(TestContext.Current.CancellationToken);
        await Target.ShutdownAsync();
        (await Target.Died).End.Should().Be(TargetEnd.ShutDown);
        Directory.Exists($"/proc/{session.Pid}").Should().BeFalse();
        Directory.Exists($"/proc/{Target.Agent.Hello.Pid}").Should().BeFalse();
        (await session.Ended).Crashed.Should().BeTrue();
    }

    [Fact]
    public async Task AgentThatIsKilledIsALostTarget()
    {
        using Process agent = Process.GetProcessById(Target.Agent.Hello.Pid);
        agent.Kill();
        (await Target.Died.WaitAsync(TestContext.Current.CancellationToken)).End.Should().Be(TargetEnd.Lost);
        Func<Task> mark = () => Target.Log.MarkAsync("after the end", TestContext.Current.CancellationToken);
        await mark.Should().ThrowAsync<Exception>();
    }

    [Fact]
    public async Task AgentThatIsNotThereIsAFaultOfTheMachine()
    {
        using TemporaryFolder folder = new();
        Func<Task> missing = () => LocalTarget.StartAsync(folder.Path, TestContext.Current.CancellationToken);
        (await missing.Should().ThrowAsync<MachineFaultException>()).Which.Message.Should().Contain("cannot be started");
        File.Copy(Path.Combine(LocalAgent.Build, "tether"), folder["tether"]);
        (await missing.Should().ThrowAsync<MachineFaultException>()).Which.Message.Should().Contain("No such file or directory");
    }
}

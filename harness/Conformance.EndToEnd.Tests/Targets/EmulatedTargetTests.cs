// SPDX-License-Identifier: MIT
using System.Diagnostics;
using Conformance.Kernels;
using Conformance.Targets;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.EndToEnd.Tests.Targets;

public sealed class EmulatedTargetTests(TargetLab lab)
{
    [Fact]
    public async Task BootedKernelAnswersAndPowersOffInOrder()
    {
        await using EmulatedTarget target = await lab.StartAsync(new MachineOptions());
        target.Restored.Should().BeFalse();
        target.QemuVersion.Should().MatchRegex(@"^\d+\.\d+\.\d+$");
        await using (AgentSession session = await target.Agent.OpenSessionAsync(TargetLab.Cancellation))
        {
            (await session.CallAsync(new SystemCall(SystemCalls.X86_64.Getpid, "getpid()"))).Result.Should().Be(session.Pid);
        }

        await target.ShutdownAsync();
        (await target.Died).End.Should().Be(TargetEnd.ShutDown);
        lab.Console.Should().Contain("reboot: Power down");
        target.Log.ReportsSince(KernelLog.Start).Should().BeEmpty();
    }

    [Fact]
    public async Task PanicIsADeathWithTheKernelsOwnReport()
    {
        await using EmulatedTarget target = await lab.StartAsync();
        await target.Log.MarkAsync("begin Some.Test", TargetLab.Cancellation);
        await target.Invoking(t => TargetLab.WriteAsync(t, "/proc/sysrq-trigger", "c")).Should().ThrowAsync<AgentLostException>();
        TargetDeath death = await target.Died.WaitAsync(TargetLab.Cancellation);
        death.End.Should().Be(TargetEnd.KernelDied);
        death.Reason.Should().Be("panic: sysrq triggered crash");
        death.Report!.Severity.Should().Be(Severity.Dead);
        death.Report.During.Should().Be("begin Some.Test");
        death.ConsoleExcerpt.Should().Contain("Kernel panic - not syncing").And.Contain("write_sysrq_trigger");
    }

    [Fact]
    public async Task DeadReportEndsAKernelThatRunsOn()
    {
        await using EmulatedTarget target = await lab.StartAsync();
        // A line without its end would wait in the kernel for the rest of it.
        await TargetLab.WriteAsync(target, "/dev/kmsg", "<1>BUG: kernel NULL pointer dereference, address: 0000000000000010\n");
        await TargetLab.WriteAsync(target, "/dev/kmsg", "<4>RIP: 0010:kvm_xen_hypercall+0x12/0x34 [kvm]\n");
        await TargetLab.WriteAsync(target, "/dev/kmsg", "<4>---[ end trace 0000000000000000 ]---\n");
        TargetDeath death = await target.Died.WaitAsync(TargetLab.Cancellation);
        death.End.Should().Be(TargetEnd.KernelDied);
        death.Reason.Should().Be("NULL pointer dereference in kvm_xen_hypercall");
        await target.Agent.Completion.WaitAsync(TargetLab.Cancellation);
    }

    [Fact]
    public async Task ResetWithoutAWordIsADeathOfTheKernel()
    {
        await using EmulatedTarget target = await lab.StartAsync();
        await target.Invoking(t => TargetLab.WriteAsync(t, "/proc/sysrq-trigger", "b")).Should().ThrowAsync<AgentLostException>();
        TargetDeath death = await target.Died.WaitAsync(TargetLab.Cancellation);
        death.End.Should().Be(TargetEnd.KernelDied);
        death.Reason.Should().Contain("reset");
    }

    [Fact]
    public async Task StoppedMachineIsAHangAndItsRegistersAreKept()
    {
        await using EmulatedTarget target = await lab.StartAsync();
        await target.Qmp.ExecuteAsync("stop", null, TargetLab.Cancellation);
        TargetDeath death = await target.DiagnoseAsync(new TimeoutException("no answer"));
        death.End.Should().Be(TargetEnd.KernelHung);
        death.Evidence.Should().Contain("machine: paused").And.Contain("RIP=").And.Contain("CPU#1");
        (await target.Died).Should().Be(death);
        await target.Agent.Completion.WaitAsync(TargetLab.Cancellation);
    }

    [Fact]
    public async Task FrozenAgentIsAHangAndTheKernelIsAskedWhatItDoes()
    {
        await using EmulatedTarget target = await lab.StartAsync();
        AgentSession session = await target.Agent.OpenSessionAsync(TargetLab.Cancellation);
        const uint Mount = 165;
        (await session.CallAsync(new SystemCall(Mount, "mount").In("none\0"u8).In("/tmp\0"u8).In("cgroup2\0"u8).Arg(0).Arg(0))).Errno.Should().Be(0);
        (await session.CallAsync(new SystemCall(SystemCalls.X86_64.Mkdirat, "mkdir").Arg(-100).In("/tmp/f\0"u8).Arg(0b111_000_000))).Errno.Should().Be(0);
        await TargetLab.WriteAsync(target, "/tmp/f/cgroup.procs", "1");

        // The answer to this write would have to pass the agent it freezes.
        Task<AgentSession> freezing = TargetLab.WriteAsync(target, "/tmp/f/cgroup.freeze", "1");
        while (await AnswersAsync(target, TimeSpan.FromSeconds(2)))
        {
            // The freezer takes effect a little after the write.
        }

        TargetDeath death = await target.DiagnoseAsync(new TimeoutException("no answer"));
        death.End.Should().Be(TargetEnd.KernelHung);
        death.Evidence.Should().Contain("console: answers to SysRq").And.Contain("Show Blocked State").And.Contain("RIP=");
        await freezing.Invoking(async f => await f).Should().ThrowAsync<AgentLostException>();
    }

    [Fact]
    public async Task KilledQemuIsNobodysFault()
    {
        await using EmulatedTarget target = await lab.StartAsync();
        (await ProcessesOfAsync(lab.Work)).Single(p => p.ProcessName.StartsWith("qemu", StringComparison.Ordinal)).Kill();
        TargetDeath death = await target.Died.WaitAsync(TargetLab.Cancellation);
        death.End.Should().Be(TargetEnd.Lost);
        death.Reason.Should().Contain("killed by signal 9");
        await target.Agent.Invoking(a => a.OpenSessionAsync(TargetLab.Cancellation)).Should().ThrowAsync<AgentLostException>();
    }

    [Fact]
    public async Task KernelThatDiesWhileItBootsIsAFaultThatShowsItsConsole()
    {
        MachineFaultException fault = (await lab.Invoking(l => l.StartAsync(new MachineOptions { ExtraKernelArguments = ["rdinit=/no/such/init"] }))
            .Should().ThrowAsync<MachineFaultException>()).Which;
        fault.Message.Should().Contain("died before its agent was up: panic: ").And.Contain("The end of its console:").And.Contain("Kernel panic - not syncing");
    }

    [Fact]
    public async Task KernelThatHangsWhileItBootsIsAHangThatShowsItsConsole()
    {
        // The agent waits for a channel whose driver never comes.
        MachineOptions options = new() { ExtraKernelArguments = ["initcall_blacklist=virtio_pci_driver_init"], BootSilence = TimeSpan.FromSeconds(30) };
        BootFailureException fault = (await lab.Invoking(l => l.StartAsync(options)).Should().ThrowAsync<BootFailureException>()).Which;
        fault.Death.End.Should().Be(TargetEnd.KernelHung);
        fault.Message.Should().Contain("did not answer and its kernel printed nothing for 30 s").And.Contain("The end of its console:");
    }

    [Fact]
    public async Task DeviceThatQemuDoesNotHaveIsAFaultWithItsWords()
    {
        MachineFaultException fault = (await lab.Invoking(l => l.StartAsync(new MachineOptions { Devices = ["no-such-device"] })).Should().ThrowAsync<MachineFaultException>()).Which;
        fault.Message.Should().Contain("'no-such-device' is not a valid device model name").And.NotContain("TCG doesn't support");
    }

    [Fact]
    public async Task NothingIsLeftWhenTheOwnerIsKilled()
    {
        await (await lab.StartAsync()).DisposeAsync();
        string folder = Path.Combine(lab.Work, "owner");
        Directory.CreateDirectory(folder);
        string prepared = Path.Combine(folder, "prepared.json");
        await (await lab.X86Async()).SaveAsync(prepared, TargetLab.Cancellation);
        using Process owner = Process.Start(new ProcessStartInfo(Environment.ProcessPath!, [Holder.Argument, prepared, lab.Saved, folder]) { RedirectStandardOutput = true })!;
        (await owner.StandardOutput.ReadLineAsync(TargetLab.Cancellation)).Should().Be("up");
        List<Process> held = await ProcessesOfAsync(folder);
        held.Should().HaveCount(2, "QEMU and its tether");
        owner.Kill();
        foreach (Process one in held)
        {
            await one.WaitForExitAsync(TargetLab.Cancellation);
        }
    }

    private static async Task<bool> AnswersAsync(Target target, TimeSpan within)
    {
        using CancellationTokenSource patience = new(within);
        try
        {
            await target.Agent.OpenSessionAsync(patience.Token);
            return true;
        }
        catch (SessionDeadlineException)
        {
            return false;
        }
    }

    /// <summary>Processes, of whoever started them, whose arguments name the folder, but for this test and its like.</summary>
    private static async Task<List<Process>> ProcessesOfAsync(string folder)
    {
        List<Process> found = [];
        foreach (Process process in Process.GetProcesses())
        {
            try
            {
                string line = await File.ReadAllTextAsync($"/proc/{process.Id}/cmdline", TargetLab.Cancellation);
                if (line.Contains("qemu-system", StringComparison.Ordinal) && line.Contains(folder + "/", StringComparison.Ordinal))
                {
                    found.Add(process);
                    continue;
                }
            }
            catch (IOException)
            {
                // It ended while it was looked at: not one that is being looked for.
            }

            process.Dispose();
        }

        return found;
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Targets;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

[assembly: MachineNeeds(Modules = ["kvm-amd"], TestDeadlineSeconds = 15)]

namespace Conformance.Faults;

/// <summary>What can go wrong under a test, each for real. The tests between them show that the run goes on.</summary>
public sealed class FaultTests(KernelUnderTest kernel)
{
    [Fact]
    public async Task KernelPanicsInTheMiddle()
    {
        KernelSession session = await kernel.CreateSessionAsync();
        await session.WriteFileAsync("/proc/sysrq-trigger", "c");
        await session.CreateEventFdAsync();
    }

    [Fact]
    public async Task KernelStopsAnswering()
    {
        KernelSession session = await kernel.CreateSessionAsync();
        // Seen from outside, a stopped machine is a kernel that hangs with interrupts off.
        await (await kernel.TargetAsync()).Qmp!.ExecuteAsync("stop", null, CancellationToken.None);
        await session.CreateEventFdAsync();
    }

    [Fact]
    public async Task QemuIsKilled()
    {
        KernelSession session = await kernel.CreateSessionAsync();
        Target target = await kernel.TargetAsync();
        await Task.WhenAny(target.Qmp!.ExecuteAsync("quit", null, CancellationToken.None), target.Died);
        await target.Died;
        await session.CreateEventFdAsync();
    }

    [Fact]
    public async Task SessionDies()
    {
        KernelSession session = await kernel.CreateSessionAsync();
        const int SigKill = 9;
        await session.Agent.CallAsync(new SystemCall(session.Numbers.Kill, "kill(self)").Arg(session.Agent.Pid).Arg(SigKill));
    }

    [Fact]
    public async Task SessionCannotBeKilled()
    {
        KernelSession frozen = await kernel.CreateSessionAsync();
        KernelSession session = await kernel.CreateSessionAsync();
        // The freezer of cgroup v1 lets none of its processes die.
        await MakeFolderAsync("/freezer");
        CallResult mounted = await session.Agent.CallAsync(new SystemCall(session.Numbers.Mount, "mount(freezer)")
            .In("none\0"u8.ToArray()).In("/freezer\0"u8.ToArray()).In("cgroup\0"u8.ToArray()).Arg(0).In("freezer\0"u8.ToArray()));
        mounted.Errno.Should().Be(0);
        await MakeFolderAsync("/freezer/it");
        await session.WriteFileAsync("/freezer/it/cgroup.procs", $"{frozen.Agent.Pid}");
        await session.WriteFileAsync("/freezer/it/freezer.state", "FROZEN");
        frozen.Agent.ClosePatience = TimeSpan.FromSeconds(3);

        async Task MakeFolderAsync(string path) =>
            await session.Agent.CallAsync(new SystemCall(session.Numbers.Mkdirat, $"mkdir({path})").Arg(-100).In([.. System.Text.Encoding.ASCII.GetBytes(path), 0]).Arg(0x1ed));
    }

    [Fact]
    public async Task GuestNeverComesBack()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        vm.Session.EventPatience = TimeSpan.FromSeconds(4);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(GuestCommand.SpinUntil(new GuestCondition(GuestLayout.Scratch, Comparison.Equal, 1))));
    }

    [Fact]
    public async Task KernelWarnsWhileTheTestPasses()
    {
        KernelSession session = await kernel.CreateSessionAsync();
        await session.WriteFileAsync("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at arch/x86/kvm/xen.c:1 kvm_xen_set_evtchn+0x10/0x20\n");
    }

    [Fact]
    public async Task ClaimIsBroken()
    {
        await using EventFd eventfd = await kernel.CreateEventFdAsync(count: 2);
        (await eventfd.ReadAsync()).Should().Be(3);
    }

    [Fact]
    public async Task IoctlIsRefused()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(4096, 0, 0));
    }

    [Fact]
    public async Task NothingIsWrong() => (await kernel.CapabilityAsync(KvmCap.Irqfd)).Should().Be(1);

    [Fact]
    public async Task NothingIsWrongEither() => (await kernel.CapabilityAsync(KvmCap.Irqchip)).Should().Be(1);
}

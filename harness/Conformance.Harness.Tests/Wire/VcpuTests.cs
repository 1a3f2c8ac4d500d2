// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>vCPU threads on this machine's own KVM, where it opens, with guests of a few bytes in real mode.</summary>
public sealed class VcpuTests : IAsyncLifetime
{
    private const ulong Load = 0x1000;
    private const uint ExitReason = 8;
    private const uint IoDataOffset = 40;
    private const uint IoPort = 34;
    private const uint ExitIo = 2;
    private const uint ExitHlt = 5;
    private const int IoSpan = 48;
    private static readonly TimeSpan s_moment = TimeSpan.FromMilliseconds(50);

    private LocalAgent? _agent;
    private AgentSession _session = null!;
    private ulong _memory;
    private ulong _run;
    private int _vcpu;

    public async ValueTask InitializeAsync()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture == Architecture.X64, "the guests are x86 code");
        string reason = WhyNoKvm();
        Assert.SkipWhen(reason.Length > 0, $"/dev/kvm does not open: {reason}");
        _agent = await LocalAgent.StartAsync();
        _session = await _agent.OpenAsync();
        CallResult kvm = await _session.CallAsync(new SystemCall(LocalAgent.Calls.Openat, "open(/dev/kvm)").Arg(-100).In("/dev/kvm\0"u8).Arg(2).Arg(0));
        int vm = (int)(await IoctlAsync((int)kvm.Result, KvmIoctl.KVM_CREATE_VM, 0L)).Result;
        _memory = await _session.MapAsync(0x10000);
        var region = new kvm_userspace_memory_region { memory_size = 0x10000, userspace_addr = _memory };
        (await IoctlAsync(vm, KvmIoctl.KVM_SET_USER_MEMORY_REGION, region)).Errno.Should().Be(0);
        _vcpu = (int)(await IoctlAsync(vm, KvmIoctl.KVM_CREATE_VCPU, 0L)).Result;
        ulong size = (ulong)(await IoctlAsync((int)kvm.Result, KvmIoctl.KVM_GET_VCPU_MMAP_SIZE, 0L)).Result;
        _run = (ulong)(await _session.CallAsync(new SystemCall(LocalAgent.Calls.Mmap, "mmap(vCPU)").Arg(0).Arg(size).Arg(3).Arg(1).Arg(_vcpu).Arg(0))).Result;

        CallResult sregs = await IoctlAsync(_vcpu, KvmX86Ioctl.KVM_GET_SREGS, default(kvm_sregs));
        kvm_sregs flat = MemoryMarshal.Read<kvm_sregs>(sregs.Buffers[0]);
        flat.cs.@base = 0;
        flat.cs.selector = 0;
        (await IoctlAsync(_vcpu, KvmX86Ioctl.KVM_SET_SREGS, flat)).Errno.Should().Be(0);
        (await IoctlAsync(_vcpu, KvmX86Ioctl.KVM_SET_REGS, new kvm_regs { rip = Load, rflags = 2 })).Errno.Should().Be(0);
    }

    public async ValueTask DisposeAsync()
    {
        if (_agent is not null)
        {
            await _session.DisposeAsync();
            await _agent.DisposeAsync();
        }
    }

    [Fact]
    public async Task ExitCarriesItsRangesAndIsAnswered()
    {
        // mov dx, 0x10; in al, dx; inc ax; out dx, al; hlt
        AgentVcpu vcpu = await StartAsync([0xba, 0x10, 0x00, 0xec, 0x40, 0xee, 0xf4]);
        vcpu.ThreadId.Should().BePositive().And.NotBe(_session.Pid);
        File.ReadAllText($"/proc/{_session.Pid}/task/{vcpu.ThreadId}/comm").Should().Be("vcpu 0\n");

        VcpuExit input = await NextAsync(vcpu);
        input.Should().Match<VcpuExit>(e => e.Cause == VcpuCause.Exit && e.Exits == 1 && e.Errno == 0 && e.Timestamp > 0);
        U32(input, ExitReason).Should().Be(ExitIo);
        await vcpu.ResumeAsync(VcpuWrite.Run(BinaryPrimitives.ReadUInt64LittleEndian(input.Data.Span[(int)IoDataOffset..]), new byte[] { 0x41 }));

        VcpuExit output = await NextAsync(vcpu);
        output.Exits.Should().Be(2);
        U32(output, ExitReason).Should().Be(ExitIo);
        (await _session.ReadAsync(_run + BinaryPrimitives.ReadUInt64LittleEndian(output.Data.Span[(int)IoDataOffset..]), 1)).Should().Equal(0x42);
        await vcpu.ResumeAsync();

        VcpuExit halted = await NextAsync(vcpu);
        U32(halted, ExitReason).Should().Be(ExitHlt);
        halted.Timestamp.Should().BeGreaterThan(output.Timestamp);
        await vcpu.StopAsync();
        (await vcpu.Exits.WaitToReadAsync()).Should().BeFalse();
    }

    [Fact]
    public async Task WritesBeforeGoingOnReachGuestMemoryToo()
    {
        // out 0x10, al; mov al, [0x2000]; out 0x11, al; hlt
        AgentVcpu vcpu = await StartAsync([0xe6, 0x10, 0xa0, 0x00, 0x20, 0xe6, 0x11, 0xf4], ranges: [new VcpuRange(VcpuBase.Absolute, _memory + 0x2000, 2)]);
        (await NextAsync(vcpu)).Data.ToArray().Should().Equal(0, 0);
        await vcpu.ResumeAsync(VcpuWrite.Memory(_memory + 0x2000, new byte[] { 0x77 }));
        (await NextAsync(vcpu)).Data.ToArray().Should().Equal(0x77, 0);
    }

    [Fact]
    public async Task MarkedExitsAreRecordedAndToldWhileTheGuestRunsOn()
    {
        // mov cx, 5; 1: out 0x20, al; inc ax; loop 1b; out 0x21, al; hlt
        AgentVcpu vcpu = await StartAsync(
            [0xb9, 0x05, 0x00, 0xe6, 0x20, 0x40, 0xe2, 0xfb, 0xe6, 0x21, 0xf4],
            [OutTo(7, 0x20, VcpuMarkAction.Record), OutTo(8, 0x21, VcpuMarkAction.Record | VcpuMarkAction.Notify)]);
        VcpuExit told = await NextAsync(vcpu);
        told.Should().Match<VcpuExit>(e => e.Cause == VcpuCause.Marked && e.Mark == 8 && e.Exits == 6);
        U32(await NextAsync(vcpu), ExitReason).Should().Be(ExitHlt);

        (IReadOnlyList<VcpuRecord> records, ulong dropped) = await vcpu.RecordsAsync();
        dropped.Should().Be(0);
        records.Select(r => r.Mark).Should().Equal(7, 7, 7, 7, 7, 8);
        records.Select(r => r.Timestamp).Should().BeInAscendingOrder();
        records.Should().OnlyContain(r => r.Data.Length == IoSpan);
        (await vcpu.RecordsAsync()).Records.Should().BeEmpty("they were taken");
    }

    [Fact]
    public async Task RecordsBeyondTheLimitAreCountedAndTheRestComesInPieces()
    {
        // mov ecx, 65600; 1: out 0x20, al; dec ecx; jnz 1b; hlt
        const int Count = 65_600;
        AgentVcpu vcpu = await StartAsync(
            [0x66, 0xb9, 0x40, 0x00, 0x01, 0x00, 0xe6, 0x20, 0x66, 0x49, 0x75, 0xfa, 0xf4],
            [OutTo(1, 0x20, VcpuMarkAction.Record)],
            [new VcpuRange(VcpuBase.Run, 0, 512)]);
        (await NextAsync(vcpu)).Exits.Should().Be(Count + 1);
        await vcpu.StopAsync();
        (IReadOnlyList<VcpuRecord> records, ulong dropped) = await vcpu.RecordsAsync();
        records.Should().HaveCount(65_536);
        dropped.Should().Be(Count - 65_536);
    }

    [Fact]
    public async Task KickEndsARunningGuestsEntry()
    {
        // jmp .
        AgentVcpu vcpu = await StartAsync([0xeb, 0xfe]);
        await vcpu.KickAsync();
        VcpuExit kicked = await NextAsync(vcpu);
        kicked.Should().Match<VcpuExit>(e => e.Cause == VcpuCause.Kicked && e.Exits == 0);
        (await _session.ReadAsync(_run + 1, 1)).Should().Equal([0], "the kick was taken");
        await vcpu.ResumeAsync();
        await vcpu.KickAsync();
        (await NextAsync(vcpu)).Cause.Should().Be(VcpuCause.Kicked);
    }

    [Fact]
    public async Task KickOfAStoppedVcpuIsTakenWhenItGoesOn()
    {
        AgentVcpu vcpu = await StartAsync([0xeb, 0xfe], stopped: true);
        await vcpu.KickAsync();
        await vcpu.ResumeAsync();
        (await NextAsync(vcpu)).Cause.Should().Be(VcpuCause.Kicked);
    }

    [Fact]
    public async Task RunningVcpuIsNotResumed()
    {
        AgentVcpu vcpu = await StartAsync([0xeb, 0xfe]);
        Func<Task> resume = () => vcpu.ResumeAsync();
        (await resume.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EBUSY);
    }

    [Fact]
    public async Task StopEndsARunningGuestAndNothingFollows()
    {
        AgentVcpu vcpu = await StartAsync([0xeb, 0xfe]);
        await vcpu.StopAsync();
        await vcpu.StopAsync();
        vcpu.Exits.TryRead(out _).Should().BeFalse();
        await vcpu.Exits.Completion;
        Func<Task> kick = () => vcpu.KickAsync();
        (await kick.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.ENOENT);
    }

    [Fact]
    public async Task GuestThatRunsOnForEverEndsWithItsSession()
    {
        // 1: out 0x20, al; jmp 1b
        AgentVcpu vcpu = await StartAsync([0xe6, 0x20, 0xeb, 0xfc], [OutTo(1, 0x20, VcpuMarkAction.Notify)]);
        (await NextAsync(vcpu)).Cause.Should().Be(VcpuCause.Marked);
        await _session.DisposeAsync();
        await vcpu.Exits.Completion.WaitAsync(s_moment * 100, TestContext.Current.CancellationToken).ContinueWith(static _ => { }, TaskScheduler.Default);
        Directory.Exists($"/proc/{_session.Pid}").Should().BeFalse();
    }

    [Fact]
    public async Task ExitsFailWhenTheSessionDies()
    {
        AgentVcpu vcpu = await StartAsync([0xeb, 0xfe]);
        Func<Task> crash = () => _session.CallAsync(new SystemCall(LocalAgent.Calls.Kill, "kill(self, SIGKILL)").Arg(_session.Pid).Arg(9));
        await crash.Should().ThrowAsync<SessionEndedException>();
        Func<Task> next = () => NextAsync(vcpu);
        (await next.Should().ThrowAsync<System.Threading.Channels.ChannelClosedException>()).WithInnerException<SessionEndedException>();
    }

    [Fact]
    public async Task IoctlThatFailsIsToldWithItsErrno()
    {
        AgentVcpu vcpu = await _session.StartVcpuAsync(new VcpuStart { Fd = 9999, Request = KvmIoctl.KVM_RUN.Number, Run = _run, KickOffset = 1 });
        (await NextAsync(vcpu)).Should().Match<VcpuExit>(e => e.Cause == VcpuCause.Failed && e.Errno == (int)Errno.EBADF && e.Exits == 0);
    }

    [Fact]
    public async Task WhatIsNotMappedIsRefused()
    {
        var start = new VcpuStart { Fd = _vcpu, Request = KvmIoctl.KVM_RUN.Number, Run = _run, KickOffset = 1 };
        VcpuStart[] impossible =
        [
            start with { Run = 0x1000 },
            start with { Ranges = [new VcpuRange(VcpuBase.Absolute, 0x1000, 8)] },
            start with { Marks = [new VcpuMark(1, VcpuMarkAction.Record, [new VcpuCondition(0x40000000, 4, 1, 1)])] },
        ];
        foreach (VcpuStart one in impossible)
        {
            Func<Task> refused = () => _session.StartVcpuAsync(one);
            (await refused.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EFAULT);
        }

        AgentVcpu vcpu = await StartAsync([0xf4], stopped: true);
        Func<Task> resume = () => vcpu.ResumeAsync(VcpuWrite.Memory(0x1000, new byte[8]));
        (await resume.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EFAULT);
        await vcpu.ResumeAsync();
        U32(await NextAsync(vcpu), ExitReason).Should().Be(ExitHlt);
    }

    private static string WhyNoKvm()
    {
        try
        {
            using FileStream kvm = File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
            return "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return e.Message;
        }
    }

    private static VcpuMark OutTo(uint id, ushort port, VcpuMarkAction action) => new(id, action,
    [
        new VcpuCondition(ExitReason, 4, 0xffffffff, ExitIo),
        new VcpuCondition(IoPort, 2, 0xffff, port),
    ]);

    private static uint U32(VcpuExit exit, uint offset) => BinaryPrimitives.ReadUInt32LittleEndian(exit.Data.Span[(int)offset..]);

    private static async Task<VcpuExit> NextAsync(AgentVcpu vcpu) => await vcpu.Exits.ReadAsync(TestContext.Current.CancellationToken);

    private async Task<AgentVcpu> StartAsync(byte[] code, VcpuMark[]? marks = null, VcpuRange[]? ranges = null, bool stopped = false)
    {
        await _session.WriteAsync(_memory + Load, code);
        return await _session.StartVcpuAsync(new VcpuStart
        {
            Fd = _vcpu,
            Request = KvmIoctl.KVM_RUN.Number,
            Run = _run,
            KickOffset = 1,
            Stopped = stopped,
            Ranges = ranges ?? [new VcpuRange(VcpuBase.Run, 0, IoSpan)],
            Marks = marks ?? [],
        });
    }

    private Task<CallResult> IoctlAsync(int fd, Ioctl request, long argument) =>
        _session.CallAsync(new SystemCall(LocalAgent.Calls.Ioctl, $"ioctl({fd}, {request})").Arg(fd).Arg(request.Number).Arg(argument));

    private Task<CallResult> IoctlAsync<T>(int fd, Ioctl request, T argument)
        where T : unmanaged
    {
        byte[] bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in argument)).ToArray();
        return _session.CallAsync(new SystemCall(LocalAgent.Calls.Ioctl, $"ioctl({fd}, {request})").Arg(fd).Arg(request.Number).InOut(bytes, bytes.Length));
    }
}

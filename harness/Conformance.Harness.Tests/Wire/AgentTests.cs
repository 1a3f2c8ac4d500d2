// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Text;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>The agent as it is, on this machine's kernel: real system calls, real processes.</summary>
public sealed class AgentTests
{
    private static readonly SystemCalls s_calls = SystemCalls.X86_64;

    [Fact]
    public async Task HelloNamesTheKernel()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        agent.Connection.Hello.KernelRelease.Should().Be(File.ReadAllText("/proc/sys/kernel/osrelease").Trim());
        agent.Connection.Hello.Machine.Should().Be(62);
    }

    [Fact]
    public async Task ASessionIsAProcessOfItsOwn()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        CallResult pid = await session.CallAsync(new SystemCall(s_calls.Getpid, "getpid()"));
        pid.Result.Should().Be(session.Pid).And.NotBe(agent.Connection.Hello.Pid);
    }

    [Fact]
    public async Task AnEventFdCountsWhatWasWritten()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        CallResult fd = await session.CallAsync(new SystemCall(s_calls.Eventfd2, "eventfd()").Arg(3).Arg(0));
        await session.CallAsync(new SystemCall(s_calls.Write, "write()").Arg(fd.Result).In(BitConverter.GetBytes(4L)).Arg(8));
        CallResult read = await session.CallAsync(new SystemCall(s_calls.Read, "read()").Arg(fd.Result).Out(8).Arg(8));
        BitConverter.ToInt64(read.Buffers[0]).Should().Be(7);
    }

    [Fact]
    public async Task PointersInsideBuffersAreRelocated()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        CallResult fd = await session.CallAsync(new SystemCall(s_calls.MemfdCreate, "memfd()").In("x\0"u8).Arg(0));
        var writev = new SystemCall(20, "writev()").Arg(fd.Result).In([.. new byte[8], 3, 0, 0, 0, 0, 0, 0, 0, .. new byte[8], 2, 0, 0, 0, 0, 0, 0, 0]).Arg(2);
        writev.Pointer(0, 0, writev.Attach("abc"u8, 3, returned: false)).Pointer(0, 16, writev.Attach("xde"u8, 3, returned: false), addend: 1);
        (await session.CallAsync(writev)).Result.Should().Be(5);
        CallResult read = await session.CallAsync(new SystemCall(s_calls.Pread64, "pread()").Arg(fd.Result).Out(5).Arg(5).Arg(0));
        Encoding.ASCII.GetString(read.Buffers[0]).Should().Be("abcde");
    }

    [Fact]
    public async Task MemoryThatIsNotMappedIsRefusedAndTheSessionLives()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        Func<Task> read = () => session.ReadAsync(16, 8);
        Func<Task> write = () => session.WriteAsync(16, new byte[3]);
        (await read.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EFAULT);
        (await write.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EFAULT);
        (await session.CallAsync(new SystemCall(s_calls.Getpid, "getpid()"))).Result.Should().Be(session.Pid);
    }

    [Fact]
    public async Task AnOffloadedCallDoesNotBlockTheSession()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        CallResult fd = await session.CallAsync(new SystemCall(s_calls.Eventfd2, "eventfd()").Arg(0).Arg(0));
        Task<CallResult> blocked = session.CallAsync(new SystemCall(s_calls.Read, "read()").Arg(fd.Result).Out(8).Arg(8), offload: true);
        await session.CallAsync(new SystemCall(s_calls.Write, "write()").Arg(fd.Result).In(BitConverter.GetBytes(1L)).Arg(8));
        (await blocked).Result.Should().Be(8);
    }

    [Fact]
    public async Task ASessionThatCrashesSaysSoAndTheOthersGoOn()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession other = await agent.Connection.OpenSessionAsync(default);
        AgentSession session = await agent.Connection.OpenSessionAsync(default);
        Func<Task> crash = () => session.CallAsync(new SystemCall(s_calls.Kill, "kill()").Arg(session.Pid).Arg(11));
        await crash.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Signal.Should().Be(11);
        (await other.CallAsync(new SystemCall(s_calls.Getpid, "getpid()"))).Result.Should().Be(other.Pid);
    }

    [Fact]
    public async Task ClosingASessionReleasesItsDescriptorsBeforeItReturns()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession owner = await agent.Connection.OpenSessionAsync(default);
        await using AgentSession watcher = await agent.Connection.OpenSessionAsync(default);
        CallResult fds = await owner.CallAsync(new SystemCall(s_calls.Eventfd2, "eventfd()").Arg(0).Arg(0));
        string before = $"/proc/{owner.Pid}/fd/{fds.Result}";
        File.Exists(before).Should().BeTrue();
        await owner.DisposeAsync();
        File.Exists(before).Should().BeFalse();
        Directory.Exists($"/proc/{owner.Pid}").Should().BeFalse();
    }

    [Fact]
    public async Task AProgramCountsItsLoops()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        ulong page = await MapAsync(session);
        var program = new AgentProgram("count");
        for (int i = 0; i < 2; i++)
        {
            ProgramThread thread = program.Thread();
            int inner = thread.Here;
            thread.Add(page, 8, 1).Loop(inner, 4).Call(s_calls.Close, [9999]).Barrier().Loop(inner, 9);
        }

        ProgramOutcome outcome = await session.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Finished);
        BitConverter.ToUInt64(await session.ReadAsync(page, 8)).Should().Be(2 * 10 * 5);
        outcome.Threads[1][2].Should().BeEquivalentTo(new { Runs = 10ul, Failures = 10ul });
        outcome.Threads[1][2].Errnos.Should().Equal(new Dictionary<int, ulong> { [(int)Errno.EBADF] = 10 });
    }

    [Fact]
    public async Task AProgramThatBlocksEndsAtItsDeadline()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        ulong page = await MapAsync(session);
        var program = new AgentProgram("block") { Deadline = TimeSpan.FromMilliseconds(50) };
        program.Thread().Await(page, 4, MemoryCondition.Equal, 1);
        program.Thread().Barrier();
        program.Thread().Call(s_calls.Ppoll, [0, 0, 0, 0]);
        (await session.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Deadline);
    }

    [Fact]
    public async Task MemoryIsAwaited()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        ulong page = await MapAsync(session);
        Task<(bool Met, ulong Value)> awaited = session.AwaitAsync(page, 4, MemoryCondition.AtLeast, 5, TimeSpan.FromSeconds(30));
        await session.WriteAsync(page, BitConverter.GetBytes(6));
        (await awaited).Should().Be((true, 6ul));
        (await session.AwaitAsync(page, 4, MemoryCondition.Equal, 7, TimeSpan.FromMilliseconds(1))).Should().Be((false, 6ul));
    }

    [Fact]
    public async Task ADeadlineNamesTheOperation()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        CallResult fd = await session.CallAsync(new SystemCall(s_calls.Eventfd2, "eventfd()").Arg(0).Arg(0));
        using var deadline = new CancellationTokenSource(TimeSpan.FromMilliseconds(30));
        session.Deadline = deadline.Token;
        Func<Task> read = () => session.CallAsync(new SystemCall(s_calls.Read, "read(eventfd A)").Arg(fd.Result).Out(8).Arg(8), offload: true);
        (await read.Should().ThrowAsync<SessionDeadlineException>()).Which.Operation.Should().Be("read(eventfd A)");
        session.Deadline = default;
    }

    [Fact]
    public async Task MalformedPayloadEndsTheSessionAndNotTheSupervisor()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.Connection.OpenSessionAsync(default);
        Func<Task> malformed = () => session.AskAsync(FrameKind.Call, "malformed", null, false, 0, static (w, _) => w.U8(1));
        await malformed.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Reason.Should().Be("CALL: its head is cut short");
        await using AgentSession next = await agent.Connection.OpenSessionAsync(default);
        (await next.CallAsync(new SystemCall(s_calls.Getpid, "getpid()"))).Result.Should().Be(next.Pid);
    }

    [Fact]
    public async Task GarbageOnTheStreamEndsEverySessionAndAHelloBeginsAnew()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync(hello: false);
        await agent.Stream.WriteAsync(Enumerable.Range(0, 333).Select(i => (byte)(i * 7)).ToArray(), TestContext.Current.CancellationToken);
        byte[] lost = new byte[FrameHeader.Size];
        await agent.Stream.ReadExactlyAsync(lost, TestContext.Current.CancellationToken);
        FrameHeader header = FrameHeader.Read(lost);
        header.Kind.Should().Be(FrameKind.Lost);
        await agent.Stream.ReadExactlyAsync(new byte[header.Length], TestContext.Current.CancellationToken);
        AgentConnection connection = await AgentConnection.OpenAsync(agent.Stream, TestContext.Current.CancellationToken);
        await using AgentSession session = await connection.OpenSessionAsync(default);
        session.Pid.Should().BePositive();
    }

    [Fact]
    public async Task TheTetherTakesItsCommandAlong()
    {
        var start = new ProcessStartInfo("sh", $"-c \"{LocalAgent.Build}/tether sh -c 'echo $$; exec sleep 1000' <&0\"") { RedirectStandardInput = true, RedirectStandardOutput = true };
        using Process shell = Process.Start(start)!;
        int pid = int.Parse((await shell.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken))!);
        Process.GetProcessById(pid).HasExited.Should().BeFalse();
        shell.StandardInput.Close();
        await shell.WaitForExitAsync(TestContext.Current.CancellationToken);
        Directory.Exists($"/proc/{pid}").Should().BeFalse();
    }

    private static async Task<ulong> MapAsync(AgentSession session)
    {
        CallResult map = await session.CallAsync(new SystemCall(s_calls.Mmap, "mmap()").Arg(0).Arg(4096).Arg(3).Arg(0x22).Arg(-1).Arg(0));
        return (ulong)map.Result;
    }
}

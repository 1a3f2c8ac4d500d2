// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net.Sockets;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>Sessions come and go, and nothing one of them does reaches the supervisor or another.</summary>
public sealed class SupervisorTests
{
    private const int Sigkill = 9;
    private const int Sigsegv = 11;

    [Fact]
    public async Task HelloNamesTheKernelAndTheMachine()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentHello hello = agent.Connection.Hello;
        hello.KernelRelease.Should().Be(File.ReadAllText("/proc/sys/kernel/osrelease").Trim());
        hello.Machine.Should().Be(LocalAgent.Calls == SystemCalls.Arm64 ? 183u : 62u);
        hello.PageSize.Should().Be((uint)Environment.SystemPageSize);
        hello.Processors.Should().Be((uint)File.ReadLines("/proc/cpuinfo").Count(l => l.StartsWith("processor", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task SessionIsAProcessOfItsOwn()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        (await session.GetpidAsync()).Result.Should().Be(session.Pid).And.NotBe(agent.Connection.Hello.Pid);
    }

    [Fact]
    public async Task SessionFindsNoDescriptorOfAnotherNorOfTheSupervisor()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession first = await agent.OpenAsync();
        await first.EventFdAsync();
        await using AgentSession second = await agent.OpenAsync();
        (await second.EventFdAsync()).Should().Be(3);
        Descriptors(second.Pid).Where(fd => fd > 3).Should().ContainSingle("its own end of the socket is all it has");
    }

    [Fact]
    public async Task SessionThatCrashesSaysSoAndTheOthersGoOn()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession other = await agent.OpenAsync();
        await using AgentSession session = await agent.OpenAsync();
        Func<Task> crash = () => session.CallAsync(new SystemCall(LocalAgent.Calls.Kill, "kill(self, SIGSEGV)").Arg(session.Pid).Arg(Sigsegv));
        (await crash.Should().ThrowAsync<SessionEndedException>()).Which.Operation.Should().Be("kill(self, SIGSEGV)");
        SessionEnd end = await session.Ended;
        end.Signal.Should().Be(Sigsegv);
        end.ToString().Should().Be("signal 11 (Segmentation fault)");
        session.Journal.ToText().Should().Contain("the session ended: signal 11");
        (await other.GetpidAsync()).Result.Should().Be(other.Pid);
    }

    [Fact]
    public async Task WhatIsAskedOfAnEndedSessionFailsAtOnce()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession session = await agent.OpenAsync();
        await session.DisposeAsync();
        (await session.Ended).Should().Be(new SessionEnd(Sigkill, ""));
        Func<Task> late = () => session.GetpidAsync();
        await late.Should().ThrowAsync<SessionEndedException>();
        await session.DisposeAsync();
    }

    [Fact]
    public async Task ClosingReleasesEverythingBeforeItReturns()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession watcher = await agent.OpenAsync();
        using TemporaryFolder folder = new();
        string path = folder["s"];
        byte[] address = [1, 0, .. System.Text.Encoding.ASCII.GetBytes(path), 0];

        // The owner's end of a connection goes, so the watcher reads the end of the stream.
        int listening = (int)(await watcher.CallAsync(new SystemCall(LocalAgent.Calls.Socket, "socket()").Arg(1).Arg(1).Arg(0))).Result;
        await watcher.CallAsync(new SystemCall(LocalAgent.Calls.Bind, "bind()").Arg(listening).In(address).Arg(address.Length));
        await watcher.CallAsync(new SystemCall(LocalAgent.Calls.Listen, "listen()").Arg(listening).Arg(1));
        AgentSession owner = await agent.OpenAsync();
        int theirs = (int)(await owner.CallAsync(new SystemCall(LocalAgent.Calls.Socket, "socket()").Arg(1).Arg(1).Arg(0))).Result;
        (await owner.CallAsync(new SystemCall(LocalAgent.Calls.Connect, "connect()").Arg(theirs).In(address).Arg(address.Length))).Errno.Should().Be(0);
        int ours = (int)(await watcher.CallAsync(new SystemCall(LocalAgent.Calls.Accept4, "accept()").Arg(listening).Arg(0).Arg(0).Arg(0x800))).Result;
        SystemCall read = new SystemCall(LocalAgent.Calls.Read, "read()").Arg(ours).Out(1).Arg(1);
        (await watcher.CallAsync(read)).Errno.Should().Be((int)Errno.EAGAIN);

        await owner.DisposeAsync();
        (await watcher.CallAsync(read)).Should().Match<CallResult>(r => r.Errno == 0 && r.Result == 0);
        Directory.Exists($"/proc/{owner.Pid}").Should().BeFalse();
    }

    [Fact]
    public async Task SessionThatBlocksIsClosedAllTheSame()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession session = await agent.OpenAsync();
        Task<CallResult> blocked = session.CallAsync(Syscalls.WaitForEver);
        await session.DisposeAsync();
        Func<Task> waiting = () => blocked;
        await waiting.Should().ThrowAsync<SessionEndedException>();
    }

    [Fact]
    public async Task SessionThatDoesNotReadIsEndedAndHoldsUpNobody()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession other = await agent.OpenAsync();
        await using AgentSession session = await agent.OpenAsync();
        ulong memory = await session.MapAsync(16 << 20);
        _ = session.CallAsync(Syscalls.WaitForEver).ContinueWith(static t => _ = t.Exception, TaskScheduler.Default);
        Task[] writes = [.. Enumerable.Range(0, 9).Select(_ => session.WriteAsync(memory, new byte[8 << 20]))];
        (await other.GetpidAsync()).Result.Should().Be(other.Pid);
        Func<Task> all = () => Task.WhenAll(writes);
        await all.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Reason.Should().Be("the session did not read its requests");
    }

    [Fact]
    public async Task ReplyThatNobodyTakesHoldsUpNobodyElse()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync(hello: false);
        // Whoever asks without reading fills what the supervisor keeps; it then reads no more, and goes on once it is read again.
        byte[] hello = Frame(FrameKind.Hello, 0, 1, [1, 0, 0, 0]);
        const int Count = 20_000;
        Task asking = agent.Stream.WriteAsync(Enumerable.Repeat(hello, Count).SelectMany(b => b).ToArray(), TestContext.Current.CancellationToken).AsTask();
        for (int i = 0; i < Count; i++)
        {
            (await ReadFrameAsync(agent.Stream)).Header.Kind.Should().Be((FrameKind)((ushort)FrameKind.Hello | FrameHeader.ReplyBit));
        }

        await asking;
    }

    [Fact]
    public async Task ManySessionsAreOpenAtOnce()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession[] sessions = await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => agent.OpenAsync()));
        CallResult[] pids = await Task.WhenAll(sessions.Select(s => s.GetpidAsync()));
        pids.Select(p => p.Result).Should().OnlyHaveUniqueItems();
        await Task.WhenAll(sessions.Select(s => s.DisposeAsync().AsTask()));
        Children(agent.Connection.Hello.Pid).Should().BeEmpty();
    }

    [Fact]
    public async Task ChildOfACallEndsWithItsSession()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession session = await agent.OpenAsync();
        const uint Sigchld = 17;
        uint clone = LocalAgent.Calls == SystemCalls.Arm64 ? 220u : 56u;
        int child = (int)(await session.CallAsync(new SystemCall(clone, "clone(SIGCHLD)").Arg(Sigchld).Arg(0).Arg(0).Arg(0).Arg(0))).Result;
        child.Should().BePositive();
        (await session.GetpidAsync()).Result.Should().Be(session.Pid);
        await session.DisposeAsync();
        await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{child}"));
    }

    [Fact]
    public async Task SessionThatClosesItsStreamIsEnded()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        await session.GetpidAsync();
        int stream = Descriptors(session.Pid).Single(fd => fd > 2);
        Func<Task> close = () => session.CallAsync(new SystemCall(LocalAgent.Calls.Close, "close(stream)").Arg(stream));
        await close.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Crashed.Should().BeTrue();
    }

    [Fact]
    public async Task HelloEndsTheSessionsOfAnEarlierConversation()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        await agent.Stream.WriteAsync(Frame(FrameKind.Hello, 0, 0, [1, 0, 0, 0]), TestContext.Current.CancellationToken);
        await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{session.Pid}"));
        await using AgentSession next = await agent.OpenAsync();
        (await next.GetpidAsync()).Result.Should().Be(next.Pid);
        // Nothing was said of the first, which its owner is not supposed to have any more.
        session.Ended.IsCompleted.Should().BeFalse();
    }

    [Fact]
    public async Task UnknownRequestsAreRefused()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        Func<Task> ofSession = () => session.AskAsync((FrameKind)0x0999, "0x0999", null, false, 0, static (_, _) => { });
        (await ofSession.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.ENOSYS);
        Func<Task> ofSupervisor = () => agent.Connection.AskAsync(null, (FrameKind)0x0999, false, "0x0999", 0, static (_, _) => { }, static (ref PayloadReader _) => 0, default);
        (await ofSupervisor.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.ENOSYS);
    }

    [Fact]
    public async Task SessionThatIsNotThereIsRefused()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync(hello: false);
        await agent.Stream.WriteAsync(Frame(FrameKind.Read, 77, 5, new byte[12]), TestContext.Current.CancellationToken);
        (FrameHeader header, byte[] payload) = await ReadFrameAsync(agent.Stream);
        header.Should().Be(new FrameHeader(payload.Length, (FrameKind)((ushort)FrameKind.Read | FrameHeader.ReplyBit), 0, 77, 5));
        BitConverter.ToInt32(payload).Should().Be(-(int)Errno.ENOENT);
    }

    [Theory]
    [InlineData("47 41 52 42 41 47 45 00 00 00 00 00 00 00 00 00 00 00 00 00", "a frame does not begin with CFM1")]
    [InlineData("43 46 4d 31 01 00 00 01 10 00 00 00 01 00 00 00 01 00 00 00", "a payload is longer than 16 MiB")]
    [InlineData("43 46 4d 31 00 00 00 00 10 80 00 00 01 00 00 00 01 00 00 00", "a frame is no request")]
    [InlineData("43 46 4d 31 00 00 00 00 01 40 00 00 01 00 00 00 00 00 00 00", "a frame is no request")]
    public async Task LostFramingEndsEverySessionAndAHelloBeginsAnew(string bytes, string reason)
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        byte[] frame = Convert.FromHexString(bytes.Replace(" ", "", StringComparison.Ordinal));
        await agent.Stream.WriteAsync(frame, TestContext.Current.CancellationToken);
        Func<Task> asking = () => session.GetpidAsync();
        (await asking.Should().ThrowAsync<Exception>()).Which.Should().Match<Exception>(e => e is AgentLostException || e is SessionEndedException);
        (await session.Ended).Reason.Should().Contain(reason);
        await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{session.Pid}"));
    }

    [Fact]
    public async Task HelloIsFoundBehindGarbage()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync(hello: false);
        byte[] garbage = [.. Enumerable.Range(0, 333).Select(i => (byte)(i * 7)), .. "CFM1"u8, .. "CFM1 is no header"u8];
        await agent.Stream.WriteAsync(garbage, TestContext.Current.CancellationToken);
        (await ReadFrameAsync(agent.Stream)).Header.Kind.Should().Be(FrameKind.Lost);
        AgentConnection connection = await AgentConnection.OpenAsync(agent.Stream, TestContext.Current.CancellationToken);
        await using AgentSession session = await connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        (await session.GetpidAsync()).Result.Should().Be(session.Pid);
    }

    [Fact]
    public async Task FrameMayArriveByteByByte()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync(hello: false);
        foreach (byte b in Frame(FrameKind.Hello, 0, 9, [1, 0, 0, 0]))
        {
            await agent.Stream.WriteAsync(new[] { b }, TestContext.Current.CancellationToken);
        }

        (await ReadFrameAsync(agent.Stream)).Header.Sequence.Should().Be(9);
    }

    [Fact]
    public async Task AgentEndsItsSessionsAndExitsAtTheEndOfTheStream()
    {
        LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession session = await agent.OpenAsync();
        Task<CallResult> blocked = session.CallAsync(Syscalls.WaitForEver);
        agent.Stream.Socket.Shutdown(SocketShutdown.Send);
        await agent.Process.WaitForExitAsync(TestContext.Current.CancellationToken);
        agent.Process.ExitCode.Should().Be(0);
        Directory.Exists($"/proc/{session.Pid}").Should().BeFalse();
        Func<Task> waiting = () => blocked;
        await waiting.Should().ThrowAsync<IOException>();
        await agent.Connection.Completion.WaitAsync(TestContext.Current.CancellationToken);
        Func<Task> open = () => agent.OpenAsync();
        await open.Should().ThrowAsync<AgentLostException>();
        await agent.DisposeAsync();
    }

    [Fact]
    public async Task SessionsDieWithASupervisorThatIsKilled()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        AgentSession session = await agent.OpenAsync();
        using (Process supervisor = Process.GetProcessById(agent.Connection.Hello.Pid))
        {
            supervisor.Kill();
        }

        await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{session.Pid}"));
        (await session.Ended).Crashed.Should().BeTrue();
        await session.DisposeAsync();
    }

    [Fact]
    public async Task AgentServesItsStandardStreams()
    {
        using Process agent = Process.Start(new ProcessStartInfo(LocalAgent.Path, ["--stdio"]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        await agent.StandardInput.BaseStream.WriteAsync(Frame(FrameKind.Hello, 0, 3, [1, 0, 0, 0]), TestContext.Current.CancellationToken);
        await agent.StandardInput.BaseStream.FlushAsync(TestContext.Current.CancellationToken);
        (FrameHeader header, byte[] payload) = await ReadFrameAsync(agent.StandardOutput.BaseStream);
        header.Sequence.Should().Be(3);
        BitConverter.ToInt32(payload, 20).Should().Be(agent.Id);
        agent.StandardInput.Close();
        await agent.WaitForExitAsync(TestContext.Current.CancellationToken);
        agent.ExitCode.Should().Be(0);
    }

    internal static byte[] Frame(FrameKind kind, uint session, uint sequence, ReadOnlySpan<byte> payload, ushort flags = 0)
    {
        byte[] frame = new byte[FrameHeader.Size + payload.Length];
        new FrameHeader(payload.Length, kind, flags, session, sequence).WriteTo(frame);
        payload.CopyTo(frame.AsSpan(FrameHeader.Size));
        return frame;
    }

    internal static async Task<(FrameHeader Header, byte[] Payload)> ReadFrameAsync(Stream stream)
    {
        byte[] head = new byte[FrameHeader.Size];
        await stream.ReadExactlyAsync(head, TestContext.Current.CancellationToken);
        FrameHeader header = FrameHeader.Read(head);
        byte[] payload = new byte[header.Length];
        await stream.ReadExactlyAsync(payload, TestContext.Current.CancellationToken);
        return (header, payload);
    }

    private static int[] Descriptors(int pid) =>
        [.. Directory.EnumerateFileSystemEntries($"/proc/{pid}/fd").Select(p => int.Parse(Path.GetFileName(p)))];

    private static IEnumerable<int> Children(int pid) =>
        File.ReadAllText($"/proc/{pid}/task/{pid}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse);
}

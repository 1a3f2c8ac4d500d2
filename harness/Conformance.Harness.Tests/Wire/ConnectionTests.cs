// SPDX-License-Identifier: MIT
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>What the connection makes of an agent that is gone, of another version, or talks nonsense.</summary>
public sealed class ConnectionTests
{
    private static readonly byte[] s_hello =
        SupervisorTests.Frame((FrameKind)0x8001, 0, 1, [.. new byte[4], 2, 0, 0, 0, 62, 0, 0, 0, 0, 16, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, (byte)'6', (byte)'.', (byte)'1']);

    private static readonly byte[] s_opened = SupervisorTests.Frame((FrameKind)0x8002, 0, 2, [.. new byte[4], 1, 0, 0, 0, 10, 0, 0, 0]);

    [Fact]
    public async Task StreamThatEndsFailsWhatWasAsked()
    {
        await using ScriptedStream stream = new([s_hello, []], ends: true);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        connection.Hello.Should().Be(new AgentHello(2, 62, 4096, 2, 9, "6.1"));
        Func<Task> open = () => connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        (await open.Should().ThrowAsync<AgentLostException>()).Which.Message.Should().Contain("OPEN");
        await connection.Completion;
        await open.Should().ThrowAsync<AgentLostException>("it stays lost");
    }

    [Fact]
    public async Task SessionsEndWithTheStream()
    {
        await using ScriptedStream stream = new([s_hello, s_opened, []], ends: true);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        await using AgentSession session = await connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        Func<Task> call = () => session.GetpidAsync();
        await call.Should().ThrowAsync<IOException>();
        SessionEnd end = await session.Ended;
        end.Should().Match<SessionEnd>(e => e.Crashed && e.Signal == 0 && e.WaitStatus == -1);
    }

    [Fact]
    public async Task OtherVersionIsRefused()
    {
        byte[] other = [.. s_hello];
        other[FrameHeader.Size + 4] = 1;
        await using ScriptedStream stream = new([other]);
        Func<Task> open = () => AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        (await open.Should().ThrowAsync<AgentLostException>()).Which.Message.Should().Contain("version 1").And.Contain("rebuild the agent");
    }

    [Theory]
    [InlineData("00000000 00000000 0000 0000 00000000 00000000", "lost its framing")]
    [InlineData("43464d31 ffffff7f 0280 0000 00000000 02000000", "lost its framing")]
    [InlineData("43464d31 04000000 0280 0000 00000000 02000000 00000000", "too short")]
    [InlineData("43464d31 03000000 0280 0000 00000000 02000000 000000", "too short")]
    [InlineData("43464d31 08000000 0280 0000 00000000 02000000 f4ffffff ffffffff", "too short")]
    [InlineData("43464d31 07000000 0240 0000 00000000 00000000 03000000 776879", "could not make sense of what it was sent: why")]
    public async Task NonsenseEndsTheConnection(string reply, string message)
    {
        await using ScriptedStream stream = new([s_hello, Convert.FromHexString(reply.Replace(" ", "", StringComparison.Ordinal))]);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        Func<Task> open = () => connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        (await open.Should().ThrowAsync<AgentLostException>()).Which.Message.Should().Contain(message);
        await connection.Completion;
    }

    [Fact]
    public async Task RefusalCarriesTheAgentsWords()
    {
        byte[] refused = SupervisorTests.Frame((FrameKind)0x8002, 0, 2, [0xf4, 0xff, 0xff, 0xff, 3, 0, 0, 0, (byte)'w', (byte)'h', (byte)'y']);
        await using ScriptedStream stream = new([s_hello, refused]);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        Func<Task> open = () => connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        AgentRefusedException e = (await open.Should().ThrowAsync<AgentRefusedException>()).Which;
        e.Error.Should().Be(-(int)Errno.ENOMEM);
        e.Message.Should().Be("OPEN: the agent refused: why (ENOMEM)");
    }

    [Fact]
    public async Task LateReplyAndNoticeOfAnUnknownSessionAreIgnored()
    {
        byte[] exit = SupervisorTests.Frame(FrameKind.VcpuExit, 99, 0, new byte[44]);
        byte[] ended = SupervisorTests.Frame(FrameKind.Ended, 98, 0, new byte[8]);
        byte[] late = SupervisorTests.Frame((FrameKind)0x8010, 5, 77, [1]);
        await using ScriptedStream stream = new([s_hello, [.. exit, .. ended, .. late, .. s_opened]]);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        (await connection.OpenSessionAsync(TestContext.Current.CancellationToken)).Pid.Should().Be(10);
    }

    [Fact]
    public async Task AgentThatDoesNotAnswerIsNotWaitedForLongerThanAllowed()
    {
        await using ScriptedStream stream = new([]);
        using CancellationTokenSource patience = new(TimeSpan.FromMilliseconds(20));
        Func<Task> open = () => AgentConnection.OpenAsync(stream, patience.Token);
        (await open.Should().ThrowAsync<SessionDeadlineException>()).Which.Operation.Should().Be("HELLO");
    }

    [Fact]
    public async Task SessionThatIsNotReleasedIsReported()
    {
        await using ScriptedStream stream = new([s_hello, s_opened]);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        AgentSession session = await connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        session.ClosePatience = TimeSpan.FromMilliseconds(20);
        Func<Task> close = () => session.DisposeAsync().AsTask();
        (await close.Should().ThrowAsync<SessionDeadlineException>()).Which.Operation.Should().Be("closing session 1");
    }
}

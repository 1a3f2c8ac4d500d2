// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>The bytes that protocol.md shows are those the codec writes and understands.</summary>
public sealed partial class ProtocolExampleTests
{
    private const int Pid = 25872;

    private static readonly SystemCall s_clockGettime = new SystemCall(SystemCalls.X86_64.ClockGettime, "clock_gettime(CLOCK_MONOTONIC)").Arg(1).Out(16);

    [Fact]
    public void RequestsAreWrittenAsTheExampleShowsThem()
    {
        List<byte[]> frames = Example();
        frames.Should().HaveCount(6);
        Encode(FrameKind.Open, 0, 2, static _ => { }).Should().Equal(frames[0]);
        Encode(FrameKind.Call, 1, 3, new SystemCall(SystemCalls.X86_64.Getpid, "getpid()").WriteTo).Should().Equal(frames[2]);
        Encode(FrameKind.Call, 1, 4, s_clockGettime.WriteTo).Should().Equal(frames[4]);
    }

    [Fact]
    public async Task RepliesAreUnderstoodAsTheExampleExplainsThem()
    {
        List<byte[]> frames = Example();
        byte[] hello = SupervisorTests.Frame((FrameKind)0x8001, 0, 1, [.. new byte[4], 2, 0, 0, 0, 62, 0, 0, 0, 0, 16, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        await using ScriptedStream stream = new([hello, frames[1], frames[3], frames[5]]);
        await using AgentConnection connection = await AgentConnection.OpenAsync(stream, TestContext.Current.CancellationToken);
        AgentSession session = await connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        session.Should().Match<AgentSession>(s => s.Id == 1 && s.Pid == Pid);
        CallResult getpid = await session.CallAsync(new SystemCall(SystemCalls.X86_64.Getpid, "getpid()"));
        getpid.Should().BeEquivalentTo(new CallResult(Pid, 0, [], TimeSpan.FromMicroseconds(0.3)));
        CallResult time = await session.CallAsync(s_clockGettime);
        time.Buffers.Should().ContainSingle();
        BitConverter.ToInt64(time.Buffers[0]).Should().Be(6959);
        BitConverter.ToInt64(time.Buffers[0], 8).Should().Be(99_337_897);
        stream.Written.Skip(1).Should().BeEquivalentTo([frames[0], frames[2], frames[4]], o => o.WithStrictOrdering());
    }

    [Theory]
    [InlineData(FrameKind.Hello)]
    [InlineData(FrameKind.Ended)]
    [InlineData((FrameKind)0x8030)]
    public void HeaderIsReadAsItWasWritten(FrameKind kind)
    {
        FrameHeader header = new(FrameHeader.MaxPayload, kind, 1, 0x01020304, uint.MaxValue);
        byte[] bytes = new byte[FrameHeader.Size];
        header.WriteTo(bytes);
        FrameHeader.Read(bytes).Should().Be(header);
        header.IsReply.Should().Be((ushort)kind > 0x7fff);
    }

    private static byte[] Encode(FrameKind kind, uint session, uint sequence, Action<FrameWriter> payload)
    {
        FrameWriter writer = new();
        writer.Begin(kind, 0, session, sequence);
        payload(writer);
        writer.End();
        return writer.Written.ToArray();
    }

    private static List<byte[]> Example()
    {
        string file = File.ReadAllText(Path.Combine(LocalAgent.Build, "..", "harness", "Agent", "protocol.md"));
        string block = file[file.IndexOf("```", file.IndexOf("## Worked example", StringComparison.Ordinal), StringComparison.Ordinal)..];
        List<string> frames = [];
        foreach (string line in block.Split('\n'))
        {
            if (line.StartsWith('>') || line.StartsWith('<'))
            {
                frames.Add("");
            }
            else if (frames.Count > 0)
            {
                frames[^1] += Bytes().Match(line).Value.Replace(" ", "", StringComparison.Ordinal);
            }
        }

        return frames.ConvertAll(Convert.FromHexString);
    }

    [GeneratedRegex("^([0-9a-f]{2})+( ([0-9a-f]{2})+)*(?=$|  )")]
    private static partial Regex Bytes();
}

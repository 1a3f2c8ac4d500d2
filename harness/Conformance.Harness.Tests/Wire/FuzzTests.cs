// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>
/// Whatever a request or the stream holds, the supervisor and the other sessions live on. System calls are the one thing that is not left to
/// chance: these run as root, so a mutated request keeps a harmless number.
/// </summary>
public sealed class FuzzTests : IAsyncLifetime
{
    private const uint Nothing = uint.MaxValue;
    private const int Longest = 4096;

    /// <summary>A longer run, for the agent with its checks built in: <c>CONFORMANCE_FUZZ=50</c>.</summary>
    private static readonly int s_times = int.Parse(Environment.GetEnvironmentVariable("CONFORMANCE_FUZZ") ?? "1");
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private static readonly ulong[] s_interesting = [0, 1, 2, 7, 8, 63, 64, 65, 255, 256, 4095, 0x10000, 0xfffff8, 0x1000000, 0x7fffffff, 0x80000000, uint.MaxValue, long.MaxValue, ulong.MaxValue - 7];

    private static readonly FrameKind[] s_kinds =
    [
        FrameKind.Call, FrameKind.Read, FrameKind.Write, FrameKind.Await, FrameKind.VcpuStart, FrameKind.VcpuResume, FrameKind.VcpuKick, FrameKind.VcpuStop,
        FrameKind.VcpuRecords, FrameKind.Program,
    ];

    private LocalAgent _agent = null!;
    private AgentSession _witness = null!;
    private ulong _page;

    public async ValueTask InitializeAsync()
    {
        _agent = await LocalAgent.StartAsync();
        _witness = await _agent.OpenAsync();
        // Sessions are forks of one process: memory one maps first lies where it lies in all of them.
        _page = await _witness.MapAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _witness.DisposeAsync();
        await _agent.DisposeAsync();
    }

    [Fact]
    public void MutatedRequestHarmsNothingButItsSession() =>
        Prop.ForAll(MutatedRequests().ToArbitrary(), request => Wait(SurvivesAsync(request))).Check(Config.QuickThrowOnFailure.WithQuietOnSuccess(true).WithMaxTest(400 * s_times));

    [Fact]
    public void RandomPayloadHarmsNothingButItsSession() =>
        Prop.ForAll(RandomRequests().ToArbitrary(), request => Wait(SurvivesAsync(request))).Check(Config.QuickThrowOnFailure.WithQuietOnSuccess(true).WithMaxTest(200 * s_times));

    [Fact]
    public async Task MutatedStreamLeavesASupervisorThatAnswers()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync(hello: false);
        uint sequence = 0x40000000;
        Prop.ForAll(Streams().ToArbitrary(), bytes => Wait(AnswersAfterAsync(agent, bytes, ++sequence))).Check(Config.QuickThrowOnFailure.WithQuietOnSuccess(true).WithMaxTest(200 * s_times));
        agent.Stream.Socket.Shutdown(System.Net.Sockets.SocketShutdown.Send);
        await agent.Process.WaitForExitAsync(TestContext.Current.CancellationToken);
        agent.Process.ExitCode.Should().Be(0, "every session has ended with the stream");
    }

    private static bool Wait(Task<bool> property) => Task.Run(() => property).GetAwaiter().GetResult();

    private async Task<bool> SurvivesAsync(Request request)
    {
        AgentSession session = await _agent.Connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        using CancellationTokenSource patience = new(s_patience);
        session.Deadline = patience.Token;
        try
        {
            await session.MapAsync();
            await session.AskAsync(request.Kind, "fuzz", null, request.Offload, request.Payload, static (w, payload) => w.Raw(payload));
        }
        catch (AgentRefusedException e)
        {
            e.Error.Should().BeNegative();
        }
        catch (SessionEndedException e)
        {
            // No request makes it exit or abort: it says what is malformed, or what address it was made to touch.
            e.End.Reason.Should().NotStartWith("exited with").And.NotStartWith("signal 6 ");
        }

        await session.DisposeAsync();
        return (await _witness.GetpidAsync()).Result == _witness.Pid;
    }

    /// <summary>Sends the bytes, as many more as complete any frame they may have begun, and HELLO; then everything must work as on the first day.</summary>
    private static async Task<bool> AnswersAfterAsync(LocalAgent agent, byte[] bytes, uint sequence)
    {
        using CancellationTokenSource patience = new(s_patience);
        byte[] filler = new byte[Longest + FrameHeader.Size];
        Array.Fill(filler, (byte)0xff);
        byte[] hello = SupervisorTests.Frame(FrameKind.Hello, 0, sequence, [1, 0, 0, 0]);
        byte[] open = SupervisorTests.Frame(FrameKind.Open, 0, sequence, []);
        await agent.Stream.WriteAsync((byte[])[.. bytes, .. filler, .. hello, .. open], patience.Token);
        await ReplyAsync(agent, FrameKind.Hello, sequence);
        byte[] opened = await ReplyAsync(agent, FrameKind.Open, sequence);
        uint session = BinaryPrimitives.ReadUInt32LittleEndian(opened.AsSpan(4));
        int pid = BinaryPrimitives.ReadInt32LittleEndian(opened.AsSpan(8));
        await agent.Stream.WriteAsync(SupervisorTests.Frame(FrameKind.Call, session, sequence, Encode(Syscalls.Getpid.WriteTo)), patience.Token);
        byte[] called = await ReplyAsync(agent, FrameKind.Call, sequence);
        return BinaryPrimitives.ReadInt64LittleEndian(called.AsSpan(4)) == pid;
    }

    private static async Task<byte[]> ReplyAsync(LocalAgent agent, FrameKind kind, uint sequence)
    {
        while (true)
        {
            (FrameHeader header, byte[] payload) = await SupervisorTests.ReadFrameAsync(agent.Stream).WaitAsync(s_patience);
            if (header.Sequence == sequence && header.Kind == (FrameKind)((ushort)kind | FrameHeader.ReplyBit))
            {
                return payload;
            }
        }
    }

    private Gen<Request> MutatedRequests() =>
        from which in Gen.Choose(0, 9)
        from offload in Gen.Elements(false, true)
        from mutations in Mutations()
        select new Request(s_kinds[which], offload, Harmless(s_kinds[which], Mutate(Valid(s_kinds[which]), mutations)));

    private static Gen<Request> RandomRequests() =>
        from which in Gen.Choose(0, 9)
        from offload in Gen.Elements(false, true)
        from payload in Gen.Choose(0, 255).Select(i => (byte)i).ArrayOf()
        select new Request(s_kinds[which], offload, Harmless(s_kinds[which], payload));

    private Gen<byte[]> Streams() => StreamPiece().ArrayOf().Select(pieces => pieces.SelectMany(p => p).ToArray());

    // Frames as they should be, to the supervisor and to sessions there may be, some with a header that is not; and bytes that are no frames.
    private Gen<byte[]> StreamPiece() =>
        from what in Gen.Choose(0, 9)
        from session in Gen.Choose(0, 12)
        from kind in Gen.Elements(FrameKind.Hello, FrameKind.Open, FrameKind.Open, FrameKind.Close, FrameKind.Read, FrameKind.Write, FrameKind.Call, FrameKind.VcpuKick)
        from field in Gen.Choose(0, 5)
        from number in Gen.Choose(0, Longest)
        from garbage in Gen.Choose(0, 255).Select(i => (byte)i).ArrayOf()
        select Piece(what, (uint)session, kind, field, number, garbage);

    private byte[] Piece(int what, uint session, FrameKind kind, int field, int number, byte[] garbage)
    {
        byte[] payload = kind switch
        {
            FrameKind.Hello => [1, 0, 0, 0],
            FrameKind.Open => [],
            FrameKind.Close => BitConverter.GetBytes(session),
            _ => Valid(kind),
        };
        bool supervisor = kind is FrameKind.Hello or FrameKind.Open or FrameKind.Close;
        byte[] frame = SupervisorTests.Frame(kind, supervisor ? 0 : session, (uint)number, payload);
        if (what == 0)
        {
            return garbage;
        }

        if (what > 3)
        {
            return frame;
        }

        // A frame whose session, flags or kind is another still has a payload whose first four bytes are no system call but for CALL's own.
        switch (field)
        {
            case 0:
                frame[number % 4] ^= (byte)(1 + number);
                break;
            case 1:
                BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(4), number);
                break;
            case 2:
                BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(4), FrameHeader.MaxPayload + 1 + number);
                break;
            case 3 when kind != FrameKind.Call:
                BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(8), (ushort)(0x3000 + number));
                break;
            case 4:
                frame[10] = (byte)number;
                break;
            default:
                return frame[..(number % frame.Length)];
        }

        return frame;
    }

    private byte[] Valid(FrameKind kind) => kind switch
    {
        FrameKind.Call => Encode(w =>
        {
            SystemCall call = new SystemCall(LocalAgent.Calls.Getpid, "").Arg(1).InOut([1, 2, 3, 4, 5, 6, 7, 8], 64).In([1, 2, 3]);
            call.Pointer(0, 8, call.Attach([5, 6], 32, returned: true), 4).Pointer(0, 56, 1).WriteTo(w);
        }),
        FrameKind.Read => Encode(w => w.U64(_page).U32(64)),
        FrameKind.Write => Encode(w => w.U64(_page + 8).Bytes([1, 2, 3, 4, 5])),
        FrameKind.Await => Encode(w => w.U64(_page).U32(8).U32(1).U64(0xff).U64(0).U64(1000)),
        FrameKind.VcpuStart => Encode(w => new VcpuStart
        {
            Fd = -1,
            Request = 0xAE80,
            Run = _page,
            KickOffset = 1,
            Ranges = [new VcpuRange(VcpuBase.Run, 0, 64), new VcpuRange(VcpuBase.Absolute, _page, 8)],
            Marks = [new VcpuMark(1, VcpuMarkAction.Record, [new VcpuCondition(8, 4, 0xff, 2), new VcpuCondition(32, 2, 0xff, 3)]), new VcpuMark(2, VcpuMarkAction.Notify, [])],
        }.WriteTo(w)),
        FrameKind.VcpuResume => Encode(w => w.U32(0).U32(2).U32(0).U32(0).U64(16).Bytes([1, 2]).U32(1).U32(0).U64(_page).Bytes([3])),
        FrameKind.Program => Encode(w =>
        {
            AgentProgram program = new("") { Deadline = TimeSpan.FromMilliseconds(5) };
            program.Thread().Store(_page, 8, 1).Add(_page, 4, 2).Await(_page, 8, MemoryCondition.AtLeast, 1).Loop(0, 3).Barrier().Copy(_page, _page + 8, 16);
            program.Thread(0).Call(LocalAgent.Calls.Getpid, [], resultAt: _page + 64).Barrier().Stop();
            program.WriteTo(w);
        }),
        _ => Encode(w => w.U32(0)),
    };

    private static byte[] Encode(Action<FrameWriter> payload)
    {
        FrameWriter writer = new();
        payload(writer);
        return writer.Written.ToArray();
    }

    private static Gen<Mutation[]> Mutations() =>
        (from what in Gen.Choose(0, 5)
         from at in Gen.Choose(0, int.MaxValue)
         from value in Gen.OneOf(Gen.Elements(s_interesting), Gen.Choose(0, int.MaxValue).Select(i => (ulong)i))
         select new Mutation(what, at, value)).NonEmptyListOf().Select(l => l.Take(4).ToArray());

    private static byte[] Mutate(byte[] payload, Mutation[] mutations)
    {
        foreach (Mutation mutation in mutations)
        {
            int at = payload.Length == 0 ? 0 : mutation.At % payload.Length;
            byte[] eight = BitConverter.GetBytes(mutation.Value);
            // Fields are aligned to four bytes nearly everywhere.
            int field = at & ~3;
            switch (mutation.What)
            {
                case 0 when payload.Length > 0:
                    payload[at] = (byte)mutation.Value;
                    break;
                case 1 when payload.Length >= field + 4:
                    eight.AsSpan(0, 4).CopyTo(payload.AsSpan(field));
                    break;
                case 2 when payload.Length >= field + 8:
                    eight.CopyTo(payload.AsSpan(field));
                    break;
                case 3:
                    payload = payload[..at];
                    break;
                case 4:
                    payload = [.. payload, .. eight[..((int)(mutation.Value % 8) + 1)]];
                    break;
                default:
                    payload = [.. payload[..at], .. payload[(at / 2)..]];
                    break;
            }
        }

        return payload;
    }

    /// <summary>Takes what could harm the machine, or take long, out of a payload, wherever a decoder would find it.</summary>
    private static byte[] Harmless(FrameKind kind, byte[] payload)
    {
        switch (kind)
        {
            case FrameKind.Call:
                Put(payload, 0, LocalAgent.Calls.Getpid);
                break;
            case FrameKind.Await:
                Put(payload, 32, 1_000_000);
                Put(payload, 36, 0);
                break;
            case FrameKind.VcpuStart:
                Put(payload, 0, Nothing);
                Put(payload, 4, KvmIoctl.KVM_RUN.Number);
                break;
            case FrameKind.Program:
                Put(payload, 0, 5_000_000);
                Put(payload, 4, 0);
                for (int thread = 12; thread + 8 <= payload.Length;)
                {
                    uint steps = BinaryPrimitives.ReadUInt32LittleEndian(payload.AsSpan(thread));
                    thread += 8;
                    for (; steps > 0 && thread + 64 <= payload.Length; steps--, thread += 64)
                    {
                        switch ((ProgramOperation)payload[thread])
                        {
                            case ProgramOperation.Call:
                                Put(payload, thread + 4, LocalAgent.Calls.Getpid);
                                break;
                            case ProgramOperation.Copy:
                                Put(payload, thread + 24, payload[thread + 24]);
                                Put(payload, thread + 28, 0);
                                break;
                        }
                    }

                    if (steps > 0)
                    {
                        break;
                    }
                }

                break;
        }

        return payload;
    }

    private static void Put(byte[] payload, int at, uint value)
    {
        if (payload.Length >= at + sizeof(uint))
        {
            BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(at), value);
        }
    }

    private readonly record struct Mutation(int What, int At, ulong Value);

    private sealed record Request(FrameKind Kind, bool Offload, byte[] Payload)
    {
        public override string ToString() => $"{Kind}{(Offload ? " offloaded" : "")} {Convert.ToHexStringLower(Payload)}";
    }
}

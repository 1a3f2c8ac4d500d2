// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;

namespace Conformance.Wire;

/// <summary>One process of the kernel under test that does what it is asked: system calls, memory, vCPU threads, programs.</summary>
/// <remarks>
/// Operations may overlap; without offload they are carried out in the order they were asked for. Each of them throws
/// <see cref="SessionEndedException"/> when the process ends first, <see cref="AgentLostException"/> when the stream does,
/// <see cref="SessionDeadlineException"/> when <see cref="Deadline"/> passes and <see cref="AgentRefusedException"/> when the agent refuses.
/// </remarks>
public sealed class AgentSession : IAsyncDisposable
{
    /// <summary>Writes longer than this are made in pieces, in bytes.</summary>
    private const int Piece = 8 << 20;

    /// <summary>What is written is kept for the journal up to this size, in bytes.</summary>
    private const int KeptWrite = 64 << 10;

    private readonly ConcurrentDictionary<uint, AgentVcpu> _vcpus = new();
    private readonly TaskCompletionSource<SessionEnd> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _closing = new();
    private Task? _closed;
    private int _kept;

    internal AgentSession(AgentConnection connection, uint id, int pid)
    {
        Connection = connection;
        Id = id;
        Pid = pid;
    }

    /// <summary>The stream it is asked over.</summary>
    public AgentConnection Connection { get; }

    /// <summary>Its number in the protocol.</summary>
    public uint Id { get; }

    /// <summary>In the kernel under test.</summary>
    public int Pid { get; }

    /// <summary>Every operation and what came of it.</summary>
    public Journal Journal { get; } = new();

    /// <summary>Bounds every operation but closing; when it passes they throw <see cref="SessionDeadlineException"/>.</summary>
    public CancellationToken Deadline { get; set; }

    /// <summary>How long the kernel may take to release what the session owned.</summary>
    public TimeSpan ClosePatience { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Completes when the process is gone, by itself or closed; never fails.</summary>
    public Task<SessionEnd> Ended => _ended.Task;

    /// <summary>Set by the connection, under its lock.</summary>
    internal SessionEnd? End { get; set; }

    /// <summary>Makes one system call. A failure is an answer, not an exception.</summary>
    /// <param name="call">Number, arguments, buffers.</param>
    /// <param name="offload">On a thread of its own: for calls that block.</param>
    public Task<CallResult> CallAsync(SystemCall call, bool offload = false) =>
        AskAsync(FrameKind.Call, call.Description, call, call.Size, offload, call, static (w, c) => c.WriteTo(w), CallResult.Parse, static r => r.ToString());

    /// <summary>A place for a result that further calls are made with at once. Calls without offload are made in the order they were asked for.</summary>
    public KeptResult Keep() => new((int)((uint)Interlocked.Increment(ref _kept) % KeptResult.Places));

    /// <summary>Reads memory of the session.</summary>
    /// <param name="address">Where it begins.</param>
    /// <param name="length">In bytes. Up to 16 MiB are one access; 1, 2, 4 or 8 aligned bytes are one load.</param>
    /// <exception cref="AgentRefusedException">It is not mapped, with <see cref="AgentRefusedException.Error"/> -EFAULT.</exception>
    public async Task<byte[]> ReadAsync(ulong address, int length)
    {
        if (length <= Piece)
        {
            return await ReadPieceAsync(new MemoryRead(address, length)).ConfigureAwait(false);
        }

        byte[] all = new byte[length];
        for (int at = 0; at < length; at += Piece)
        {
            byte[] piece = await ReadPieceAsync(new MemoryRead(address + (ulong)at, Math.Min(Piece, length - at))).ConfigureAwait(false);
            piece.CopyTo(all, at);
        }

        return all;
    }

    /// <summary>Writes memory of the session.</summary>
    /// <param name="address">Where it begins.</param>
    /// <param name="data">1, 2, 4 or 8 bytes at an aligned address are one store.</param>
    /// <exception cref="AgentRefusedException">It is not mapped, with <see cref="AgentRefusedException.Error"/> -EFAULT.</exception>
    public async Task WriteAsync(ulong address, ReadOnlyMemory<byte> data)
    {
        do
        {
            ReadOnlyMemory<byte> piece = data[..Math.Min(Piece, data.Length)];
            bool kept = piece.Length <= KeptWrite;
            await AskAsync(
                FrameKind.Write,
                $"write 0x{address:x}+{piece.Length}",
                kept ? new MemoryWrite(address, piece.ToArray()) : null,
                piece.Length,
                false,
                (Address: address, Data: piece),
                static (w, request) => w.U64(request.Address).Bytes(request.Data.Span),
                ParseNothing,
                static _ => "0").ConfigureAwait(false);
            data = data[piece.Length..];
            address += (ulong)piece.Length;
        }
        while (!data.IsEmpty);
    }

    /// <summary>Waits in the kernel under test until memory meets a condition.</summary>
    /// <param name="address">Of the value.</param>
    /// <param name="width">Of the value, in bytes: 1, 2, 4 or 8.</param>
    /// <param name="condition">Applied after masking, unsigned.</param>
    /// <param name="value">What it is compared with.</param>
    /// <param name="patience">How long it may take.</param>
    /// <param name="mask">Applied to what is read.</param>
    /// <returns>Whether it did within the time, and the last value seen.</returns>
    public Task<(bool Met, ulong Value)> AwaitAsync(ulong address, int width, MemoryCondition condition, ulong value, TimeSpan patience, ulong mask = ulong.MaxValue) =>
        AskAsync(
            FrameKind.Await,
            $"await 0x{address:x} {condition} 0x{value:x}",
            null,
            0,
            true,
            (address, width, condition, value, patience, mask),
            static (w, r) => w.U64(r.address).U32((uint)r.width).U32((uint)r.condition).U64(r.mask).U64(r.value).Nanoseconds(r.patience),
            static (ref PayloadReader reply) => (Met: reply.U32() != 0, Value: reply.U64()),
            static r => r.Met ? $"met, 0x{r.Value:x}" : $"not met, 0x{r.Value:x}");

    /// <summary>Starts a thread that loops on a vCPU's KVM_RUN.</summary>
    public Task<AgentVcpu> StartVcpuAsync(VcpuStart start) =>
        AskAsync(
            FrameKind.VcpuStart,
            $"start vCPU thread on fd {start.Fd}",
            start,
            0,
            false,
            start,
            static (w, s) => s.WriteTo(w),
            ParseStarted,
            static vcpu => $"vCPU thread {vcpu.Id}, tid {vcpu.ThreadId}");

    /// <summary>Runs a program at native speed and returns what it counted.</summary>
    public Task<ProgramOutcome> RunProgramAsync(AgentProgram program) =>
        AskAsync(FrameKind.Program, program.Description, program, program.Size, true, program, static (w, p) => p.WriteTo(w), ProgramOutcome.Parse, static o => o.ToString());

    /// <summary>Kills the process and returns when the kernel has released what it owned. Its deadline does not matter to that.</summary>
    /// <exception cref="SessionDeadlineException">The kernel did not release it within <see cref="ClosePatience"/>.</exception>
    public ValueTask DisposeAsync()
    {
        lock (_closing)
        {
            _closed ??= CloseAsync();
        }

        return new ValueTask(_closed);
    }

    internal Task<T> AskAsync<TState, T>(
        FrameKind kind,
        string operation,
        object? request,
        long size,
        bool offload,
        TState state,
        Action<FrameWriter, TState> write,
        ReplyParser<T> parse,
        Func<T, string> describe)
    {
        JournalEntry entry = Journal.Begin(operation, request, size);
        return AskAsync(entry, Connection.AskAsync(this, kind, offload, operation, state, write, parse, Deadline), describe);
    }

    /// <summary>A request whose reply means nothing but that it was done.</summary>
    internal Task AskAsync<TState>(FrameKind kind, string operation, object? request, bool offload, TState state, Action<FrameWriter, TState> write) =>
        AskAsync(kind, operation, request, 0, offload, state, write, ParseNothing, static _ => "0");

    internal void OnVcpuExit(ref PayloadReader notice)
    {
        AgentVcpu vcpu = Vcpu(notice.U32());
        vcpu.Push(new VcpuExit((VcpuCause)notice.U32(), notice.I32(), notice.U32(), notice.U64(), notice.U64(), notice.Bytes()));
    }

    internal void OnEnd(SessionEnd end)
    {
        if (end.Crashed)
        {
            Journal.Note($"the session ended: {end}");
        }

        _ended.TrySetResult(end);
        foreach (AgentVcpu vcpu in _vcpus.Values)
        {
            vcpu.Complete(end.Crashed ? new SessionEndedException(Id, end, $"running vCPU thread {vcpu.Id}") : null);
        }
    }

    private static async Task<T> AskAsync<T>(JournalEntry entry, Task<T> asked, Func<T, string> describe)
    {
        try
        {
            T answer = await asked.ConfigureAwait(false);
            entry.Finish(describe(answer), answer);
            return answer;
        }
        catch (Exception e)
        {
            entry.Finish(e is SessionDeadlineException deadline ? $"no answer within {deadline.Waited.TotalSeconds:0.0} s" : e.Message, null);
            throw;
        }
    }

    private static bool ParseNothing(ref PayloadReader reply) => true;

    private Task<byte[]> ReadPieceAsync(MemoryRead read) =>
        AskAsync(
            FrameKind.Read,
            $"read 0x{read.Address:x}+{read.Length}",
            read,
            read.Length,
            false,
            read,
            static (w, r) => w.U64(r.Address).U32((uint)r.Length),
            static (ref PayloadReader reply) => reply.Bytes(),
            static data => $"{data.Length} bytes");

    // An exit may have overtaken the reply that names its thread.
    private AgentVcpu Vcpu(uint id) => _vcpus.GetOrAdd(id, static (i, session) => new AgentVcpu(session, i), this);

    private AgentVcpu ParseStarted(ref PayloadReader reply)
    {
        AgentVcpu vcpu = Vcpu(reply.U32());
        vcpu.ThreadId = reply.I32();
        return vcpu;
    }

    private async Task CloseAsync()
    {
        if (Ended.IsCompleted)
        {
            return;
        }

        using var patience = new CancellationTokenSource(ClosePatience);
        try
        {
            int status = await Connection.AskAsync(
                null,
                FrameKind.Close,
                false,
                $"closing session {Id}",
                Id,
                static (w, id) => w.U32(id),
                static (ref PayloadReader reply) => reply.I32(),
                patience.Token).ConfigureAwait(false);
            Connection.End(this, new SessionEnd(status, ""));
        }
        catch (AgentRefusedException e)
        {
            // The agent knows of no such session any more: it ended at the same moment, or another connection's HELLO ended it.
            Connection.End(this, new SessionEnd(-1, e.Message));
        }
        catch (AgentLostException) when (Ended.IsCompleted)
        {
            // It ended together with everything else.
        }
    }
}

/// <summary>How AWAIT and program steps compare (unsigned, after masking).</summary>
public enum MemoryCondition : uint
{
    Equal = 0,
    NotEqual = 1,
    AtLeast = 2,
    Less = 3,
}

/// <summary>A read of a session's memory, as its journal keeps it.</summary>
public sealed record MemoryRead(ulong Address, int Length);

/// <summary>A write to a session's memory, as its journal keeps it.</summary>
public sealed record MemoryWrite(ulong Address, ReadOnlyMemory<byte> Data);

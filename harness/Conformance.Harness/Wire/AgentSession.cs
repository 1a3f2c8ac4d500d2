// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;

namespace Conformance.Wire;

/// <summary>One process of the kernel under test that does what it is asked: system calls, memory, vCPU threads, programs.</summary>
public sealed class AgentSession : IAsyncDisposable
{
    private readonly ConcurrentDictionary<uint, AgentVcpu> _vcpus = new();
    private readonly TaskCompletionSource<SessionEnd> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _disposed;

    internal AgentSession(AgentConnection connection, uint id, int pid)
    {
        Connection = connection;
        Id = id;
        Pid = pid;
    }

    public AgentConnection Connection { get; }

    public uint Id { get; }

    /// <summary>In the kernel under test.</summary>
    public int Pid { get; }

    public Journal Journal { get; } = new();

    /// <summary>Bounds every operation; when it passes they throw <see cref="SessionDeadlineException"/>.</summary>
    public CancellationToken Deadline { get; set; }

    /// <summary>Completes when the process is gone, by itself or closed; never fails.</summary>
    public Task<SessionEnd> Ended => _ended.Task;

    /// <summary>Makes one system call. A failure is an answer, not an exception.</summary>
    /// <param name="offload">On a thread of its own: for calls that block.</param>
    public async Task<CallResult> CallAsync(SystemCall call, bool offload = false)
    {
        byte[] reply = await AskAsync(FrameKind.Call, call.Encode(), call.Description, offload);
        CallResult result = ParseCall(reply, call);
        Journal.Add(call.Description, result.Errno == 0 ? result.Result.ToString() : $"-1 {(Uapi.Errno)result.Errno}");
        return result;
    }

    public async Task<byte[]> ReadAsync(ulong address, int length)
    {
        string what = $"read 0x{address:x}+{length}";
        byte[] reply = await AskAsync(FrameKind.Read, new PayloadWriter().U64(address).U32((uint)length).Written, what);
        byte[] data = ParseBytes(reply, what);
        Journal.Add(what, $"{data.Length} bytes");
        return data;
    }

    public async Task WriteAsync(ulong address, ReadOnlyMemory<byte> data)
    {
        string what = $"write 0x{address:x}+{data.Length}";
        byte[] reply = await AskAsync(FrameKind.Write, new PayloadWriter().U64(address).Bytes(data.Span).Written, what);
        CheckStatus(reply, what);
        Journal.Add(what, "0");
    }

    /// <summary>Waits in the kernel under test until memory meets a condition.</summary>
    /// <returns>Whether it did within the time, and the last value seen.</returns>
    public async Task<(bool Met, ulong Value)> AwaitAsync(ulong address, int width, MemoryCondition condition, ulong value, TimeSpan patience, ulong mask = ulong.MaxValue)
    {
        string what = $"await 0x{address:x} {condition} 0x{value:x}";
        byte[] reply = await AskAsync(FrameKind.Await, new PayloadWriter().U64(address).U32((uint)width).U32((uint)condition).U64(mask).U64(value)
            .U64((ulong)(patience.TotalMilliseconds * 1e6)).Written, what, offload: true);
        (bool met, ulong last) = ParseAwait(reply, what);
        Journal.Add(what, met ? $"met, 0x{last:x}" : $"not met, 0x{last:x}");
        return (met, last);
    }

    /// <summary>Starts a thread that loops on a vCPU's KVM_RUN.</summary>
    public async Task<AgentVcpu> StartVcpuAsync(VcpuStart start)
    {
        byte[] reply = await AskAsync(FrameKind.VcpuStart, start.Encode(), $"start vCPU fd {start.Fd}");
        AgentVcpu vcpu = ParseStarted(reply, start);
        Journal.Add($"start vCPU thread, fd {start.Fd}", $"thread {vcpu.ThreadId}");
        return vcpu;
    }

    /// <summary>Runs a program at native speed and returns what it counted.</summary>
    public async Task<ProgramOutcome> RunProgramAsync(AgentProgram program)
    {
        byte[] reply = await AskAsync(FrameKind.Program, program.Encode(), program.Description, offload: true);
        ProgramOutcome outcome = ProgramOutcome.Parse(reply, program);
        Journal.Add(program.Description, outcome.ToString());
        return outcome;
    }

    /// <summary>Kills the process and returns when the kernel has released what it owned.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
        {
            await Ended;
            return;
        }

        if (!Ended.IsCompleted)
        {
            byte[] reply = await Connection.RequestAsync(0, FrameKind.Close, new PayloadWriter().U32(Id).Written, false, $"closing session {Id}", Deadline);
            Finish(new SessionEnd(ParseClosed(reply), ""));
        }

        Connection.Forget(this);
    }

    internal Task<byte[]> AskAsync(FrameKind kind, ReadOnlyMemory<byte> payload, string operation, bool offload = false) => Ended.IsCompletedSuccessfully
        ? throw new SessionEndedException(Id, Ended.Result, operation)
        : Connection.RequestAsync(Id, kind, payload, offload, operation, Deadline);

    internal static void CheckStatus(byte[] reply, string operation)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, operation);
    }

    internal void OnVcpuExit(byte[] payload)
    {
        var r = new PayloadReader(payload);
        uint id = r.U32();
        AgentVcpu vcpu = _vcpus.GetOrAdd(id, static (i, session) => new AgentVcpu(session, i), this);
        vcpu.Push(new VcpuExit((VcpuCause)r.U32(), r.I32(), r.U32(), r.U64(), r.U64(), r.Bytes()));
    }

    internal void OnEnded(byte[] payload)
    {
        var r = new PayloadReader(payload);
        var end = new SessionEnd(r.I32(), r.Text());
        Finish(end with { Reason = end.Reason.Length > 0 ? end.Reason : "ended by itself" });
    }

    internal void OnLost(Exception lost)
    {
        Finish(new SessionEnd(-1, lost.Message));
        foreach (AgentVcpu vcpu in _vcpus.Values)
        {
            vcpu.Complete(new AgentLostException(lost.Message, lost));
        }
    }

    private void Finish(SessionEnd end)
    {
        _ended.TrySetResult(end);
        Connection.FailPending(Id, () => new SessionEndedException(Id, end, "an operation"));
        foreach (AgentVcpu vcpu in _vcpus.Values)
        {
            vcpu.Complete(end.Crashed ? new SessionEndedException(Id, end, "running a vCPU") : null);
        }
    }

    private static CallResult ParseCall(byte[] reply, SystemCall call)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, call.Description);
        long result = r.I64();
        int errno = r.I32();
        uint count = r.U32();
        ulong nanoseconds = r.U64();
        byte[][] buffers = new byte[count][];
        for (int i = 0; i < count; i++)
        {
            buffers[i] = r.Bytes();
        }

        return new CallResult(result, errno, buffers, TimeSpan.FromTicks((long)(nanoseconds / 100)));
    }

    private static byte[] ParseBytes(byte[] reply, string what)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, what);
        return r.Bytes();
    }

    private static (bool Met, ulong Value) ParseAwait(byte[] reply, string what)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, what);
        return (r.U32() != 0, r.U64());
    }

    private static int ParseClosed(byte[] reply)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, "CLOSE");
        return r.I32();
    }

    private AgentVcpu ParseStarted(byte[] reply, VcpuStart start)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, $"starting vCPU fd {start.Fd}");
        uint id = r.U32();
        // The first exit may have overtaken this reply.
        AgentVcpu vcpu = _vcpus.GetOrAdd(id, static (i, session) => new AgentVcpu(session, i), this);
        vcpu.ThreadId = r.I32();
        return vcpu;
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

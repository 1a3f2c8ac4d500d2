// SPDX-License-Identifier: MIT
using System.Buffers;
using System.Collections.Concurrent;

namespace Conformance.Wire;

/// <summary>What the agent says of itself and of the kernel it runs on.</summary>
/// <param name="Machine">ELF machine: 62 x86_64, 183 aarch64.</param>
/// <param name="KernelRelease">uname -r.</param>
public sealed record AgentHello(uint Version, uint Machine, uint PageSize, uint Processors, int Pid, string KernelRelease);

/// <summary>The stream to one agent. Sessions share it; requests may overlap.</summary>
public sealed class AgentConnection : IAsyncDisposable
{
    /// <summary>Version of protocol.md this speaks.</summary>
    public const uint ProtocolVersion = 1;

    private readonly Stream _stream;
    private readonly SemaphoreSlim _writing = new(1);
    private readonly ConcurrentDictionary<(uint Session, uint Sequence), TaskCompletionSource<byte[]>> _pending = new();
    private readonly ConcurrentDictionary<uint, AgentSession> _sessions = new();
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Exception? _lost;
    private uint _sequence;

    private AgentConnection(Stream stream) => _stream = stream;

    public AgentHello Hello { get; private set; } = null!;

    /// <summary>Ends when the stream does; never fails.</summary>
    public Task Completion => _completion.Task;

    /// <summary>Says HELLO and waits for the answer: the agent is ready when this returns.</summary>
    /// <exception cref="AgentLostException">The stream ended, or the agent speaks another version.</exception>
    public static async Task<AgentConnection> OpenAsync(Stream stream, CancellationToken cancellation)
    {
        var connection = new AgentConnection(stream);
        _ = Task.Run(connection.ReadLoopAsync, CancellationToken.None);
        byte[] reply = await connection.RequestAsync(0, FrameKind.Hello, new PayloadWriter().U32(ProtocolVersion).Written, false, "HELLO", cancellation);
        connection.Hello = ParseHello(reply);
        return connection.Hello.Version == ProtocolVersion
            ? connection
            : throw new AgentLostException($"The agent speaks version {connection.Hello.Version} of the protocol, this harness {ProtocolVersion}: rebuild the agent.");
    }

    /// <summary>Forks a session. The caller disposes it, which returns once the kernel has released all it owned.</summary>
    public async Task<AgentSession> OpenSessionAsync(CancellationToken cancellation)
    {
        byte[] reply = await RequestAsync(0, FrameKind.Open, default, false, "OPEN", cancellation);
        return Attach(reply);
    }

    public async ValueTask DisposeAsync()
    {
        await _stream.DisposeAsync();
        await Completion;
    }

    internal async Task<byte[]> RequestAsync(uint session, FrameKind kind, ReadOnlyMemory<byte> payload, bool offload, string operation, CancellationToken cancellation)
    {
        uint sequence = Interlocked.Increment(ref _sequence);
        var reply = new TaskCompletionSource<byte[]>(TaskCreationOptions.RunContinuationsAsynchronously);
        _pending[(session, sequence)] = reply;
        if (_lost is Exception lost)
        {
            _pending.TryRemove((session, sequence), out _);
            throw new AgentLostException(lost.Message, lost);
        }

        long began = Environment.TickCount64;
        try
        {
            await SendAsync(new FrameHeader(payload.Length, kind, offload ? FrameHeader.Offload : (ushort)0, session, sequence), payload, cancellation);
            return cancellation.CanBeCanceled ? await reply.Task.WaitAsync(cancellation) : await reply.Task;
        }
        catch (OperationCanceledException)
        {
            throw new SessionDeadlineException(operation, TimeSpan.FromMilliseconds(Environment.TickCount64 - began));
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException && e is not (AgentLostException or SessionEndedException))
        {
            throw new AgentLostException($"The stream to the agent broke during {operation}: {e.Message}", e);
        }
        finally
        {
            _pending.TryRemove((session, sequence), out _);
        }
    }

    /// <summary>Fails what was asked of a session that is no more.</summary>
    internal void FailPending(uint session, Func<Exception> failure)
    {
        foreach (((uint Session, uint Sequence) key, TaskCompletionSource<byte[]> reply) in _pending)
        {
            if (key.Session == session)
            {
                reply.TrySetException(failure());
            }
        }
    }

    internal void Forget(AgentSession session) => _sessions.TryRemove(session.Id, out _);

    private static AgentHello ParseHello(byte[] reply)
    {
        var r = new PayloadReader(reply);
        Check(ref r, "HELLO");
        return new AgentHello(r.U32(), r.U32(), r.U32(), r.U32(), r.I32(), r.Text());
    }

    private AgentSession Attach(byte[] reply)
    {
        var r = new PayloadReader(reply);
        Check(ref r, "OPEN");
        var session = new AgentSession(this, r.U32(), r.I32());
        _sessions[session.Id] = session;
        return session;
    }

    internal static void Check(ref PayloadReader reader, string operation)
    {
        int status = reader.I32();
        if (status != 0)
        {
            throw new AgentRefusedException(operation, status, reader.Text());
        }
    }

    private async Task SendAsync(FrameHeader header, ReadOnlyMemory<byte> payload, CancellationToken cancellation)
    {
        int size = FrameHeader.Size + payload.Length;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(size);
        header.WriteTo(buffer);
        payload.CopyTo(buffer.AsMemory(FrameHeader.Size));
        await _writing.WaitAsync(cancellation);
        try
        {
            // A frame that was begun is finished: half of one would cost every session its framing.
            await _stream.WriteAsync(buffer.AsMemory(0, size), CancellationToken.None);
        }
        finally
        {
            _writing.Release();
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async Task ReadLoopAsync()
    {
        byte[] head = new byte[FrameHeader.Size];
        try
        {
            while (true)
            {
                await _stream.ReadExactlyAsync(head);
                FrameHeader header = FrameHeader.Read(head);
                byte[] payload = header.Length == 0 ? [] : new byte[header.Length];
                await _stream.ReadExactlyAsync(payload);
                Dispatch(header, payload);
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException)
        {
            _lost = e is EndOfStreamException ? new AgentLostException("The agent's stream ended.", e) : e;
            foreach (TaskCompletionSource<byte[]> reply in _pending.Values)
            {
                reply.TrySetException(new AgentLostException(_lost.Message, e));
            }

            foreach (AgentSession session in _sessions.Values)
            {
                session.OnLost(_lost);
            }

            _completion.TrySetResult();
        }
    }

    private void Dispatch(FrameHeader header, byte[] payload)
    {
        if (header.IsReply)
        {
            if (_pending.TryRemove((header.Session, header.Sequence), out TaskCompletionSource<byte[]>? reply))
            {
                reply.TrySetResult(payload);
            }

            return;
        }

        switch (header.Kind)
        {
            case FrameKind.VcpuExit when _sessions.TryGetValue(header.Session, out AgentSession? session):
                session.OnVcpuExit(payload);
                break;
            case FrameKind.Ended when _sessions.TryGetValue(header.Session, out AgentSession? session):
                session.OnEnded(payload);
                break;
            case FrameKind.Lost:
                throw new AgentLostException("The agent lost the framing of what it was sent.");
        }
    }
}

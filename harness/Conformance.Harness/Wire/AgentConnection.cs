// SPDX-License-Identifier: MIT

namespace Conformance.Wire;

/// <summary>What the agent says of itself and of the kernel it runs on.</summary>
/// <param name="Version">Of the protocol.</param>
/// <param name="Machine">ELF machine: 62 x86_64, 183 aarch64.</param>
/// <param name="PageSize">In bytes.</param>
/// <param name="Processors">That are online.</param>
/// <param name="Pid">Of the supervisor.</param>
/// <param name="KernelRelease">uname -r.</param>
public sealed record AgentHello(uint Version, uint Machine, uint PageSize, uint Processors, int Pid, string KernelRelease);

/// <summary>The stream to one agent. Sessions share it; requests may overlap.</summary>
public sealed class AgentConnection : IAsyncDisposable
{
    /// <summary>Version of protocol.md this speaks.</summary>
    public const uint ProtocolVersion = 2;

    private const int ReadSize = 64 << 10;

    private readonly Stream _stream;
    private readonly CancellationTokenSource _closing = new();
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);

    // All below. Held for moments only; nobody's code is called with it.
    private readonly Lock _lock = new();
    private readonly Dictionary<uint, PendingRequest> _pending = [];
    private readonly Dictionary<uint, AgentSession> _sessions = [];
    private FrameWriter _filling = new();
    private FrameWriter _draining = new();
    private bool _sending;
    private uint _sequence;
    private AgentLostException? _lost;

    private AgentConnection(Stream stream) => _stream = stream;

    /// <summary>The agent's answer to HELLO.</summary>
    public AgentHello Hello { get; private set; } = null!;

    /// <summary>Ends when the stream does; never fails.</summary>
    public Task Completion => _completion.Task;

    /// <summary>
    /// Says HELLO and waits for the answer: the agent is ready when this returns. Sessions that another connection left behind are ended by it.
    /// </summary>
    /// <param name="stream">To the agent and from it; the connection's own from now on.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="AgentLostException">The stream ended, or the agent speaks another version.</exception>
    /// <exception cref="SessionDeadlineException">There was no answer in time.</exception>
    public static async Task<AgentConnection> OpenAsync(Stream stream, CancellationToken cancellation)
    {
        var connection = new AgentConnection(stream);
        _ = Task.Run(connection.ReadLoopAsync, CancellationToken.None);
        try
        {
            connection.Hello = await connection.AskAsync(null, FrameKind.Hello, false, "HELLO", ProtocolVersion, static (w, version) => w.U32(version), ParseHello, cancellation)
                .ConfigureAwait(false);
            return connection.Hello.Version == ProtocolVersion
                ? connection
                : throw new AgentLostException($"The agent speaks version {connection.Hello.Version} of the protocol, this harness {ProtocolVersion}: rebuild the agent.");
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Forks a session. The caller disposes it, which returns once the kernel has released all it owned.</summary>
    /// <exception cref="AgentLostException">The stream ended.</exception>
    /// <exception cref="AgentRefusedException">The kernel under test could not fork.</exception>
    /// <exception cref="SessionDeadlineException">There was no answer in time.</exception>
    public Task<AgentSession> OpenSessionAsync(CancellationToken cancellation) =>
        AskAsync(null, FrameKind.Open, false, "OPEN", 0, static (_, _) => { }, ParseSession, cancellation);

    /// <summary>Closes the stream: whatever the agent still does for it ends.</summary>
    public async ValueTask DisposeAsync()
    {
        await _closing.CancelAsync().ConfigureAwait(false);
        await _stream.DisposeAsync().ConfigureAwait(false);
        await Completion.ConfigureAwait(false);
    }

    /// <summary>Sends a request and waits for its reply.</summary>
    /// <param name="session">Whose; null: the supervisor's.</param>
    /// <param name="write">Writes the payload; it may not call back.</param>
    internal async Task<T> AskAsync<TState, T>(
        AgentSession? session,
        FrameKind kind,
        bool offload,
        string operation,
        TState state,
        Action<FrameWriter, TState> write,
        ReplyParser<T> parse,
        CancellationToken deadline)
    {
        if (deadline.IsCancellationRequested)
        {
            throw new SessionDeadlineException(operation, TimeSpan.Zero);
        }

        var pending = new PendingRequest<T>(session?.Id ?? 0, operation, parse);
        uint sequence;
        bool send;
        lock (_lock)
        {
            if (_lost is not null)
            {
                throw new AgentLostException(_lost.Message, _lost);
            }

            if (session?.End is SessionEnd end)
            {
                throw new SessionEndedException(session.Id, end, operation);
            }

            sequence = NextSequence();
            Encode(kind, offload, pending.Session, sequence, state, write);
            _pending.Add(sequence, pending);
            send = !_sending;
            _sending = true;
        }

        if (send)
        {
            _ = SendLoopAsync();
        }

        CancellationTokenRegistration expiry = deadline.UnsafeRegister(static request => ((PendingRequest)request!).Expire(), pending);
        try
        {
            return await pending.Answer.ConfigureAwait(false);
        }
        finally
        {
            await expiry.DisposeAsync().ConfigureAwait(false);
            lock (_lock)
            {
                _pending.Remove(sequence);
            }
        }
    }

    /// <summary>Takes a session as ended: what was asked of it fails.</summary>
    internal void End(AgentSession session, SessionEnd end)
    {
        List<PendingRequest> failing = [];
        lock (_lock)
        {
            _sessions.Remove(session.Id);
            if (session.End is not null)
            {
                return;
            }

            session.End = end;
            failing.AddRange(_pending.Values.Where(p => p.Session == session.Id));
        }

        foreach (PendingRequest pending in failing)
        {
            pending.Fail(new SessionEndedException(session.Id, end, pending.Operation));
        }

        session.OnEnd(end);
    }

    private static AgentHello ParseHello(ref PayloadReader reply) => new(reply.U32(), reply.U32(), reply.U32(), reply.U32(), reply.I32(), reply.Text());

    // On the reading thread, so that the session is known before any notice of it is read.
    private AgentSession ParseSession(ref PayloadReader reply)
    {
        var session = new AgentSession(this, reply.U32(), reply.I32());
        lock (_lock)
        {
            _sessions.Add(session.Id, session);
        }

        return session;
    }

    private uint NextSequence()
    {
        do
        {
            _sequence++;
        }
        while (_sequence == 0 || _pending.ContainsKey(_sequence));
        return _sequence;
    }

    private void Encode<TState>(FrameKind kind, bool offload, uint session, uint sequence, TState state, Action<FrameWriter, TState> write)
    {
        _filling.Begin(kind, offload ? FrameHeader.Offload : (ushort)0, session, sequence);
        try
        {
            write(_filling, state);
            _filling.End();
        }
        catch
        {
            _filling.TakeBack();
            throw;
        }
    }

    // Runs where the first request was made and, while the stream takes all at once, ends there: no thread is waited for. Requests made
    // meanwhile go out together.
    private async Task SendLoopAsync()
    {
        try
        {
            while (true)
            {
                FrameWriter ready;
                lock (_lock)
                {
                    if (_filling.Length == 0)
                    {
                        _sending = false;
                        return;
                    }

                    ready = _filling;
                    _filling = _draining;
                    _draining = ready;
                }

                // A frame that was begun is finished: half of one would cost every session its framing.
                await _stream.WriteAsync(ready.Written, CancellationToken.None).ConfigureAwait(false);
                await _stream.FlushAsync(CancellationToken.None).ConfigureAwait(false);
                ready.Clear();
            }
        }
        catch (Exception e)
        {
            Lose(e);
        }
    }

    private async Task ReadLoopAsync()
    {
        Exception ended;
        try
        {
            await ReadFramesAsync().ConfigureAwait(false);
            ended = new AgentLostException("The agent's stream ended.");
        }
        catch (Exception e)
        {
            ended = e;
        }

        Lose(ended);
        _completion.TrySetResult();
    }

    private async Task ReadFramesAsync()
    {
        byte[] buffer = new byte[ReadSize];
        int start = 0, end = 0;
        while (true)
        {
            int wanted = Dispatch(buffer, ref start, end);
            if (start == end)
            {
                start = end = 0;
                buffer = buffer.Length > 64 * ReadSize ? new byte[ReadSize] : buffer;
            }

            if (wanted > buffer.Length - start)
            {
                byte[] larger = wanted > buffer.Length ? new byte[Math.Max(wanted, ReadSize)] : buffer;
                buffer.AsSpan(start, end - start).CopyTo(larger);
                buffer = larger;
                end -= start;
                start = 0;
            }

            int read = await _stream.ReadAsync(buffer.AsMemory(end), _closing.Token).ConfigureAwait(false);
            if (read == 0)
            {
                return;
            }

            end += read;
        }
    }

    /// <summary>Takes all whole frames.</summary>
    /// <returns>Bytes, from <paramref name="start"/>, that the next frame needs as far as it is known.</returns>
    private int Dispatch(byte[] buffer, ref int start, int end)
    {
        while (end - start >= FrameHeader.Size)
        {
            FrameHeader header = FrameHeader.Read(buffer.AsSpan(start));
            int size = FrameHeader.Size + header.Length;
            if (end - start < size)
            {
                return size;
            }

            Dispatch(header, buffer.AsSpan(start + FrameHeader.Size, header.Length));
            start += size;
        }

        return FrameHeader.Size;
    }

    private void Dispatch(FrameHeader header, ReadOnlySpan<byte> payload)
    {
        PendingRequest? pending = null;
        AgentSession? session = null;
        lock (_lock)
        {
            if (header.IsReply)
            {
                _pending.Remove(header.Sequence, out pending);
            }
            else
            {
                _sessions.TryGetValue(header.Session, out session);
            }
        }

        // A reply nobody waits for any more is the late one to a request that had a deadline.
        pending?.Complete(payload);
        var notice = new PayloadReader(payload);
        switch (header.Kind)
        {
            case FrameKind.VcpuExit:
                session?.OnVcpuExit(ref notice);
                break;
            case FrameKind.Ended when session is not null:
                End(session, new SessionEnd(notice.I32(), notice.Text()));
                break;
            case FrameKind.Lost:
                throw new AgentLostException($"The agent could not make sense of what it was sent: {notice.Text()}.");
        }
    }

    private void Lose(Exception cause)
    {
        AgentLostException lost = cause as AgentLostException
            ?? new AgentLostException(_closing.IsCancellationRequested ? "The connection to the agent was closed." : $"The stream to the agent broke: {cause.Message}", cause);
        List<PendingRequest> failing;
        List<AgentSession> sessions;
        lock (_lock)
        {
            if (_lost is not null)
            {
                return;
            }

            _lost = lost;
            failing = [.. _pending.Values];
            sessions = [.. _sessions.Values];
        }

        foreach (PendingRequest pending in failing)
        {
            pending.Fail(new AgentLostException($"{lost.Message} It was asked: {pending.Operation}.", lost));
        }

        foreach (AgentSession session in sessions)
        {
            End(session, new SessionEnd(-1, lost.Message));
        }

        // A stream that cannot be written is of no use to read.
        _closing.Cancel();
    }
}

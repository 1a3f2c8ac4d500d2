// SPDX-License-Identifier: MIT
using System.Diagnostics;

namespace Conformance.Wire;

/// <summary>Reads what follows a reply's status.</summary>
internal delegate T ReplyParser<T>(ref PayloadReader reply);

/// <summary>A request that has no reply yet.</summary>
internal abstract class PendingRequest(uint session, string operation)
{
    private readonly long _began = Stopwatch.GetTimestamp();

    public uint Session => session;

    public string Operation => operation;

    /// <summary>Takes the reply's payload, on the thread that reads the stream: whoever waits goes on elsewhere.</summary>
    /// <exception cref="AgentLostException">It makes no sense.</exception>
    public abstract void Complete(ReadOnlySpan<byte> payload);

    public abstract void Fail(Exception failure);

    public void Expire() => Fail(new SessionDeadlineException(operation, Stopwatch.GetElapsedTime(_began)));
}

/// <inheritdoc/>
internal sealed class PendingRequest<T>(uint session, string operation, ReplyParser<T> parse) : PendingRequest(session, operation)
{
    private readonly TaskCompletionSource<T> _answer = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public Task<T> Answer => _answer.Task;

    public override void Complete(ReadOnlySpan<byte> payload)
    {
        try
        {
            var reply = new PayloadReader(payload);
            int status = reply.I32();
            if (status == 0)
            {
                _answer.TrySetResult(parse(ref reply));
            }
            else
            {
                _answer.TrySetException(new AgentRefusedException(Operation, status, reply.Text()));
            }
        }
        catch (AgentLostException e)
        {
            _answer.TrySetException(e);
            throw;
        }
    }

    public override void Fail(Exception failure) => _answer.TrySetException(failure);
}

// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Wire;

/// <summary>The stream to the agent is gone or makes no sense: kernel, QEMU or agent died.</summary>
public sealed class AgentLostException(string message, Exception? innerException = null) : IOException(message, innerException);

/// <summary>A session's process ended while something was asked of it.</summary>
public sealed class SessionEndedException(uint session, SessionEnd end, string operation)
    : IOException($"session {session} ended ({end}) during {operation}")
{
    /// <summary>Wait status and reason.</summary>
    public SessionEnd End { get; } = end;

    /// <summary>What was asked, as the journal prints it.</summary>
    public string Operation { get; } = operation;
}

/// <summary>An operation was still running when the session's deadline passed.</summary>
public sealed class SessionDeadlineException(string operation, TimeSpan waited)
    : OperationCanceledException($"no answer to {operation} after {waited.TotalSeconds:0.0} s")
{
    /// <summary>What was asked, as the journal prints it.</summary>
    public string Operation { get; } = operation;

    /// <summary>How long it had been running.</summary>
    public TimeSpan Waited { get; } = waited;
}

/// <summary>The agent refused a request: bad address, unknown vCPU …</summary>
public sealed class AgentRefusedException(string operation, int error, string why) : IOException($"{operation}: the agent refused: {why} ({(Errno)(-error)})")
{
    /// <summary>The agent's own errno, negative.</summary>
    public int Error { get; } = error;
}

/// <summary>How a session's process ended.</summary>
/// <param name="WaitStatus">As waitpid gives it; -1 when the agent was lost first.</param>
/// <param name="Reason">The agent's words; empty when the session was closed.</param>
public readonly record struct SessionEnd(int WaitStatus, string Reason)
{
    /// <summary>It ended by itself.</summary>
    public bool Crashed => Reason.Length > 0;

    /// <summary>The signal that ended it; 0: none.</summary>
    public int Signal => WaitStatus == -1 ? 0 : WaitStatus & 0x7f;

    /// <inheritdoc/>
    public override string ToString() => Reason.Length > 0 ? Reason : Signal != 0 ? $"signal {Signal}" : $"exited with {(WaitStatus >> 8) & 0xff}";
}

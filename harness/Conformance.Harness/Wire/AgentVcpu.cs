// SPDX-License-Identifier: MIT
using System.Threading.Channels;

namespace Conformance.Wire;

/// <summary>Why a vCPU thread spoke.</summary>
public enum VcpuCause : uint
{
    /// <summary>KVM_RUN returned: stopped until resumed.</summary>
    Exit = 0,

    /// <summary>A kick was taken: stopped.</summary>
    Kicked = 1,

    /// <summary>KVM_RUN failed: stopped.</summary>
    Failed = 2,

    /// <summary>A marked exit: running on.</summary>
    Marked = 3,
}

/// <summary>What a range or a write is relative to.</summary>
public enum VcpuBase : uint
{
    Run = 0,
    Absolute = 1,
}

/// <summary>Bytes that every exit notice carries.</summary>
public readonly record struct VcpuRange(VcpuBase Base, ulong Offset, int Length);

/// <summary>Bytes stored before a vCPU goes on.</summary>
public readonly record struct VcpuWrite(VcpuBase Base, ulong Offset, ReadOnlyMemory<byte> Data)
{
    public static VcpuWrite Run(ulong offset, ReadOnlyMemory<byte> data) => new(VcpuBase.Run, offset, data);

    public static VcpuWrite Memory(ulong address, ReadOnlyMemory<byte> data) => new(VcpuBase.Absolute, address, data);
}

/// <summary>What happens at an exit that a mark matches; the vCPU goes on in either case.</summary>
[Flags]
public enum VcpuMarkAction : uint
{
    Record = 1,
    Notify = 2,
}

/// <summary><c>(run[Offset] &amp; Mask) == Value</c>.</summary>
/// <param name="Width">1, 2, 4 or 8.</param>
public readonly record struct VcpuCondition(uint Offset, uint Width, ulong Mask, ulong Value);

/// <summary>Exits that are answered by the agent itself.</summary>
public sealed record VcpuMark(uint Id, VcpuMarkAction Action, IReadOnlyList<VcpuCondition> Conditions);

/// <summary>How a vCPU thread is to run.</summary>
public sealed record VcpuStart
{
    public required int Fd { get; init; }

    /// <summary>The ioctl to loop on.</summary>
    public required uint Request { get; init; }

    /// <summary>Address of the shared run structure.</summary>
    public required ulong Run { get; init; }

    /// <summary>Byte in it that a kick sets (immediate_exit).</summary>
    public required uint KickOffset { get; init; }

    public bool Stopped { get; init; }

    public IReadOnlyList<VcpuRange> Ranges { get; init; } = [];

    public IReadOnlyList<VcpuMark> Marks { get; init; } = [];

    internal ReadOnlyMemory<byte> Encode()
    {
        PayloadWriter w = new PayloadWriter().U32((uint)Fd).U32(Request).U64(Run).U32(KickOffset).U32(Stopped ? 1u : 0).U32((uint)Ranges.Count);
        foreach (VcpuRange range in Ranges)
        {
            w.U32((uint)range.Base).U32((uint)range.Length).U64(range.Offset);
        }

        w.U32((uint)Marks.Count);
        foreach (VcpuMark mark in Marks)
        {
            w.U32(mark.Id).U32((uint)mark.Action).U32((uint)mark.Conditions.Count);
            foreach (VcpuCondition condition in mark.Conditions)
            {
                w.U32(condition.Offset).U32(condition.Width).U64(condition.Mask).U64(condition.Value);
            }
        }

        return w.Written;
    }
}

/// <summary>A vCPU came back to user space.</summary>
/// <param name="Timestamp">CLOCK_MONOTONIC of the kernel under test, in nanoseconds.</param>
/// <param name="Exits">Exits of this vCPU so far.</param>
/// <param name="Data">The ranges, one after another.</param>
public readonly record struct VcpuExit(VcpuCause Cause, int Errno, uint Mark, ulong Timestamp, ulong Exits, ReadOnlyMemory<byte> Data);

/// <summary>An exit that a mark recorded.</summary>
public readonly record struct VcpuRecord(uint Mark, ulong Timestamp, byte[] Data);

/// <summary>A vCPU thread in a session.</summary>
public sealed class AgentVcpu
{
    private readonly Channel<VcpuExit> _exits = Channel.CreateUnbounded<VcpuExit>(new UnboundedChannelOptions { SingleWriter = true });
    private readonly AgentSession _session;

    internal AgentVcpu(AgentSession session, uint id)
    {
        _session = session;
        Id = id;
    }

    public uint Id { get; }

    /// <summary>In the kernel under test.</summary>
    public int ThreadId { get; internal set; }

    /// <summary>Exits in order; it completes when the thread was stopped, and fails when its session or the kernel died.</summary>
    public ChannelReader<VcpuExit> Exits => _exits.Reader;

    /// <summary>Stores what the vCPU waits for and lets it go on.</summary>
    public async Task ResumeAsync(params VcpuWrite[] writes)
    {
        PayloadWriter w = new PayloadWriter().U32(Id).U32((uint)writes.Length);
        foreach (VcpuWrite write in writes)
        {
            w.U32((uint)write.Base).U32(0).U64(write.Offset).Bytes(write.Data.Span);
        }

        await AskAsync(FrameKind.VcpuResume, w.Written, $"resume vCPU thread {ThreadId}");
    }

    /// <summary>Makes KVM_RUN return; the exit says that it was kicked.</summary>
    public Task KickAsync() => AskAsync(FrameKind.VcpuKick, new PayloadWriter().U32(Id).Written, $"kick vCPU thread {ThreadId}");

    /// <summary>Ends the thread. No exit follows.</summary>
    public async Task StopAsync()
    {
        await AskAsync(FrameKind.VcpuStop, new PayloadWriter().U32(Id).Written, $"stop vCPU thread {ThreadId}", offload: true);
        Complete(null);
    }

    /// <summary>Takes what the marks have recorded.</summary>
    /// <returns>The records, and how many more there were than are kept.</returns>
    public async Task<(IReadOnlyList<VcpuRecord> Records, ulong Dropped)> RecordsAsync()
    {
        byte[] reply = await AskAsync(FrameKind.VcpuRecords, new PayloadWriter().U32(Id).Written, $"records of vCPU thread {ThreadId}");
        return Parse(reply);
    }

    internal void Push(VcpuExit exit) => _exits.Writer.TryWrite(exit);

    internal void Complete(Exception? failure) => _exits.Writer.TryComplete(failure);

    private static (IReadOnlyList<VcpuRecord> Records, ulong Dropped) Parse(byte[] reply)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, "records");
        ulong dropped = r.U64();
        var records = new VcpuRecord[r.U32()];
        for (int i = 0; i < records.Length; i++)
        {
            uint mark = r.U32();
            _ = r.U32();
            records[i] = new VcpuRecord(mark, r.U64(), r.Bytes());
        }

        return (records, dropped);
    }

    private async Task<byte[]> AskAsync(FrameKind kind, ReadOnlyMemory<byte> payload, string what, bool offload = false)
    {
        byte[] reply = await _session.AskAsync(kind, payload, what, offload);
        AgentSession.CheckStatus(reply, what);
        _session.Journal.Add(what, "0");
        return reply;
    }
}

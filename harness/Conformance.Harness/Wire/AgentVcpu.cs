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
    /// <summary>The shared run structure.</summary>
    Run = 0,

    /// <summary>Nothing: an address of the session.</summary>
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
    /// <summary>Goes on as if the exit had not been.</summary>
    None = 0,
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

    internal void WriteTo(FrameWriter payload)
    {
        payload.U32((uint)Fd).U32(Request).U64(Run).U32(KickOffset).U32(Stopped ? 1u : 0).U32((uint)Ranges.Count);
        foreach (VcpuRange range in Ranges)
        {
            payload.U32((uint)range.Base).U32((uint)range.Length).U64(range.Offset);
        }

        payload.U32((uint)Marks.Count);
        foreach (VcpuMark mark in Marks)
        {
            payload.U32(mark.Id).U32((uint)mark.Action).U32((uint)mark.Conditions.Count);
            foreach (VcpuCondition condition in mark.Conditions)
            {
                payload.U32(condition.Offset).U32(condition.Width).U64(condition.Mask).U64(condition.Value);
            }
        }
    }
}

/// <summary>A vCPU came back to user space.</summary>
/// <param name="Timestamp">CLOCK_MONOTONIC of the kernel under test, in nanoseconds.</param>
/// <param name="Exits">Exits of this vCPU so far.</param>
/// <param name="Data">The ranges, one after another.</param>
/// <param name="Cause">Why, and whether it is stopped.</param>
/// <param name="Errno">Of an ioctl that failed; 0 otherwise.</param>
/// <param name="Mark">Id of the mark that matched; 0 when none did.</param>
public readonly record struct VcpuExit(VcpuCause Cause, int Errno, uint Mark, ulong Timestamp, ulong Exits, ReadOnlyMemory<byte> Data);

/// <summary>Lets a vCPU go on, as the journal keeps it.</summary>
public sealed record VcpuResume(uint Vcpu, IReadOnlyList<VcpuWrite> Writes);

/// <summary>An exit that a mark recorded.</summary>
public readonly record struct VcpuRecord(uint Mark, ulong Timestamp, byte[] Data);

/// <summary>A vCPU thread in a session.</summary>
public sealed class AgentVcpu
{
    private readonly Channel<VcpuExit> _exits = Channel.CreateUnbounded<VcpuExit>(new UnboundedChannelOptions { SingleWriter = true });
    private readonly AgentSession _session;
    private readonly Lock _stopping = new();
    private Task? _stopped;

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
    /// <exception cref="AgentRefusedException">It is not stopped (-EBUSY), or a write is to where nothing is mapped (-EFAULT).</exception>
    public Task ResumeAsync(params VcpuWrite[] writes)
    {
        VcpuWrite[] copies = Array.ConvertAll(writes, static w => w with { Data = w.Data.ToArray() });
        return _session.AskAsync(
            FrameKind.VcpuResume,
            $"resume vCPU thread {Id}",
            new VcpuResume(Id, copies),
            false,
            (Id, copies),
            static (w, request) => Write(w, request.Id, request.copies));
    }

    /// <summary>Makes KVM_RUN return; the exit says that it was kicked. A vCPU that is stopped is kicked as soon as it goes on.</summary>
    public Task KickAsync() => AskAsync(FrameKind.VcpuKick, $"kick vCPU thread {Id}", offload: false);

    /// <summary>Ends the thread. No exit follows.</summary>
    public Task StopAsync()
    {
        lock (_stopping)
        {
            return _stopped ??= StopOnceAsync();
        }
    }

    /// <summary>Takes what the marks have recorded, also after the thread was stopped.</summary>
    /// <returns>The records, oldest first, and how many more there were than are kept.</returns>
    public async Task<(IReadOnlyList<VcpuRecord> Records, ulong Dropped)> RecordsAsync()
    {
        List<VcpuRecord> records = [];
        ulong dropped = 0;
        while (true)
        {
            Taken taken = await _session.AskAsync(
                FrameKind.VcpuRecords,
                $"records of vCPU thread {Id}",
                null,
                0,
                false,
                Id,
                static (w, id) => w.U32(id),
                Parse,
                static t => $"{t.Records.Length} records").ConfigureAwait(false);
            dropped += taken.Dropped;
            records.AddRange(taken.Records);
            if (taken.Left == 0)
            {
                return (records, dropped);
            }
        }
    }

    /// <inheritdoc/>
    public override string ToString() => $"vCPU thread {Id} (tid {ThreadId})";

    internal void Push(VcpuExit exit) => _exits.Writer.TryWrite(exit);

    internal void Complete(Exception? failure) => _exits.Writer.TryComplete(failure);

    private static Taken Parse(ref PayloadReader reply)
    {
        ulong dropped = reply.U64();
        uint left = reply.U32();
        var records = new VcpuRecord[reply.Count(20)];
        for (int i = 0; i < records.Length; i++)
        {
            uint mark = reply.U32();
            _ = reply.U32();
            records[i] = new VcpuRecord(mark, reply.U64(), reply.Bytes());
        }

        return new Taken(records, left, dropped);
    }

    private static void Write(FrameWriter payload, uint id, VcpuWrite[] writes)
    {
        payload.U32(id).U32((uint)writes.Length);
        foreach (VcpuWrite write in writes)
        {
            payload.U32((uint)write.Base).U32(0).U64(write.Offset).Bytes(write.Data.Span);
        }
    }

    // Beside the session's other requests: it returns only when the kernel has let the thread go.
    private async Task StopOnceAsync()
    {
        await AskAsync(FrameKind.VcpuStop, $"stop vCPU thread {Id}", offload: true).ConfigureAwait(false);
        Complete(null);
    }

    private Task AskAsync(FrameKind kind, string operation, bool offload) =>
        _session.AskAsync(kind, operation, null, offload, Id, static (w, id) => w.U32(id));

    private sealed record Taken(VcpuRecord[] Records, uint Left, ulong Dropped);
}

// SPDX-License-Identifier: MIT
using System.Collections;
using Conformance.Kvm;

namespace Conformance.Guests;

/// <summary>What one vCPU logged, in order.</summary>
public sealed class InterruptLog : IReadOnlyList<LogRecord>
{
    private readonly LogRecord[] _records;

    private InterruptLog(LogRecord[] records, ulong lost)
    {
        _records = records;
        Lost = lost;
    }

    /// <summary>Records asked for that the ring no longer had.</summary>
    public ulong Lost { get; }

    public int Count => _records.Length;

    /// <summary>The vectors taken, in order; NMIs are not among them.</summary>
    public IEnumerable<ApicVector> Vectors => _records.Where(r => r.Kind == LogRecordKind.Interrupt).Select(r => r.Vector);

    /// <summary>arm64: the INTIDs taken, in order, of either group.</summary>
    public IEnumerable<IntId> IntIds => _records.Where(r => r.Kind is LogRecordKind.Interrupt or LogRecordKind.Fiq).Select(r => r.IntId);

    /// <summary>The event channels found pending, in order.</summary>
    public IEnumerable<uint> Ports => _records.Where(r => r.Kind == LogRecordKind.EventChannel).Select(r => r.Port);

    public LogRecord this[int index] => _records[index];

    /// <summary>The pieces of guest memory that hold the records [from, written), one after another; at most two.</summary>
    /// <param name="area">The vCPU's area (<see cref="GuestLayout.Area"/>).</param>
    /// <param name="written">Records ever written, from the control page.</param>
    public static IReadOnlyList<(ulong Address, int Length)> Pieces(ulong area, ulong written, ulong from = 0)
    {
        from = Available(written, from);
        ulong log = area + GuestProtocol.AreaLog;
        int first = (int)(from % GuestProtocol.LogRecords), count = (int)(written - from);
        int before = Math.Min(count, GuestProtocol.LogRecords - first);
        var pieces = new List<(ulong, int)>();
        if (before > 0)
        {
            pieces.Add((log + (ulong)(first * GuestProtocol.RecordSize), before * GuestProtocol.RecordSize));
        }

        if (count > before)
        {
            pieces.Add((log, (count - before) * GuestProtocol.RecordSize));
        }

        return pieces;
    }

    /// <param name="bytes">What <see cref="Pieces"/> named, joined.</param>
    /// <exception cref="InvalidDataException">A record is not the one that belongs there: the guest went on writing while it was read.</exception>
    public static InterruptLog Parse(ReadOnlySpan<byte> bytes, ulong written, ulong from = 0)
    {
        ulong start = Available(written, from);
        var records = new LogRecord[written - start];
        for (int n = 0; n < records.Length; n++)
        {
            records[n] = LogRecord.Parse(bytes.Slice(n * GuestProtocol.RecordSize, GuestProtocol.RecordSize));
            if (records[n].Sequence != (uint)(start + (ulong)n))
            {
                throw new InvalidDataException($"log record {start + (ulong)n} has sequence {records[n].Sequence}: it was overwritten while it was read");
            }
        }

        return new InterruptLog(records, start - from);
    }

    public IEnumerator<LogRecord> GetEnumerator() => ((IEnumerable<LogRecord>)_records).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    public override string ToString() =>
        (Lost == 0 ? "" : $"  {Lost} records lost\n")
        + (_records.Length == 0 ? "  nothing taken\n" : string.Concat(_records.Select(r => $"  {r}\n")));

    private static ulong Available(ulong written, ulong from)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(from, written);
        return written > GuestProtocol.LogRecords ? Math.Max(from, written - GuestProtocol.LogRecords) : from;
    }
}

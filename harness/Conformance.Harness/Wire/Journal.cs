// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Conformance.Wire;

/// <summary>
/// What a session did, operation by operation, also those that never came back. Of a long run the first and the last operations are kept,
/// and the requests themselves as long as they are small.
/// </summary>
public sealed class Journal
{
    private const int Head = 512;
    private const int Tail = 1024;
    private const long RequestBytes = 16 << 20;
    private static readonly TimeSpan s_slow = TimeSpan.FromSeconds(1);

    private readonly Lock _lock = new();
    private readonly List<JournalEntry> _head = [];
    private readonly Queue<JournalEntry> _tail = new();
    private long _requestBytes;
    private long _count;

    /// <summary>Operations so far, kept or not.</summary>
    public long Count
    {
        get
        {
            lock (_lock)
            {
                return _count;
            }
        }
    }

    /// <summary>The kept entries, oldest first.</summary>
    public IReadOnlyList<JournalEntry> Entries
    {
        get
        {
            lock (_lock)
            {
                return [.. _head, .. _tail];
            }
        }
    }

    /// <summary>Adds a line that is no operation: what somebody reading the journal must know besides.</summary>
    public void Note(string text) => Begin(text, null, 0).Finish(null, null);

    /// <summary>One line per operation.</summary>
    public string ToText()
    {
        var text = new StringBuilder();
        long next = 0;
        foreach (JournalEntry entry in Entries)
        {
            if (entry.Number != next)
            {
                text.Append(CultureInfo.InvariantCulture, $"      … {entry.Number - next} operations …\n");
            }

            text.Append(CultureInfo.InvariantCulture, $"{entry.Number,5} {entry.Operation}");
            if (!entry.Finished)
            {
                text.Append(CultureInfo.InvariantCulture, $" = no answer after {entry.Elapsed.TotalSeconds:0.0} s");
            }
            else if (entry.Result is not null)
            {
                text.Append(CultureInfo.InvariantCulture, $" = {entry.Result}");
                if (entry.Elapsed >= s_slow)
                {
                    text.Append(CultureInfo.InvariantCulture, $" ({entry.Elapsed.TotalSeconds:0.0} s)");
                }
            }

            text.Append('\n');
            next = entry.Number + 1;
        }

        return text.ToString();
    }

    /// <param name="operation">In words.</param>
    /// <param name="request">The request itself.</param>
    /// <param name="size">What keeping it costs, in bytes.</param>
    internal JournalEntry Begin(string operation, object? request, long size)
    {
        lock (_lock)
        {
            bool keep = request is not null && _requestBytes + size <= RequestBytes;
            var entry = new JournalEntry(_count++, operation, keep ? request : null, keep ? size : 0);
            _requestBytes += entry.Size;
            if (_head.Count < Head)
            {
                _head.Add(entry);
                return entry;
            }

            _tail.Enqueue(entry);
            if (_tail.Count > Tail)
            {
                _requestBytes -= _tail.Dequeue().Size;
            }

            return entry;
        }
    }
}

/// <summary>One operation of a session.</summary>
public sealed class JournalEntry
{
    private readonly long _began = Stopwatch.GetTimestamp();
    private long _finished;

    internal JournalEntry(long number, string operation, object? request, long size)
    {
        Number = number;
        Operation = operation;
        Request = request;
        Size = size;
    }

    /// <summary>Its place among all operations of the session, from 0.</summary>
    public long Number { get; }

    /// <summary>What was asked, in words: <c>ioctl(vm, KVM_IRQFD, gsi 24 eventfd A)</c>.</summary>
    public string Operation { get; }

    /// <summary>
    /// What was asked: a <see cref="SystemCall"/>, <see cref="MemoryRead"/>, <see cref="MemoryWrite"/>, <see cref="VcpuStart"/>,
    /// <see cref="VcpuResume"/> or <see cref="AgentProgram"/>; null for a note, and where it was too big to keep.
    /// </summary>
    public object? Request { get; }

    /// <summary>What came of it, in words; null while there is no answer, and for a note.</summary>
    public string? Result { get; private set; }

    /// <summary>The answer itself where it is more than success: a <see cref="CallResult"/>.</summary>
    public object? Answer { get; private set; }

    /// <summary>Whether there was an answer, or an error instead of one.</summary>
    public bool Finished => Volatile.Read(ref _finished) != 0;

    /// <summary>From request to answer, or until now.</summary>
    public TimeSpan Elapsed => Finished ? Stopwatch.GetElapsedTime(_began, _finished) : Stopwatch.GetElapsedTime(_began);

    internal long Size { get; }

    /// <inheritdoc/>
    public override string ToString() => Finished ? $"{Operation} = {Result}" : Operation;

    internal void Finish(string? result, object? answer)
    {
        Result = result;
        Answer = Request is null ? null : answer;
        Volatile.Write(ref _finished, Stopwatch.GetTimestamp());
    }
}

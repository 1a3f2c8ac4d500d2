// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;

namespace Conformance.Wire;

/// <summary>What a session did, operation by operation. Bounded: of a long run the first and the last entries are kept.</summary>
public sealed class Journal
{
    private const int Head = 512;
    private const int Tail = 1024;

    private readonly Lock _lock = new();
    private readonly List<JournalEntry> _head = [];
    private readonly Queue<JournalEntry> _tail = new();
    private long _count;

    /// <summary>Operations so far, kept or not.</summary>
    public long Count => Interlocked.Read(ref _count);

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

    internal void Add(string operation, string result)
    {
        lock (_lock)
        {
            var entry = new JournalEntry(_count++, operation, result);
            if (_head.Count < Head)
            {
                _head.Add(entry);
                return;
            }

            _tail.Enqueue(entry);
            if (_tail.Count > Tail)
            {
                _tail.Dequeue();
            }
        }
    }

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

            text.Append(CultureInfo.InvariantCulture, $"{entry.Number,5} {entry.Operation} = {entry.Result}\n");
            next = entry.Number + 1;
        }

        return text.ToString();
    }
}

/// <summary>One operation of a session.</summary>
public readonly record struct JournalEntry(long Number, string Operation, string Result);

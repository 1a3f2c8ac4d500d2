// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;

namespace Conformance.Targets;

/// <summary>A point in a kernel's log.</summary>
/// <param name="Line">Lines before it.</param>
public readonly record struct LogMark(int Line);

/// <summary>The kernel's log ended while somebody waited for something in it.</summary>
public sealed class KernelLogEndedException(string message) : IOException(message);

/// <summary>
/// What the kernel under test prints, as it prints it: the lines, and the reports among them. It is fed by whoever holds the console
/// (an emulated kernel) or reads /dev/kmsg (this machine's own, a board), from one thread at a time; everything else may be called from any.
/// </summary>
public sealed class KernelLog
{
    /// <summary>How long a report that has begun may stay without its end before it is taken as it is.</summary>
    public static readonly TimeSpan ReportPatience = TimeSpan.FromSeconds(5);

    private const string MarkPrefix = "conformance: ";
    private const int LongestLine = 4096;
    private readonly Func<string, CancellationToken, Task> _write;
    private readonly Lock _lock = new();
    private readonly ConsoleWatcher _watcher = new();
    private readonly List<string> _lines = [];
    private readonly List<Waiter> _waiters = [];
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private readonly StringBuilder _partial = new();
    private readonly TaskCompletionSource<KernelReport> _death = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly string _nonce = Convert.ToHexStringLower(Guid.NewGuid().ToByteArray().AsSpan(0, 3));
    private string? _during;
    private int _marks;
    private bool _ended;

    /// <param name="writeToKernelLog">Writes one line to the kernel's /dev/kmsg; it fails when the kernel is gone.</param>
    public KernelLog(Func<string, CancellationToken, Task> writeToKernelLog) => _write = writeToKernelLog;

    /// <summary>Completes with the first report after which the kernel is not to be trusted; never when there is none.</summary>
    public Task<KernelReport> Death => _death.Task;

    /// <summary>The beginning of the log.</summary>
    public static LogMark Start => default;

    /// <summary>After the last line read so far. Only what a returned <see cref="MarkAsync"/> preceded is known to be before it.</summary>
    public LogMark Here
    {
        get
        {
            lock (_lock)
            {
                return new LogMark(_lines.Count);
            }
        }
    }

    /// <summary>
    /// Writes a line to the kernel's log and returns once it has come back, and with it everything the kernel printed before. A report
    /// that is just being printed is waited for, at most <see cref="ReportPatience"/>. Reports that follow are attributed to this mark.
    /// </summary>
    /// <param name="text">What happens from here on, such as <c>begin KvmXen.EventChannel.MaskedPortSetsPending</c>.</param>
    /// <exception cref="KernelLogEndedException">The log ended before the line was seen.</exception>
    public async Task<LogMark> MarkAsync(string text, CancellationToken cancellation)
    {
        Waiter waiter;
        lock (_lock)
        {
            if (_ended)
            {
                throw Ended(text);
            }

            // The number makes a mark of an earlier run in the same kernel (a restored one) somebody else's.
            waiter = new Waiter(string.Create(CultureInfo.InvariantCulture, $"{MarkPrefix}{_nonce}.{++_marks} {OneLine(text)}"), text);
            _waiters.Add(waiter);
        }

        try
        {
            await _write(waiter.Line, cancellation).ConfigureAwait(false);
            LogMark mark = await waiter.Seen.Task.WaitAsync(cancellation).ConfigureAwait(false);
            await FinishReportAsync(waiter, cancellation).ConfigureAwait(false);
            return mark;
        }
        finally
        {
            lock (_lock)
            {
                _waiters.Remove(waiter);
            }
        }
    }

    /// <summary>Returns once the kernel has printed a line with this in it.</summary>
    /// <exception cref="KernelLogEndedException">The log ended first.</exception>
    public async Task WaitForAsync(string text, CancellationToken cancellation)
    {
        Waiter waiter = new(text, text) { IsMark = false };
        lock (_lock)
        {
            if (_ended)
            {
                throw Ended(text);
            }

            _waiters.Add(waiter);
        }

        try
        {
            await waiter.Seen.Task.WaitAsync(cancellation).ConfigureAwait(false);
        }
        finally
        {
            lock (_lock)
            {
                _waiters.Remove(waiter);
            }
        }
    }

    /// <summary>Reports that began at or after the mark, oldest first.</summary>
    public IReadOnlyList<KernelReport> ReportsSince(LogMark mark)
    {
        lock (_lock)
        {
            return [.. _watcher.ReportsFrom(mark.Line).Select(r => r.Report)];
        }
    }

    /// <summary>The lines since the mark.</summary>
    public string TextSince(LogMark mark)
    {
        lock (_lock)
        {
            return string.Join('\n', _lines.Skip(mark.Line));
        }
    }

    /// <summary>The last lines, with what of an unfinished line there is.</summary>
    public string Tail(int lines = 40)
    {
        lock (_lock)
        {
            IEnumerable<string> all = _partial.Length == 0 ? _lines : _lines.Append(_partial.ToString());
            return string.Join('\n', all.TakeLast(lines));
        }
    }

    /// <summary>Takes bytes of a console.</summary>
    public void Feed(ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            Span<char> characters = stackalloc char[256];
            while (!bytes.IsEmpty)
            {
                _decoder.Convert(bytes, characters, flush: false, out int used, out int made, out _);
                bytes = bytes[used..];
                foreach (char c in characters[..made])
                {
                    if (c == '\n' || _partial.Length == LongestLine)
                    {
                        TakePartial();
                    }

                    if (c is not '\n' and not '\0')
                    {
                        _partial.Append(c);
                    }
                }
            }
        }
    }

    /// <summary>
    /// Takes one record as read from /dev/kmsg (Documentation/ABI/testing/dev-kmsg): <c>level,sequence,microseconds,flags;text</c>.
    /// A record that a program wrote (facility other than kernel) is kept as text and never taken for a report.
    /// </summary>
    public void FeedRecord(string record)
    {
        lock (_lock)
        {
            int semicolon = record.IndexOf(';', StringComparison.Ordinal);
            string[] head = semicolon < 0 ? [] : record[..semicolon].Split(',');
            if (head.Length < 3 || !int.TryParse(head[0], CultureInfo.InvariantCulture, out int level) || !long.TryParse(head[2], CultureInfo.InvariantCulture, out long microseconds))
            {
                TakeLine(record);
                return;
            }

            string text = record[(semicolon + 1)..];
            int end = text.IndexOf('\n', StringComparison.Ordinal);
            text = end < 0 ? text : text[..end];
            bool kernel = level < 8;
            string stamp = string.Create(CultureInfo.InvariantCulture, $"[{microseconds / 1_000_000,5}.{microseconds % 1_000_000:D6}] ");
            TakeLine(kernel || text.StartsWith(MarkPrefix, StringComparison.Ordinal) ? stamp + text : "program: " + text);
        }
    }

    /// <summary>Says that nothing follows: the kernel, or what carried it, is gone.</summary>
    public void End()
    {
        List<Waiter> waiting;
        lock (_lock)
        {
            if (_partial.Length > 0)
            {
                TakePartial();
            }

            _ended = true;
            _watcher.Close();
            Notice();
            waiting = [.. _waiters];
        }

        foreach (Waiter waiter in waiting)
        {
            waiter.Seen.TrySetException(Ended(waiter.Text));
            waiter.Quiet.TrySetResult();
        }
    }

    private static KernelLogEndedException Ended(string text) => new($"The kernel's log ended before '{OneLine(text)}' was seen in it.");

    private static string OneLine(string text) => text.ReplaceLineEndings(" ");

    private async Task FinishReportAsync(Waiter waiter, CancellationToken cancellation)
    {
        lock (_lock)
        {
            if (!_watcher.IsCollecting)
            {
                return;
            }
        }

        try
        {
            await waiter.Quiet.Task.WaitAsync(ReportPatience, cancellation).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // The report is taken as far as it came; its text shows that the end is missing.
            lock (_lock)
            {
                _watcher.Close();
                Notice();
            }
        }
    }

    private void TakePartial()
    {
        string line = _partial.ToString().TrimEnd('\r');
        _partial.Clear();
        TakeLine(line);
    }

    private void TakeLine(string line)
    {
        _lines.Add(line);
        int at = line.IndexOf(MarkPrefix, StringComparison.Ordinal);
        if (at < 0)
        {
            foreach (Waiter waiter in _waiters.Where(w => !w.IsMark && line.Contains(w.Line, StringComparison.Ordinal)))
            {
                waiter.Seen.TrySetResult(new LogMark(_lines.Count));
            }

            _watcher.Take(line, _during);
            Notice();
            return;
        }

        _watcher.Skip();
        foreach (Waiter waiter in _waiters)
        {
            if (waiter.IsMark && line.AsSpan(at).StartsWith(waiter.Line))
            {
                _during = waiter.Text;
                _watcher.Fence();
                waiter.Seen.TrySetResult(new LogMark(_lines.Count));
                Notice();
                break;
            }
        }
    }

    private void Notice()
    {
        if (!_watcher.IsCollecting)
        {
            foreach (Waiter waiter in _waiters)
            {
                if (waiter.Seen.Task.IsCompleted)
                {
                    waiter.Quiet.TrySetResult();
                }
            }
        }

        if (!_death.Task.IsCompleted && _watcher.Death is { } death)
        {
            _death.TrySetResult(death);
        }
    }

    private sealed record Waiter(string Line, string Text)
    {
        public bool IsMark { get; init; } = true;

        public TaskCompletionSource<LogMark> Seen { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public TaskCompletionSource Quiet { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}

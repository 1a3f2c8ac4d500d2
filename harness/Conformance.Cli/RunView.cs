// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>
/// Shows a run while it happens: on a terminal one line that says what runs now, with failures above it; elsewhere a line per
/// verdict. Safe for several kernels at once.
/// </summary>
internal sealed class RunView : IDisposable
{
    private static readonly TimeSpan Refresh = TimeSpan.FromMilliseconds(200);

    private readonly Lock _lock = new();
    private readonly CommandOutput _output;
    private readonly bool _everyTest;
    private readonly Func<TestRecord, KernelIdentity, IEnumerable<string>> _failure;
    private readonly SortedDictionary<string, (string Text, long Since)> _now = new(StringComparer.Ordinal);
    private readonly Dictionary<Verdict, int> _counts = [];
    private readonly HashSet<(string Kernel, Verdict Verdict, string? Reason)> _told = [];
    private readonly Timer? _timer;
    private int _planned;
    private bool _statusShown;

    public RunView(CommandOutput output, bool everyTest, Func<TestRecord, KernelIdentity, IEnumerable<string>> failure)
    {
        _output = output;
        _everyTest = everyTest || !output.Interactive;
        _failure = failure;
        _timer = output.Interactive ? new Timer(_ => Redraw(), null, Refresh, Refresh) : null;
    }

    /// <summary>Says something once.</summary>
    public void Say(string text) => Above(() => _output.Error.WriteLine(text));

    /// <summary>Says what one part of the run is doing now.</summary>
    /// <param name="part">The part, for example a suite on a kernel.</param>
    /// <param name="text">What it does; null when it is over.</param>
    public void Now(string part, string? text)
    {
        lock (_lock)
        {
            if (text is null)
            {
                _now.Remove(part);
            }
            else
            {
                _now[part] = (text, Stopwatch.GetTimestamp());
            }
        }

        Redraw();
    }

    public void Planned(int count)
    {
        lock (_lock)
        {
            _planned += count;
        }
    }

    public void Decided(TestRecord test, KernelIdentity kernel) => Above(() =>
    {
        _counts[test.Verdict] = _counts.GetValueOrDefault(test.Verdict) + 1;
        if (test.Verdict is Verdict.Fail or Verdict.Crash or Verdict.Hang or Verdict.Broken)
        {
            string[] lines = [.. _failure(test, kernel)];

            // A kernel that does not come up breaks every test in the same way, and so does a capability that is gone: once is enough.
            bool again = (test.Verdict != Verdict.Fail || test.Said == Verdict.Skip) && !_told.Add((kernel.Id, test.Verdict, test.Reason));
            _output.Out.WriteLine($"{Painted(test.Verdict)}{lines[0]}{(again ? "   as above" : "")}");
            foreach (string line in again ? [] : lines.Skip(1))
            {
                _output.Out.WriteLine(line);
            }
        }
        else if (_everyTest)
        {
            string time = test.Verdict == Verdict.Pass ? $"  {test.DurationMs.ToString(CultureInfo.InvariantCulture)} ms" : $"  {test.Reason}";
            _output.Out.WriteLine($"{Painted(test.Verdict)}{test.Id}{time}");
        }
    });

    public void Dispose()
    {
        _timer?.Dispose();
        lock (_lock)
        {
            Erase();
        }
    }

    /// <summary>Counts in words, in a fixed order: <c>28 passed, 1 failed, 1 skipped</c>.</summary>
    /// <param name="counts">How many of each.</param>
    public static string Counts(IReadOnlyDictionary<Verdict, int> counts)
    {
        (Verdict Verdict, string Word)[] words =
        [
            (Verdict.Pass, "passed"), (Verdict.Fail, "failed"), (Verdict.Crash, "crashed"), (Verdict.Hang, "hung"),
            (Verdict.Broken, "broken"), (Verdict.Known, "known"), (Verdict.Skip, "skipped"),
        ];
        return string.Join(", ", words
            .Where(w => w.Verdict == Verdict.Pass || counts.GetValueOrDefault(w.Verdict) > 0)
            .Select(w => $"{counts.GetValueOrDefault(w.Verdict).ToString(CultureInfo.InvariantCulture)} {w.Word}"));
    }

    private void Above(Action write)
    {
        lock (_lock)
        {
            Erase();
            write();
            Draw();
        }
    }

    private void Redraw()
    {
        lock (_lock)
        {
            Erase();
            Draw();
        }
    }

    private void Erase()
    {
        if (_statusShown)
        {
            _output.Out.Write("\r\e[2K");
            _statusShown = false;
        }
    }

    private void Draw()
    {
        if (!_output.Interactive || _now.Count == 0)
        {
            return;
        }

        int decided = _counts.Values.Sum();
        string done = _planned > 0 ? string.Create(CultureInfo.InvariantCulture, $"[{decided}/{_planned}] ") : string.Empty;
        string now = string.Join("  ", _now.Values.Select(n =>
            $"{n.Text} {Stopwatch.GetElapsedTime(n.Since).TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture)} s"));
        string line = $"{done}{now}{(decided > 0 ? $"  ({Counts(_counts)})" : string.Empty)}";
        _output.Out.Write(line.Length < _output.Width ? line : string.Concat(line.AsSpan(0, _output.Width - 2), "…"));
        _output.Out.Flush();
        _statusShown = true;
    }

    private string Painted(Verdict verdict)
    {
        string word = FailureText.Word(verdict).PadRight(7);
        int colour = verdict switch
        {
            Verdict.Pass => 32,
            Verdict.Skip or Verdict.Known => 33,
            Verdict.Broken => 35,
            _ => 31,
        };
        return _output.Colour ? $"\e[{colour}m{word}\e[0m" : word;
    }
}

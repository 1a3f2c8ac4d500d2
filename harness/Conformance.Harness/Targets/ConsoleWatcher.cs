// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Targets;

/// <summary>
/// Reads a kernel's console line by line and finds the reports in it. Given the same lines it makes the same reports: it knows no clock
/// and no thread; whoever feeds it does.
/// </summary>
internal sealed class ConsoleWatcher
{
    /// <summary>No report is longer; what follows is not worth keeping.</summary>
    private const int MostLines = 400;

    /// <summary>A report whose end was never seen ends where this many lines in a row have nothing to do with a stack.</summary>
    private const int MostLinesBeforeStack = 80;

    private readonly List<Block> _blocks = [];
    private Block? _open;
    private bool _sawVersion;

    /// <summary>Reports that have begun, oldest first, and the line each began at. One that is still being printed is included as far as it is known.</summary>
    public IEnumerable<(int Line, KernelReport Report)> ReportsFrom(int line) =>
        _blocks.Where(b => b.Line >= line && b.IsReport).Select(b => (b.Line, b.ToReport()));

    /// <summary>Lines read so far.</summary>
    public int Lines { get; private set; }

    /// <summary>Whether a report has begun whose end is still to come.</summary>
    public bool IsCollecting => _open is { Finished: false };

    /// <summary>The first report after which the kernel is not to be trusted, once it is complete; else null.</summary>
    public KernelReport? Death => _blocks.FirstOrDefault(b => b is { IsReport: true, Severity: Severity.Dead, Finished: true })?.ToReport();

    /// <summary>Takes one line, without its line end.</summary>
    /// <param name="line">As the console had it.</param>
    /// <param name="during">The test running, for the record.</param>
    public void Take(string line, string? during)
    {
        int number = Lines++;
        if (!PrintkLine.TryParse(line, out ReadOnlySpan<char> span))
        {
            // Firmware and programs write between the kernel's lines; a report only keeps what the kernel said.
            return;
        }

        string text = span.ToString();
        if (text.StartsWith("Linux version ", StringComparison.Ordinal))
        {
            if (_sawVersion)
            {
                Close();
                Block reboot = new(number, during);
                reboot.Add(line, text);
                reboot.Name(Severity.Dead, BlockEnd.Line, static _ => "unexpected reboot");
                _blocks.Add(reboot);
                reboot.Finished = true;
            }

            _sawVersion = true;
            return;
        }

        if (CrashTable.IsCutHere(text))
        {
            if (_open is not { Severity: Severity.Dead, IsReport: true })
            {
                Close();
                Open(number, during, line, text);
                return;
            }
        }

        if (CrashTable.Find(text) is ({ } rule, { } match))
        {
            Sharpen(number, during, line, text, rule, match);
            return;
        }

        if (_open is null)
        {
            return;
        }

        Continue(line, text);
    }

    /// <summary>Counts a line that is the harness's own.</summary>
    public void Skip() => Lines++;

    /// <summary>Says that nothing before this point can still be printed: a report without an end mark ends here.</summary>
    public void Fence()
    {
        if (_open is { End: BlockEnd.Stack or BlockEnd.Line or BlockEnd.Disabling })
        {
            Close();
        }
    }

    /// <summary>Ends the report being printed, whatever is missing.</summary>
    public void Close()
    {
        if (_open is not null)
        {
            _open.Finished = true;
            _open = null;
        }
    }

    private void Open(int number, string? during, string line, string text)
    {
        _open = new Block(number, during);
        _open.Add(line, text);
        _blocks.Add(_open);
    }

    private void Sharpen(int number, string? during, string line, string text, CrashRule rule, Match match)
    {
        bool panic = rule.End == BlockEnd.Panic;
        if (_open is null && panic && CrashTable.IsConsequence(text) && _blocks is [.., var last] && number - last.Line < MostLines)
        {
            // softlockup_panic, hung_task_panic and friends: the stall said it all, now the kernel dies of it.
            _open = last;
            _open.Finished = false;
        }

        if (_open is { IsReport: true } open)
        {
            // Within a report the first complaint names it. What follows can only make it worse: an oops ends in a panic, a panic tells of its oops.
            bool same = panic || open.Severity == Severity.Dead || (open.End == BlockEnd.Trace && rule.Severity == Severity.Dead) || BelongsToStack(open, rule);
            if (same)
            {
                open.Add(line, text);
                open.Worsen(rule.Severity, panic ? BlockEnd.Panic : open.End);
                if (panic)
                {
                    open.Finished = false;
                }

                return;
            }

            Close();
        }

        if (_open is null)
        {
            Open(number, during, line, text);
        }
        else
        {
            _open.Add(line, text);
        }

        _open!.Name(rule.Severity, _open.CutHere && rule.End is BlockEnd.Stack or BlockEnd.Line ? BlockEnd.Trace : rule.End, texts => rule.Title(match, texts));
        if (_open.End == BlockEnd.Line)
        {
            Close();
        }
    }

    // "WARNING: CPU..." inside a sanitizer's block and the like does not occur; a second stall of the same storm does and is a report of its own.
    private static bool BelongsToStack(Block open, CrashRule rule) => open.End == BlockEnd.Banner && rule.End != BlockEnd.Panic && open.Severity >= rule.Severity && rule.End == BlockEnd.Banner;

    private void Continue(string line, string text)
    {
        Block open = _open!;
        if (open.Count >= MostLines)
        {
            if (open.Severity != Severity.Dead)
            {
                Close();
            }

            return;
        }

        switch (open.End)
        {
            case BlockEnd.Stack when open.SawFrames && !StackFrames.BelongsToStack(text):
                Close();
                return;
            case BlockEnd.Stack when open.Count > MostLinesBeforeStack && !open.SawFrames:
                Close();
                return;
        }

        open.Add(line, text);
        bool ended = open.End switch
        {
            BlockEnd.Trace => CrashTable.IsEndTrace(text),
            BlockEnd.Banner => CrashTable.IsBanner(text) && open.Count > 2,
            BlockEnd.Disabling => text.StartsWith("Disabling IRQ #", StringComparison.Ordinal),
            BlockEnd.Panic => CrashTable.IsEndPanic(text),
            BlockEnd.Stack => CrashTable.IsEndTrace(text) || text.Trim() is "</TASK>",
            _ => true,
        };
        if (!ended)
        {
            return;
        }

        if (open is { IsReport: true, Severity: Severity.Dead })
        {
            // All a dying kernel still says is part of its last report.
            open.Finished = true;
        }
        else
        {
            Close();
        }
    }

    private sealed class Block(int line, string? during)
    {
        private readonly List<string> _lines = [];
        private readonly List<string> _texts = [];
        private Func<IReadOnlyList<string>, string>? _title;

        public int Line { get; } = line;

        public int Count => _lines.Count;

        public Severity Severity { get; private set; }

        public BlockEnd End { get; private set; } = BlockEnd.Trace;

        public bool Finished { get; set; }

        public bool CutHere => _texts.Count > 0 && CrashTable.IsCutHere(_texts[0]);

        public bool SawFrames { get; private set; }

        private bool InStack { get; set; }

        /// <summary>A "cut here" that nothing explained is still a report.</summary>
        public bool IsReport => _title is not null || Finished;

        public void Add(string line, string text)
        {
            _lines.Add(line);
            _texts.Add(text);
            if (StackFrames.StartsStack(text))
            {
                InStack = true;
            }
            else if (InStack && StackFrames.BelongsToStack(text))
            {
                SawFrames = true;
            }
        }

        public void Name(Severity severity, BlockEnd end, Func<IReadOnlyList<string>, string> title)
        {
            Severity = severity;
            End = end;
            _title = title;
        }

        public void Worsen(Severity severity, BlockEnd end)
        {
            Severity = severity > Severity ? severity : Severity;
            End = end;
        }

        public KernelReport ToReport()
        {
            string title = _title?.Invoke(_texts) ?? $"WARNING: {(_texts.Count > 1 ? CrashTable.Clean(_texts[1]) : "without a word")}";
            string fingerprint = StackFrames.Read(_texts) is { Count: > 0 } frames ? string.Join(':', frames.Take(5)) : title;
            return new KernelReport(Severity, title, string.Join('\n', _lines), fingerprint) { During = during };
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text;
using Conformance.Results;
using Xunit;

namespace Conformance.Fixtures;

/// <summary>
/// What the fixtures know about one test beside its assertions: what its session did, what the kernel printed, the state of
/// its VM. The reporter takes it when the test is over and writes it into the test's record.
/// </summary>
public sealed class TestEvidence
{
    private static readonly ConcurrentDictionary<string, TestEvidence> Running = new();
    private static readonly ConcurrentDictionary<ITestObserver, byte> Observers = new();

    private readonly Lock _lock = new();
    private readonly List<Explanation> _notes = [];
    private readonly SortedSet<string> _needs = new(StringComparer.Ordinal);
    private readonly StringBuilder _console = new();
    private readonly List<Func<string>> _journals = [];
    private Verdict? _verdict;
    private string? _verdictReason;
    private long _started;

    internal TestEvidence(string testId) => TestId = testId;

    /// <summary>The evidence of the test that is running on this flow of control; null outside of tests.</summary>
    public static TestEvidence? Current =>
        TestContext.Current.Test is { } test && Running.TryGetValue(test.UniqueID, out TestEvidence? evidence) ? evidence : null;

    /// <summary>The test's id, as in <see cref="TestRecord.Id"/>.</summary>
    public string TestId { get; }

    /// <summary>The approved behaviour file the test was compared with, relative to its suite; null when it was not.</summary>
    public string? Snapshot { get; set; }

    /// <summary>Time the test itself took, without what a fixture did before and after it (a boot, say); null when it never began.</summary>
    internal TimeSpan? Took { get; private set; }

    /// <summary>Asks to be told when tests begin and end, for as long as this process lives.</summary>
    /// <param name="observer">Whoever watches; registering it twice changes nothing.</param>
    public static void Observe(ITestObserver observer) => Observers.TryAdd(observer, 0);

    /// <summary>Stops telling an observer.</summary>
    /// <param name="observer">As given to <see cref="Observe"/>.</param>
    public static void Forget(ITestObserver observer) => Observers.TryRemove(observer, out _);

    /// <summary>Adds what a session did. It is rendered once, after the test, and several sessions are written one after the other.</summary>
    /// <param name="render">Gives the text, a line per operation.</param>
    public void AddJournal(Func<string> render)
    {
        lock (_lock)
        {
            _journals.Add(render);
        }
    }

    /// <summary>Adds what the kernel's console said meanwhile.</summary>
    /// <param name="excerpt">Console text.</param>
    public void AddConsole(string excerpt)
    {
        lock (_lock)
        {
            _console.Append(excerpt);
            if (!excerpt.EndsWith('\n'))
            {
                _console.Append('\n');
            }
        }
    }

    /// <summary>Adds a labelled line to the failure's explanation; it is dropped when the test passes.</summary>
    /// <param name="label">A short word, for example <c>vm</c>.</param>
    /// <param name="text">What there is to say, for example <c>vCPU 0: halted</c>.</param>
    public void Note(string label, string text)
    {
        lock (_lock)
        {
            _notes.Add(new Explanation(label, text));
        }
    }

    /// <summary>Notes a capability that the claim rests on, so that reports can set what a kernel claims beside what was proved of it.</summary>
    /// <param name="capability">Its name, as the uapi headers spell it.</param>
    public void Need(string capability)
    {
        lock (_lock)
        {
            _needs.Add(capability);
        }
    }

    /// <summary>
    /// A warning, oops, lockdep or sanitizer report, or the kernel's death, belongs to this test. It makes the verdict Crash,
    /// whatever the assertions said.
    /// </summary>
    /// <param name="title">The report's title.</param>
    /// <param name="text">The report as the console had it.</param>
    public void AddKernelReport(string title, string text)
    {
        AddConsole(text);
        Decide(Verdict.Crash, title);
    }

    /// <summary>Fixes the verdict, whatever the assertions say. The first Crash stays; a Crash replaces anything else.</summary>
    /// <param name="verdict">Crash, Hang or Broken.</param>
    /// <param name="reason">One sentence.</param>
    public void Decide(Verdict verdict, string reason)
    {
        if (verdict is not (Verdict.Crash or Verdict.Hang or Verdict.Broken))
        {
            throw new ArgumentOutOfRangeException(nameof(verdict), verdict, "Only the test itself can pass, fail or skip.");
        }

        lock (_lock)
        {
            if (_verdict is null || (verdict == Verdict.Crash && _verdict != Verdict.Crash))
            {
                _verdict = verdict;
                _verdictReason = reason;
            }
        }
    }

    internal static TestEvidence Begin(string testUniqueId, string testId) =>
        Running.GetOrAdd(testUniqueId, static (_, id) => new TestEvidence(id), testId);

    internal static TestEvidence? End(string testUniqueId) =>
        Running.TryRemove(testUniqueId, out TestEvidence? evidence) ? evidence : null;

    internal static async ValueTask TellAsync(Func<ITestObserver, ValueTask> message)
    {
        foreach (ITestObserver observer in Observers.Keys)
        {
            await message(observer).ConfigureAwait(false);
        }
    }

    internal void StartClock() => _started = Stopwatch.GetTimestamp();

    internal void StopClock() => Took ??= _started == 0 ? null : Stopwatch.GetElapsedTime(_started);

    internal Collected Collect()
    {
        lock (_lock)
        {
            return new Collected(
                _verdict,
                _verdictReason,
                [.. _notes],
                [.. _needs],
                _console.Length == 0 ? null : _console.ToString(),
                _journals.Count == 0 ? null : string.Concat(_journals.Select(Render)));
        }
    }

    private static string Render(Func<string> journal)
    {
        string text = journal();
        return text.Length == 0 || text.EndsWith('\n') ? text : text + "\n";
    }

    internal sealed record Collected(
        Verdict? Verdict,
        string? VerdictReason,
        IReadOnlyList<Explanation> Notes,
        IReadOnlyList<string> Needs,
        string? Console,
        string? Journal);
}

/// <summary>Told when each test begins and ends, on the test's own flow of control.</summary>
public interface ITestObserver
{
    /// <summary>The test is about to run.</summary>
    /// <param name="evidence">Where to put what is found.</param>
    ValueTask TestStartingAsync(TestEvidence evidence);

    /// <summary>
    /// The test's body is over, also when it threw; its record is written after this. What this throws counts as thrown by the test.
    /// </summary>
    /// <param name="evidence">Where to put what is found.</param>
    ValueTask TestFinishedAsync(TestEvidence evidence);
}

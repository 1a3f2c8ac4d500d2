// SPDX-License-Identifier: MIT
using Conformance.Results;
using Xunit.Sdk;

namespace Conformance.Fixtures;

/// <summary>
/// Listens to a running test assembly and writes one record per test, the moment the test is over, to the suite's journal and
/// to whoever started the process.
/// </summary>
internal sealed class VerdictReporter : IMessageSink
{
    private const string JournalFolder = "journal";
    private const string ConsoleFolder = "console";

    private readonly int _round;
    private readonly string _suite;
    private readonly string _folder;
    private readonly Action<JournalLine> _write;
    private readonly Dictionary<string, CataloguedTest> _tests;
    private readonly Dictionary<string, VerdictClassifier.Outcome> _outcomes = [];

    public VerdictReporter(string suite, string folder, IEnumerable<CataloguedTest> tests, Action<JournalLine> write, int round = 1)
    {
        _round = round;
        _suite = suite;
        _folder = folder;
        _write = write;
        _tests = tests.ToDictionary(t => t.TestCase.UniqueID);
    }

    /// <inheritdoc/>
    public bool OnMessage(IMessageSinkMessage message)
    {
        switch (message)
        {
            case ITestStarting starting when _tests.TryGetValue(starting.TestCaseUniqueID, out CataloguedTest? test):
                _write(JournalLine.Now(JournalEvent.Begin) with { Test = test.Id });
                break;
            case ITestPassed passed:
                _outcomes[passed.TestUniqueID] = new VerdictClassifier.Outcome(Verdict.Pass, string.Empty, [], null);
                break;
            case ITestFailed failed:
                _outcomes[failed.TestUniqueID] = VerdictClassifier.Classify(failed);
                break;
            case ITestSkipped skipped:
                _outcomes[skipped.TestUniqueID] = Skipped(skipped.Reason);
                break;
            case ITestNotRun notRun:
                _outcomes[notRun.TestUniqueID] = Broken("xunit did not run it: an explicit test cannot be a claim");
                break;
            case ITestCleanupFailure cleanup:
                _outcomes[cleanup.TestUniqueID] = AfterCleanup(_outcomes.GetValueOrDefault(cleanup.TestUniqueID), VerdictClassifier.Classify(cleanup));
                break;
            case ITestFinished finished when _tests.TryGetValue(finished.TestCaseUniqueID, out CataloguedTest? test):
                Finish(test, finished);
                break;
            case IErrorMetadata errors and not ITestMessage:
                VerdictClassifier.Outcome fault = VerdictClassifier.Classify(errors);
                _write(JournalLine.Now(JournalEvent.Fault) with { Text = $"{_suite}: beside the tests: {fault.Reason}" });
                break;
        }

        return true;
    }

    /// <summary>Reports a test that cannot be run at all.</summary>
    public void Refuse(CataloguedTest test, string reason) => _write(Line(test, Broken(reason), TimeSpan.Zero, null));

    private static VerdictClassifier.Outcome Broken(string reason) => new(Verdict.Broken, reason, [], null);

    private static VerdictClassifier.Outcome Skipped(string reason) => SkipReason.TryParse(reason, out _)
        ? new VerdictClassifier.Outcome(Verdict.Skip, reason, [], null)
        : Broken($"skipped for none of the three reasons: {reason}");

    private static VerdictClassifier.Outcome AfterCleanup(VerdictClassifier.Outcome? test, VerdictClassifier.Outcome cleanup) =>
        test is null or { Verdict: Verdict.Pass or Verdict.Skip }
            ? cleanup with { Verdict = cleanup.Verdict == Verdict.Fail ? Verdict.Broken : cleanup.Verdict, Reason = $"while cleaning up: {cleanup.Reason}" }
            : test;

    // The claim of a negative control is that the suite notices: its assertion must fail.
    private static VerdictClassifier.Outcome Inverted(VerdictClassifier.Outcome outcome) => outcome.Verdict switch
    {
        Verdict.Fail => outcome with { Verdict = Verdict.Pass, Reason = $"failed, as it must: {outcome.Reason}" },
        Verdict.Pass => new VerdictClassifier.Outcome(Verdict.Fail, "a negative control passed: the suite does not notice what it must", [], null),
        _ => outcome,
    };

    private void Finish(CataloguedTest test, ITestFinished finished)
    {
        _outcomes.Remove(finished.TestUniqueID, out VerdictClassifier.Outcome? outcome);
        TestEvidence? evidence = TestEvidence.End(finished.TestUniqueID);
        _write(Line(test, outcome ?? Broken("xunit ended it without a result"), evidence?.Took ?? TimeSpan.Zero, evidence));
    }

    private JournalLine Line(CataloguedTest test, VerdictClassifier.Outcome outcome, TimeSpan duration, TestEvidence? evidence)
    {
        TestEvidence.Collected? collected = null;
        try
        {
            collected = evidence?.Collect();
        }
        catch (Exception failure) when (failure is not OutOfMemoryException)
        {
            // Rendering a journal must not cost the verdict.
            outcome = AfterCleanup(outcome, Broken($"{failure.GetType().Name}: {failure.Message}"));
        }

        if (collected?.Verdict is { } decided && decided != outcome.Verdict)
        {
            List<Explanation> explained = [.. outcome.Explained];
            if (outcome.Verdict != Verdict.Pass)
            {
                explained.Insert(0, new Explanation("test", $"{outcome.Verdict}: {outcome.Reason}"));
            }

            outcome = outcome with { Verdict = decided, Reason = collected.VerdictReason ?? string.Empty, Explained = explained };
        }

        if (test.NegativeControl)
        {
            outcome = Inverted(outcome);
        }

        bool explain = outcome.Verdict is not (Verdict.Pass or Verdict.Skip);
        List<Explanation> all = [.. outcome.Explained, .. collected?.Notes ?? []];
        if (VerdictClassifier.Where(outcome.Stack, test.Source) is { } where)
        {
            all.Add(new Explanation("at", where));
        }

        return JournalLine.Now(JournalEvent.Verdict) with
        {
            Record = new TestRecord
            {
                Id = test.Id,
                Suite = _suite,
                Verdict = outcome.Verdict,
                Reason = outcome.Reason.Length == 0 ? null : outcome.Reason,
                DurationMs = (long)Math.Round(duration.TotalMilliseconds),
                Clauses = test.Clauses,
                Needs = collected?.Needs is { Count: > 0 } needs ? needs : null,
                Snapshot = evidence?.Snapshot,
                Console = Store(ConsoleFolder, test.Id, collected?.Console),
                Journal = Store(JournalFolder, test.Id, collected?.Journal),
                Explained = explain && all.Count > 0 ? all : null,
                FixedBy = explain && test.FixedBy.Count > 0 ? test.FixedBy : null,
                Source = test.Source,
            },
        };
    }

    private string? Store(string kind, string id, string? text)
    {
        if (text is null)
        {
            return null;
        }

        string relative = _round == 1 ? $"{kind}/{id}.txt" : $"{kind}/{id}.{_round}.txt";
        string path = Path.Combine(_folder, relative);
        try
        {
            Directory.CreateDirectory(Path.Combine(_folder, kind));
            File.WriteAllText(path, text);
            return relative;
        }
        catch (IOException failure)
        {
            _write(JournalLine.Now(JournalEvent.Fault) with { Text = $"cannot write {path}: {failure.Message}", ResultsLost = true });
            return null;
        }
    }
}

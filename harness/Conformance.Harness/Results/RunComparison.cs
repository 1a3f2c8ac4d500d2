// SPDX-License-Identifier: MIT
namespace Conformance.Results;

/// <summary>What became of a test between two runs, in KernelCI's words.</summary>
public enum Change
{
    /// <summary>Passed before, does not now.</summary>
    Regression,

    /// <summary>Did not pass before, does now.</summary>
    Fixed,

    /// <summary>Was inconclusive or not there before, fails now.</summary>
    NewFailure,

    StillFailing,

    /// <summary>Was inconclusive before, passes now.</summary>
    NewPass,

    /// <summary>Not there before; does not fail.</summary>
    Appeared,

    /// <summary>There before, not now: a test that vanished proves nothing any more.</summary>
    Disappeared,

    Same,
}

/// <summary>One test in two runs.</summary>
public sealed record TestChange(string Id, Change Change, TestRecord? Before, TestRecord? After);

/// <summary>Two runs side by side: of one kernel at two times, or of two kernels.</summary>
public sealed class RunComparison
{
    private RunComparison(RunRecord before, RunRecord after, IReadOnlyList<TestChange> changes)
    {
        Before = before;
        After = after;
        Changes = changes;
    }

    public RunRecord Before { get; }

    public RunRecord After { get; }

    /// <summary>Every test of either run, ordered by id.</summary>
    public IReadOnlyList<TestChange> Changes { get; }

    public bool HasRegressions => Changes.Any(c => c.Change is Change.Regression or Change.NewFailure);

    public static RunComparison Of(RunRecord before, RunRecord after)
    {
        Dictionary<string, TestRecord> old = before.Tests.ToDictionary(t => t.Id), now = after.Tests.ToDictionary(t => t.Id);
        return new RunComparison(before, after, [.. old.Keys.Union(now.Keys).Order(StringComparer.Ordinal)
            .Select(id => Compare(id, old.GetValueOrDefault(id), now.GetValueOrDefault(id)))]);
    }

    private static TestChange Compare(string id, TestRecord? before, TestRecord? after)
    {
        State? was = StateOf(before), isNow = StateOf(after);
        return new TestChange(id, (was, isNow) switch
        {
            (_, null) => Change.Disappeared,
            (State.Pass, State.Fail) => Change.Regression,
            (State.Fail, State.Pass) => Change.Fixed,
            (State.Fail, State.Fail) => Change.StillFailing,
            (_, State.Fail) => Change.NewFailure,
            (State.Inconclusive, State.Pass) => Change.NewPass,
            (null, _) => Change.Appeared,
            // A pass that became a skip is a capability that vanished.
            (State.Pass, State.Inconclusive) => Change.Disappeared,
            _ => Change.Same,
        }, before, after);
    }

    private static State? StateOf(TestRecord? test) => test?.Verdict switch
    {
        null => null,
        Verdict.Pass => State.Pass,
        Verdict.Fail or Verdict.Crash or Verdict.Hang => State.Fail,
        _ => State.Inconclusive,
    };

    private enum State
    {
        Pass,
        Fail,
        Inconclusive,
    }
}

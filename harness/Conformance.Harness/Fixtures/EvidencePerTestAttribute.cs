// SPDX-License-Identifier: MIT
using System.Reflection;
using Xunit.v3;

namespace Conformance.Fixtures;

/// <summary>Put on a suite's assembly: tells the <see cref="ITestObserver"/>s of every test that begins and ends.</summary>
[AttributeUsage(AttributeTargets.Assembly)]
public sealed class EvidencePerTestAttribute : BeforeAfterTestAttribute
{
    /// <inheritdoc/>
    public override void Before(MethodInfo methodUnderTest, IXunitTest test)
    {
        TestEvidence evidence = Tell(test, static (observer, evidence) => observer.TestStartingAsync(evidence));
        evidence.StartClock();
    }

    /// <inheritdoc/>
    public override void After(MethodInfo methodUnderTest, IXunitTest test)
    {
        TestEvidence.Begin(test.UniqueID, TestId.Of(test)).StopClock();
        Tell(test, static (observer, evidence) => observer.TestFinishedAsync(evidence));
    }

    private static TestEvidence Tell(IXunitTest test, Func<ITestObserver, TestEvidence, ValueTask> message)
    {
        TestEvidence evidence = TestEvidence.Begin(test.UniqueID, TestId.Of(test));

        // xunit asks synchronously; from the pool no observer can wait for the thread that waits for it.
        Task.Run(() => TestEvidence.TellAsync(observer => message(observer, evidence)).AsTask()).GetAwaiter().GetResult();
        return evidence;
    }
}

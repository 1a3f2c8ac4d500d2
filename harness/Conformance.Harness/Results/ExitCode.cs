// SPDX-License-Identifier: MIT
namespace Conformance.Results;

/// <summary>
/// What the command's exit status says. When several apply, the one that matters most to whoever reads it wins:
/// <list type="number">
/// <item><see cref="BadUsage"/>: nothing was tried.</item>
/// <item><see cref="MachineFault"/> because results could not be stored: the files no longer say what the status would.</item>
/// <item><see cref="KernelDied"/>, then <see cref="ClaimFailed"/>: findings about the kernel are never hidden by gaps elsewhere.</item>
/// <item><see cref="MachineFault"/> for any other reason, then <see cref="ResultsMissing"/>: why the answer is incomplete.</item>
/// <item><see cref="Clean"/>.</item>
/// </list>
/// A run in which every claim was skipped is <see cref="ResultsMissing"/>: nothing ran. An interrupted run is judged like any
/// other, and the tests it did not reach are missing.
/// </summary>
public static class ExitCode
{
    /// <summary>Nothing wrong.</summary>
    public const int Clean = 0;

    /// <summary>A claim failed.</summary>
    public const int ClaimFailed = 1;

    /// <summary>Nothing ran, or results are missing.</summary>
    public const int ResultsMissing = 2;

    /// <summary>The kernel crashed or hung.</summary>
    public const int KernelDied = 3;

    /// <summary>The harness or the machine is at fault.</summary>
    public const int MachineFault = 4;

    /// <summary>The command line, or something it names, is wrong.</summary>
    public const int BadUsage = 64;

    /// <summary>The exit code of finished runs, one per kernel.</summary>
    /// <param name="runs">The runs.</param>
    /// <param name="resultsLost">Whether some result could not be written to disk.</param>
    public static int Of(IEnumerable<RunRecord> runs, bool resultsLost = false)
    {
        bool any = false, died = false, failed = false, fault = false, missing = false;
        foreach (RunRecord run in runs)
        {
            fault |= run.Faults is { Count: > 0 };
            missing |= run.Missing is { Count: > 0 };
            foreach (TestRecord test in run.Tests)
            {
                any |= test.Verdict != Verdict.Skip;
                died |= test.Verdict is Verdict.Crash or Verdict.Hang;
                failed |= test.Verdict is Verdict.Fail;
                fault |= test.Verdict is Verdict.Broken;
            }
        }

        return resultsLost ? MachineFault
            : died ? KernelDied
            : failed ? ClaimFailed
            : fault ? MachineFault
            : missing || !any ? ResultsMissing
            : Clean;
    }
}

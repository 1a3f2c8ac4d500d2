// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>How a suite's process ended.</summary>
/// <param name="ExitCode">Its exit code; 128 and the signal's number when a signal ended it.</param>
/// <param name="Stalled">Whether it was killed because nothing more came from it.</param>
/// <param name="LastWords">The end of what it wrote to standard error.</param>
internal sealed record SuiteEnd(int ExitCode, bool Stalled, string LastWords)
{
    private const int SignalBase = 128;

    public override string ToString() =>
        Stalled ? "stopped answering and was killed"
        : ExitCode > SignalBase ? $"was killed by signal {ExitCode - SignalBase}"
        : $"ended with exit code {ExitCode}";
}

/// <summary>What is needed to start a suite.</summary>
/// <param name="Tether">The program that ends the suite when this one is gone.</param>
/// <param name="Executable">The suite.</param>
/// <param name="Environment">Variables to set.</param>
/// <param name="Log">File that standard error is appended to.</param>
/// <param name="TestLimit">Longest time a test may take before the process counts as stalled.</param>
/// <param name="IdleLimit">Longest time between tests, a boot included.</param>
internal sealed record SuiteLaunch(
    string Tether,
    string Executable,
    IReadOnlyDictionary<string, string?> Environment,
    string Log,
    TimeSpan TestLimit,
    TimeSpan IdleLimit);

/// <summary>Runs one process of a suite and hands on what it reports.</summary>
internal static class SuiteProcess
{
    private const int LastWordsLines = 20;
    private static readonly TimeSpan EndLimit = TimeSpan.FromSeconds(30);

    /// <summary>Starts the process and returns when it has ended, in whatever way.</summary>
    /// <param name="launch">What to start.</param>
    /// <param name="report">Gets every line the process reports, in order.</param>
    /// <param name="cancellation">Ends the process, and with it everything it started.</param>
    /// <exception cref="MachineFaultException">It cannot be started.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; the process is gone.</exception>
    public static async Task<SuiteEnd> RunAsync(SuiteLaunch launch, Action<JournalLine> report, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        using Process process = Start(launch);
        Task<string> lastWords = KeepErrorsAsync(process.StandardError, launch.Log);
        bool stalled = false;
        try
        {
            stalled = !await ReadAsync(process.StandardOutput, launch, report, cancellation).ConfigureAwait(false);
        }
        finally
        {
            // At the end of its input tether kills the suite, and what the suite started is tethered to the suite.
            process.StandardInput.Close();
            await EndAsync(process).ConfigureAwait(false);
        }

        return new SuiteEnd(process.ExitCode, stalled, await lastWords.ConfigureAwait(false));
    }

    private static Process Start(SuiteLaunch launch)
    {
        ProcessStartInfo start = new(launch.Tether)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            ArgumentList = { launch.Executable },
        };
        foreach ((string name, string? value) in launch.Environment)
        {
            start.Environment[name] = value;
        }

        try
        {
            return Process.Start(start) ?? throw new MachineFaultException($"{launch.Tether} did not start.");
        }
        catch (Win32Exception failure)
        {
            throw new MachineFaultException($"{launch.Tether} cannot be started: {failure.Message}.", failure);
        }
    }

    /// <returns>False when nothing came for too long.</returns>
    private static async Task<bool> ReadAsync(StreamReader output, SuiteLaunch launch, Action<JournalLine> report, CancellationToken cancellation)
    {
        TimeSpan limit = launch.IdleLimit;
        bool booting = false;
        while (true)
        {
            // What is read already would otherwise still be reported.
            cancellation.ThrowIfCancellationRequested();
            string? text;
            try
            {
                text = await output.ReadLineAsync(CancellationToken.None).AsTask().WaitAsync(limit, cancellation).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                return false;
            }

            if (text is null)
            {
                return true;
            }

            if (JournalLine.Parse(text) is { } line)
            {
                report(line);
                booting = line.Event == JournalEvent.Boot || (booting && line.Event != JournalEvent.Target);
                limit = line.Event switch
                {
                    JournalEvent.Close => EndLimit,

                    // A kernel boots while the first test that wants it waits.
                    _ when booting => launch.IdleLimit,
                    JournalEvent.Begin or JournalEvent.Target => launch.TestLimit,
                    JournalEvent.Verdict => launch.IdleLimit,
                    _ => limit,
                };
            }
        }
    }

    private static async Task EndAsync(Process process)
    {
        try
        {
            await process.WaitForExitAsync(CancellationToken.None).WaitAsync(EndLimit).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    private static async Task<string> KeepErrorsAsync(StreamReader errors, string log)
    {
        Queue<string> last = new();
        StreamWriter? file = null;
        try
        {
            while (await errors.ReadLineAsync().ConfigureAwait(false) is { } line)
            {
                if (last.Count == LastWordsLines)
                {
                    last.Dequeue();
                }

                last.Enqueue(line);
                try
                {
                    file ??= new StreamWriter(log, append: true) { AutoFlush = true };
                    await file.WriteLineAsync(line).ConfigureAwait(false);
                }
                catch (IOException failure)
                {
                    // The process must not block on a full pipe because the disk is full.
                    last.Enqueue($"({log}: {failure.Message})");
                }
            }
        }
        finally
        {
            if (file is not null)
            {
                await file.DisposeAsync().ConfigureAwait(false);
            }
        }

        return string.Join('\n', last);
    }
}

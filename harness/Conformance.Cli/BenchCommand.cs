// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary>
/// <c>conformance bench boot</c>: what this project costs on top of the kernel's own boot, as ratios of medians taken in turns,
/// so that a slow or busy machine is slow for both.
/// </summary>
internal sealed class BenchCommand(Installation installation, Prepare prepare, CommandOutput output)
{
    public const string DefaultClaim = "IrqBypass.MsiRoute.SignalledIrqfdDeliversTheRoutedVectorOnce";
    public const int DefaultRounds = 5;

    private const double FirstVerdictLimit = 1.3;
    private const double CommandLimit = 1.6;
    private const double ClaimLimitMs = 30;

    /// <summary>Measures and prints.</summary>
    /// <param name="kernel">The kernel's specification.</param>
    /// <param name="claim">The id of one claim.</param>
    /// <param name="rounds">How often each is measured.</param>
    /// <param name="cancellation">Ends it.</param>
    /// <returns>0 when every ratio is within its limit, 1 when one is not.</returns>
    /// <exception cref="MachineFaultException">Something could not be measured.</exception>
    public async Task<int> BootAsync(string kernel, string claim, int rounds, CancellationToken cancellation)
    {
        string folder = Directory.CreateTempSubdirectory("conformance-bench-").FullName;
        try
        {
            PreparedKernel prepared = await prepare(
                KernelSpec.Parse(kernel),
                new PrepareOptions { AgentPath = installation.Agent(KernelArchitecture.X86_64), GuestsDirectory = installation.Guests },
                new Progress<string>(),
                cancellation).ConfigureAwait(false);
            string initramfs = Path.Combine(folder, "bare.cpio");
            string init = Path.Combine(installation.Build, $"poweroff-{prepared.Architecture.MachineName()}");
            await BareBoot.WriteInitramfsAsync(initramfs, init, cancellation).ConfigureAwait(false);
            List<double> bare = [], first = [], whole = [];
            for (int round = 0; round < rounds; round++)
            {
                bare.Add((await BareBoot.MeasureAsync(prepared, new MachineOptions(), initramfs, installation.Tether, cancellation)
                    .ConfigureAwait(false)).TotalMilliseconds);
                (double verdict, double end) = await RunAsync(kernel, ["--test", claim], Path.Combine(folder, "one"), cancellation).ConfigureAwait(false);
                first.Add(verdict);
                whole.Add(end);
            }

            // Among its suite's claims it is rarely the first, so that what only the first pays for is not counted.
            await RunAsync(kernel, ["--suite", claim.Split('.')[0]], Path.Combine(folder, "suite"), cancellation).ConfigureAwait(false);
            TestRecord one = Records(Path.Combine(folder, "suite")).Single(t => t.Id == claim);
            double boot = Median(bare);
            output.Out.WriteLine($"{prepared.Id}, {rounds.ToString(CultureInfo.InvariantCulture)} rounds, medians");
            output.Out.WriteLine($"bare boot       {Ms(boot)}");
            bool good = Line("first verdict", Median(first), boot, FirstVerdictLimit);
            good &= Line("whole command", Median(whole), boot, CommandLimit);
            bool cheap = one.DurationMs <= ClaimLimitMs;
            output.Out.WriteLine($"one claim       {Ms(one.DurationMs)}           limit {Ms(ClaimLimitMs)}{(cheap ? string.Empty : "   over")}");
            return good && cheap ? ExitCode.Clean : ExitCode.ClaimFailed;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static double Median(List<double> values)
    {
        values.Sort();
        return values.Count % 2 == 1 ? values[values.Count / 2] : (values[(values.Count / 2) - 1] + values[values.Count / 2]) / 2;
    }

    private static string Ms(double value) => value.ToString("0", CultureInfo.InvariantCulture).PadLeft(6) + " ms";

    private static IEnumerable<TestRecord> Records(string folder) =>
        Directory.EnumerateFiles(folder, ResultsFolder.FileName, SearchOption.AllDirectories).SelectMany(f => ResultsJson.Read(f).Tests);

    private bool Line(string what, double median, double boot, double limit)
    {
        double ratio = median / boot;
        output.Out.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{what,-15} {Ms(median)}   x {ratio:0.00}   limit x {limit:0.0}{(ratio <= limit ? string.Empty : "   over")}"));
        return ratio <= limit;
    }

    /// <summary>Runs the command as anybody would, from its launcher.</summary>
    /// <returns>Milliseconds to the first verdict, and to the command's end.</returns>
    private async Task<(double FirstVerdict, double End)> RunAsync(
        string kernel, IReadOnlyList<string> what, string folder, CancellationToken cancellation)
    {
        ProcessStartInfo start = new(Path.Combine(installation.Root, "conformance")) { RedirectStandardOutput = true };
        foreach (string argument in (IEnumerable<string>)["run", "--kernel", kernel, "--output", folder, .. what])
        {
            start.ArgumentList.Add(argument);
        }

        DateTimeOffset began = DateTimeOffset.UtcNow;
        long clock = Stopwatch.GetTimestamp();
        using Process process = Process.Start(start) ?? throw new MachineFaultException("The launcher did not start.");
        string text = await process.StandardOutput.ReadToEndAsync(cancellation).ConfigureAwait(false);
        await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
        TimeSpan end = Stopwatch.GetElapsedTime(clock);
        if (process.ExitCode != ExitCode.Clean)
        {
            throw new MachineFaultException($"conformance run {string.Join(' ', what)} ended with exit code {process.ExitCode}.\n{text}");
        }

        DateTimeOffset verdict = Directory.EnumerateDirectories(folder)
            .Where(d => Path.GetFileName(d) != KernelRun.PreviousFolder)
            .SelectMany(ResultsJournal.In)
            .SelectMany(ResultsJournal.Read)
            .Where(l => l.Event == JournalEvent.Verdict)
            .Min(l => l.At);
        return ((verdict - began).TotalMilliseconds, end.TotalMilliseconds);
    }
}

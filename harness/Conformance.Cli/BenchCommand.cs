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

    private const double ClaimLimitMs = 30;

    /// <summary>A class with several short tests, for what a fresh kernel costs each.</summary>
    private const string Family = "KvmXen.Configuration";

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
            string swapped = CopyOfItsOwn(prepared, "kvm", folder);
            string suite = claim.Split('.')[0];

            // What is kept between runs is made before anything is measured.
            await RunAsync(kernel, ["--test", claim], folder, cancellation).ConfigureAwait(false);
            Samples bare = new(), booted = new(), restored = new(), module = new(), shared = new(), fresh = new();
            for (int round = 0; round < rounds; round++)
            {
                bare.Add(await BareBoot.MeasureAsync(prepared, new MachineOptions(), initramfs, installation.Tether, cancellation).ConfigureAwait(false));
                booted.Add(await RunAsync(kernel, ["--fresh-boot", "--test", claim], folder, cancellation).ConfigureAwait(false));
                restored.Add(await RunAsync(kernel, ["--test", claim], folder, cancellation).ConfigureAwait(false));
                module.Add(await RunAsync(kernel, ["--module", $"kvm.ko={swapped}", "--test", claim], folder, cancellation).ConfigureAwait(false));
                shared.Add(await RunAsync(kernel, ["--test", Family], folder, cancellation).ConfigureAwait(false));
                fresh.Add(await RunAsync(kernel, ["--isolation", "test", "--test", Family], folder, cancellation).ConfigureAwait(false));
            }

            // Among its suite's claims it is rarely the first, so that what only the first pays for is not counted.
            Run whole = await RunAsync(kernel, ["--suite", suite], folder, cancellation).ConfigureAwait(false);
            double boot = bare.End;
            output.Out.WriteLine($"{prepared.Id}, {rounds.ToString(CultureInfo.InvariantCulture)} rounds, medians");
            output.Out.WriteLine($"{"bare boot",-40} {Ms(boot)}");
            bool good = Line("booted: first verdict", booted.First, boot, 1.3);
            good &= Line("booted: whole command", booted.End, boot, 1.6);
            good &= Line("restored: first verdict", restored.First, boot, 0.25);
            good &= Line("restored: whole command", restored.End, boot, 0.5);
            good &= Line("restored: swapped module's first verdict", module.First, boot, 0.5);
            good &= Line("restored: a fresh kernel for a test", (fresh.End - shared.End) / (fresh.Tests - 1), boot, 0.1);
            double one = whole.Records.Single(t => t.Id == claim).DurationMs;
            output.Out.WriteLine($"{"one claim",-40} {Ms(one)}           limit {Ms(ClaimLimitMs)}{(one <= ClaimLimitMs ? string.Empty : "   over")}");
            return good && one <= ClaimLimitMs ? ExitCode.Clean : ExitCode.ClaimFailed;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Ms(double value) => value.ToString("0", CultureInfo.InvariantCulture).PadLeft(6) + " ms";

    /// <summary>A module of the kernel as a file of its own, which <c>--module</c> takes for another build of it.</summary>
    private static string CopyOfItsOwn(PreparedKernel kernel, string module, string folder)
    {
        string file = Directory.EnumerateFiles(Path.GetDirectoryName(kernel.ImagePath)!, $"{module}.ko*", SearchOption.AllDirectories).FirstOrDefault()
            ?? throw new MachineFaultException($"{kernel.Id} has no {module}.ko beside its image to measure with.");
        string copy = Path.Combine(folder, Path.GetFileName(file));
        File.Copy(file, copy);
        return copy;
    }

    private bool Line(string what, double median, double boot, double limit)
    {
        double ratio = median / boot;
        output.Out.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{what,-40} {Ms(median)}   x {ratio:0.00}   limit x {limit:0.00}{(ratio <= limit ? string.Empty : "   over")}"));
        return ratio <= limit;
    }

    /// <summary>Runs the command as anybody would, from its launcher.</summary>
    private async Task<Run> RunAsync(
        string kernel, IReadOnlyList<string> what, string scratch, CancellationToken cancellation)
    {
        string folder = Path.Combine(scratch, "results");
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
        TestRecord[] records = [.. Directory.EnumerateFiles(folder, ResultsFolder.FileName, SearchOption.AllDirectories)
            .Where(f => !f.Contains(KernelRun.PreviousFolder, StringComparison.Ordinal)).SelectMany(f => ResultsJson.Read(f).Tests)];
        return new Run(verdict - began, end, records);
    }

    /// <summary>One command: time to its first verdict and to its end.</summary>
    private sealed record Run(TimeSpan FirstVerdict, TimeSpan End, IReadOnlyList<TestRecord> Records);

    /// <summary>Medians, in milliseconds.</summary>
    private sealed class Samples
    {
        private readonly List<double> _first = [];
        private readonly List<double> _end = [];

        public double First => Median(_first);

        public double End => Median(_end);

        public int Tests { get; private set; }

        public void Add(TimeSpan end) => _end.Add(end.TotalMilliseconds);

        public void Add(Run run)
        {
            _first.Add(run.FirstVerdict.TotalMilliseconds);
            Add(run.End);
            Tests = run.Records.Count;
        }

        private static double Median(List<double> values)
        {
            double[] sorted = [.. values.Order()];
            return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>Makes a kernel ready to be started; a test may do it without an archive.</summary>
internal delegate Task<PreparedKernel> Prepare(KernelSpec spec, PrepareOptions options, IProgress<string> progress, CancellationToken cancellation);

/// <summary><c>conformance run</c>.</summary>
internal sealed class RunCommand(Installation installation, Prepare prepare, CommandOutput output)
{
    /// <summary>With fewer suites than this for each machine at work some would stand idle at the end.</summary>
    private const int PartsPerJob = 3;

    /// <summary>Runs the suites on the kernels and prints what came of it.</summary>
    /// <param name="request">What was asked for.</param>
    /// <param name="cancellation">Ends the run; what is known by then is kept and counted.</param>
    /// <returns>An <see cref="ExitCode"/>.</returns>
    /// <exception cref="UsageException">Something named does not exist.</exception>
    /// <exception cref="MachineFaultException">The machine cannot do it.</exception>
    public async Task<int> RunAsync(RunRequest request, CancellationToken cancellation)
    {
        long started = Stopwatch.GetTimestamp();
        List<KernelSpec> specs = [.. request.Kernels.Distinct().Select(KernelSpec.Parse)];
        KernelArchitecture architecture = ArchitectureOf(request, specs);
        IReadOnlyDictionary<string, string> modules = request.ParseModules();
        IReadOnlyList<SuiteAssembly> all = SuiteAssembly.LoadAll(installation);
        Ledgers ledgers = Ledgers.Load(installation, request.KnownFailures, all);
        IReadOnlyList<SelectedSuite> suites =
            Selection.Choose(all, request.Suites, request.Tests, architecture, request.NegativeControls);
        if (suites.Count == 0)
        {
            output.Error.WriteLine("conformance: nothing to run: no claim is left by --suite, --test and --arch.");
            return ExitCode.ResultsMissing;
        }

        Shard? shard = request.ParseShard();
        IReadOnlyList<string> devices = request.ParseVfioDevices(specs);
        Require(installation.Tether);
        Require(installation.Agent(architecture));
        ClauseIndex clauses = ClauseIndex.Load(installation.Clauses);
        using RunView view = new(output, request.Verbose, (test, kernel) => FailureText.Lines(
            test,
            kernel,
            Path.Combine(request.Output, kernel.Id),
            FailureText.Again(request, kernel.Source, test.Id),
            clauses.SourceOf));
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        List<KernelRun> runs = [];
        try
        {
            foreach (KernelSpec spec in specs)
            {
                runs.Add(await PrepareAsync(spec, request, architecture, modules, ledgers, view, request.FailFast ? stop.Cancel : null, cancellation).ConfigureAwait(false));
            }
        }
        catch (OperationCanceledException)
        {
            output.Error.WriteLine("conformance: interrupted before anything ran.");
            return ExitCode.ResultsMissing;
        }

        runs = [.. runs.DistinctBy(r => r.Kernel.Id)];
        if (request.DryRun)
        {
            view.Dispose();
            return await new DryRun(installation, output).WriteAsync([.. runs.Select(r => r.Kernel)], suites, request, shard, cancellation).ConfigureAwait(false);
        }

        foreach (KernelRun run in runs)
        {
            await OpenAsync(run, devices, cancellation).ConfigureAwait(false);
        }

        await RunAllAsync(runs, suites, request, stop.Token).ConfigureAwait(false);
        List<(KernelRun Run, RunRecord Record)> finished = [.. runs.Select(r => (r, r.Finish()))];
        view.Dispose();
        new RunSummary(output).Write(finished, request.Output, Stopwatch.GetElapsedTime(started), cancellation.IsCancellationRequested ? " (interrupted)" : stop.IsCancellationRequested ? " (ended at the first red verdict)" : string.Empty);
        return ExitCode.Of(finished.Select(f => f.Record), finished.Exists(f => f.Run.ResultsLost));
    }

    private static KernelArchitecture ArchitectureOf(RunRequest request, List<KernelSpec> specs)
    {
        KernelArchitecture? asked = request.ParseArchitecture();
        List<KernelArchitecture> named = [.. specs.OfType<KernelSpec.Debian>().Select(s => s.Architecture).OfType<KernelArchitecture>().Distinct()];
        return asked ?? named.Count switch
        {
            0 => specs.TrueForAll(s => s is KernelSpec.Host) ? KernelArchitectures.OfThisMachine ?? KernelArchitecture.X86_64 : KernelArchitecture.X86_64,
            1 => named[0],
            _ => throw new UsageException("The kernels are of different architectures; run each architecture by itself."),
        };
    }

    private static async Task OpenAsync(KernelRun run, IReadOnlyList<string> devices, CancellationToken cancellation)
    {
        try
        {
            await run.OpenAsync(devices, cancellation).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new MachineFaultException($"{run.Folder} cannot be written: {failure.Message} Choose another folder with --output.", failure);
        }
    }

    private static void Require(string path)
    {
        if (!File.Exists(path))
        {
            throw new MachineFaultException($"{path} is not built. ./conformance builds what it needs; or run: make -C harness/Agent OUT={Path.GetDirectoryName(path)}");
        }
    }

    private async Task<KernelRun> PrepareAsync(
        KernelSpec spec,
        RunRequest request,
        KernelArchitecture architecture,
        IReadOnlyDictionary<string, string> modules,
        Ledgers ledgers,
        RunView view,
        Action? red,
        CancellationToken cancellation)
    {
        PrepareOptions options = new()
        {
            Architecture = architecture,
            ModuleOverrides = modules,
            AgentPath = installation.Agent(architecture),
            GuestsDirectory = installation.Guests,
            Offline = request.Offline,
        };
        PreparedKernel kernel = await prepare(spec, options, new Told(view, spec.Text), cancellation).ConfigureAwait(false);
        foreach (string note in kernel.Notes)
        {
            view.Say($"{spec.Text}: {note}");
        }

        // A negative control says nothing about the kernel.
        Expectations expected = request.NegativeControls
            ? new Expectations()
            : Expectations.Of(kernel, ledgers.Known, ledgers.Capabilities, DateOnly.FromDateTime(DateTime.UtcNow));
        return new KernelRun(installation, request, kernel, expected, view) { Red = red };
    }

    /// <summary>Suites on emulated kernels run side by side, in parts when there are few of them; what shares its kernel with others runs alone on it.</summary>
    private static async Task RunAllAsync(
        List<KernelRun> runs, IReadOnlyList<SelectedSuite> suites, RunRequest request, CancellationToken cancellation)
    {
        int jobs = request.Jobs ?? RunRequest.DefaultJobs;
        using SemaphoreSlim places = new(jobs);
        bool split = runs.Count * suites.Count < PartsPerJob * jobs;
        IEnumerable<Task> all = runs.SelectMany(run => run.IsShared
            ? [InTurnAsync(suites.Select<SelectedSuite, Func<Task>>(s => () => RunOneAsync(run, s, places, cancellation)))]
            : suites.SelectMany(s => split ? s.Split(Math.Clamp(TestsOf(s, request) / request.TestsPerPart, 1, jobs)) : [s]).Select(s => RunOneAsync(run, s, places, cancellation)));
        await Task.WhenAll(all).ConfigureAwait(false);
    }

    private static int TestsOf(SelectedSuite suite, RunRequest request) => Selection.Declared(suite, request.NegativeControls).Count();

    private static async Task InTurnAsync(IEnumerable<Func<Task>> all)
    {
        foreach (Func<Task> one in all)
        {
            await one().ConfigureAwait(false);
        }
    }

    private static async Task RunOneAsync(KernelRun run, SelectedSuite suite, SemaphoreSlim places, CancellationToken cancellation)
    {
        try
        {
            await places.WaitAsync(cancellation).ConfigureAwait(false);
            try
            {
                await run.RunAsync(suite, cancellation).ConfigureAwait(false);
            }
            finally
            {
                places.Release();
            }
        }
        catch (OperationCanceledException)
        {
            run.Abandon(suite);
        }
    }

    /// <summary>Reports at once, on the caller's thread: a line that arrives after what it announces is of no use.</summary>
    private sealed class Told(RunView view, string kernel) : IProgress<string>
    {
        public void Report(string value) => view.Say($"{kernel}: {value}");
    }
}

// SPDX-License-Identifier: MIT
using System.Text.Json;
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary>The suites of one run on one kernel, and what came of them.</summary>
internal sealed class KernelRun
{
    /// <summary>Where in the output folder the results of the run before are kept.</summary>
    public const string PreviousFolder = "previous";

    private static readonly TimeSpan IdleLimit = TimeSpan.FromMinutes(20);

    private readonly Lock _lock = new();
    private readonly List<JournalLine> _lines = [];
    private readonly HashSet<string> _abandoned = new(StringComparer.Ordinal);
    private readonly Installation _installation;
    private readonly RunRequest _request;
    private readonly RunView _view;
    private readonly Expectations _expected;
    private readonly Shard? _shard;

    public KernelRun(Installation installation, RunRequest request, PreparedKernel kernel, Expectations expected, RunView view)
    {
        _expected = expected;
        _shard = request.ParseShard();
        _installation = installation;
        _request = request;
        _view = view;
        Kernel = kernel;
        Identity = KernelIdentity.Of(kernel);
        Folder = Path.GetFullPath(Path.Combine(request.Output, kernel.Id));
    }

    public PreparedKernel Kernel { get; }

    public KernelIdentity Identity { get; }

    /// <summary>Where the kernel's results go.</summary>
    public string Folder { get; }

    /// <summary>Called at every verdict that is red.</summary>
    public Action? Red { get; init; }

    /// <summary>Whether the kernel runs something else than this: then two suites at once would see each other's VMs and memory.</summary>
    public bool IsShared => !Kernel.IsBooted;

    /// <summary>Whether something could not be written to disk.</summary>
    public bool ResultsLost { get; private set; }

    private string PreparedFile => Path.Combine(Folder, "prepared.json");

    private string MachineFile => Path.Combine(Folder, "machine.json");

    /// <summary>Makes room for the results: those of an earlier run are finished and moved to <c>previous</c>.</summary>
    /// <param name="vfioDevices">PCI functions that the Vfio suite may take of a kernel that is there.</param>
    /// <exception cref="IOException">The folder cannot be made or written.</exception>
    public async Task OpenAsync(IReadOnlyList<string> vfioDevices, CancellationToken cancellation)
    {
        if (Directory.Exists(Folder) && (ResultsJournal.In(Folder).Count > 0 || File.Exists(Path.Combine(Folder, ResultsFolder.FileName))))
        {
            if (ResultsFolder.NeedsMerge(Folder) && ResultsFolder.Merge(Folder) is { } unfinished)
            {
                ResultsFolder.Write(Folder, unfinished);
            }

            string previous = Path.Combine(Path.GetDirectoryName(Folder)!, PreviousFolder, Kernel.Id);
            if (Directory.Exists(previous))
            {
                Directory.Delete(previous, recursive: true);
            }

            Directory.CreateDirectory(Path.GetDirectoryName(previous)!);
            Directory.Move(Folder, previous);
        }

        Directory.CreateDirectory(Folder);
        await Kernel.SaveAsync(PreparedFile, cancellation).ConfigureAwait(false);
        _expected.Write(Folder);
        MachineOptions machine = new()
        {
            SnapshotDirectory = Path.Combine(CacheDirectory.Default, InstantKernels.Folder),
            FreshBoot = _request.FreshBoot, ExtraKernelArguments = _request.Append, Isolation = _request.Isolation, VfioDevices = vfioDevices,
        };
        await File.WriteAllBytesAsync(
            MachineFile,
            JsonSerializer.SerializeToUtf8Bytes(machine, MachineJson.Default.MachineOptions),
            cancellation).ConfigureAwait(false);
    }

    /// <summary>Runs a suite to its end: a process that dies or stalls costs the test it was at, and the next one goes on.</summary>
    /// <param name="selected">The suite and its patterns.</param>
    /// <param name="cancellation">Ends it; what is known by then is kept.</param>
    public async Task RunAsync(SelectedSuite selected, CancellationToken cancellation)
    {
        string part = $"{Kernel.Id} {selected.Name}";
        Write(selected, Opening(selected));
        Progress progress = new();
        try
        {
            for (int round = 1; _request.Repeat == 0 || round <= _request.Repeat; round++)
            {
                progress = new Progress();
                IReadOnlyList<string>? only = null;
                do
                {
                    _view.Now(part, $"{selected.Name}: booting {Kernel.Id}");
                    SuiteLaunch launch = Launch(selected, only, round);
                    progress.Start();
                    SuiteEnd end = await SuiteProcess.RunAsync(launch, line => Take(selected, part, line, progress), cancellation).ConfigureAwait(false);
                    only = AfterEnd(selected, progress, end);
                }
                while (only is { Count: > 0 });

                // Another round of a suite that cannot run, or has nothing to, would be as empty.
                if (!progress.Closed || progress.Planned is not { Count: > 0 })
                {
                    break;
                }
            }
        }
        catch (MachineFaultException failure)
        {
            Fault(selected, $"{selected.Name}: {failure.Message}");
        }
        catch (IOException failure)
        {
            Lost(failure.Message);
            Fault(selected, $"{selected.Name}: {failure.Message}");
        }
        finally
        {
            if (progress.Planned is null)
            {
                Abandon(selected);
            }

            _view.Now(part, null);
        }
    }

    /// <summary>Records what a suite that never got to its own plan was to run, so that it is missing and not forgotten.</summary>
    /// <param name="selected">The suite and its patterns.</param>
    public void Abandon(SelectedSuite selected)
    {
        lock (_lock)
        {
            if (!_abandoned.Add(selected.Name))
            {
                return;
            }
        }

        Write(selected, Opening(selected));

        // Which rows of a theory are in a part is not known: all of it is missing.
        Shard part = PartOf(selected);
        string[] ids = [.. Selection.Declared(selected, _request.NegativeControls).Where(t => t.IsTheory || part.Has(t.Id)).Select(t => t.Id)];
        Write(selected, JournalLine.Now(JournalEvent.Plan) with { Suite = selected.Suite.Name, Tests = ids });
    }

    /// <summary>The run so far, from what was reported, and stored where that was possible.</summary>
    public RunRecord Finish()
    {
        RunRecord run = ResultsFolder.Merge(_lines, _expected) ?? new RunRecord
        {
            SuiteVersion = "unknown",
            Kernel = Identity,
            Started = DateTimeOffset.UtcNow,
        };
        try
        {
            ResultsFolder.Write(Folder, run);
        }
        catch (IOException failure)
        {
            Lost(failure.Message);
        }

        return run;
    }

    private Shard PartOf(SelectedSuite selected) => (_shard ?? new Shard(1, 1)).Part(selected.Part.Number, selected.Part.Count);

    private JournalLine Opening(SelectedSuite selected) =>
        JournalLine.Now(JournalEvent.Open) with { Suite = selected.Suite.Name, SuiteVersion = selected.Suite.Version, Kernel = Identity, Shard = _shard?.ToString() };

    private SuiteLaunch Launch(SelectedSuite selected, IReadOnlyList<string>? only, int round)
    {
        string file = Path.Combine(Folder, $"selection-{selected.Name}.json");
        Shard part = PartOf(selected);
        new TestSelection
        {
            Patterns = selected.Patterns, Only = only, NegativeControls = _request.NegativeControls,
            Shard = part.Count == 1 ? null : part, Round = round, Journal = selected.Name,
        }.Write(file);
        return new SuiteLaunch(
            _installation.Tether,
            selected.Suite.Executable,
            new Dictionary<string, string?>
            {
                [SuiteEnvironment.PreparedVariable] = PreparedFile,
                [SuiteEnvironment.MachineVariable] = MachineFile,
                [SuiteEnvironment.OutputVariable] = Folder,
                [SuiteEnvironment.CacheVariable] = CacheDirectory.Default,
                [SuiteEnvironment.BuildVariable] = _installation.Build,
                [SuiteEnvironment.SelectionVariable] = file,
            },
            Path.Combine(Folder, $"suite-{selected.Name}.log"),
            TimeSpan.FromSeconds(_request.TestTimeout),
            IdleLimit);
    }

    private void Take(SelectedSuite selected, string part, JournalLine line, Progress progress)
    {
        Remember(line);
        switch (line.Event)
        {
            case JournalEvent.Plan when progress.Planned is null:
                progress.Planned = line.Tests ?? [];
                _view.Planned(progress.Planned.Count);
                break;
            case JournalEvent.Begin:
                progress.Current = line.Test;
                if (progress.Up)
                {
                    _view.Now(part, line.Test);
                }

                break;
            case JournalEvent.Target:
                progress.Up = true;
                progress.Target = line.Target;
                if (line.Text is { } notes)
                {
                    _view.Say($"conformance: {selected.Name} on {Kernel.Id}: {notes}");
                }

                _view.Now(part, progress.Current ?? $"{selected.Name}: {Kernel.Id} is up");
                break;
            case JournalEvent.Verdict when line.Record is { } record:
                progress.Done.Add(record.Id);
                progress.Current = null;
                progress.Moved = true;
                Decide(record, progress);
                break;
            case JournalEvent.Fault:
                ResultsLost |= line.ResultsLost;
                _view.Say($"conformance: {line.Text}");
                break;
            case JournalEvent.Close:
                progress.Closed = true;
                _view.Now(part, $"{selected.Name}: shutting down {Kernel.Id}");
                break;
        }
    }

    private void Decide(TestRecord record, Progress progress)
    {
        TestRecord decided = _expected.Apply(record, Identity, progress.Target);
        _view.Decided(decided, Identity);
        if (decided.Verdict is Verdict.Fail or Verdict.Crash or Verdict.Hang or Verdict.Broken)
        {
            Red?.Invoke();
        }
    }

    /// <returns>The tests that remain to be run by another process; null when there is nothing more to do.</returns>
    private IReadOnlyList<string>? AfterEnd(SelectedSuite selected, Progress progress, SuiteEnd end)
    {
        if (progress.Closed)
        {
            if (end.ExitCode != 0 || end.Stalled)
            {
                Fault(selected, $"{selected.Name}: its process {end} after its last test. {end.LastWords}");
            }

            return null;
        }

        if (progress.Current is { } id)
        {
            TestRecord record = Unfinished(selected.Suite, id, end);
            Write(selected, JournalLine.Now(JournalEvent.Verdict) with { Record = record });
            progress.Done.Add(id);
            progress.Moved = true;
            Decide(record, progress);
        }

        if (progress.Planned is null || !progress.Moved)
        {
            Fault(selected, $"{selected.Name}: its process {end} before {(progress.Planned is null ? "it had a plan" : "its next test")}. {end.LastWords}");
            return null;
        }

        return [.. progress.Planned.Except(progress.Done)];
    }

    private TestRecord Unfinished(SuiteAssembly suite, string id, SuiteEnd end)
    {
        DeclaredTest? declared = suite.Tests.FirstOrDefault(t => id == t.Id || (t.IsTheory && id.StartsWith(t.Id + ".", StringComparison.Ordinal)));
        return new TestRecord
        {
            Id = id,
            Suite = suite.Name,
            Verdict = end.Stalled ? Verdict.Hang : Verdict.Broken,
            Reason = end.Stalled ? $"no verdict within {_request.TestTimeout} s" : $"the suite's process {end} during this test",
            DurationMs = end.Stalled ? _request.TestTimeout * 1000L : 0,
            Clauses = declared?.Clauses ?? [],
            Explained = end.LastWords.Length == 0 ? null : [new Explanation("stderr", end.LastWords)],
        };
    }

    private void Fault(SelectedSuite selected, string text)
    {
        Write(selected, JournalLine.Now(JournalEvent.Fault) with { Text = text.TrimEnd() });
        _view.Say($"conformance: {text.TrimEnd()}");
    }

    private void Write(SelectedSuite selected, JournalLine line)
    {
        Remember(line);
        try
        {
            using ResultsJournal journal = ResultsJournal.Open(Folder, selected.Name);
            if (!journal.Append(line))
            {
                Lost(journal.Fault!);
            }
        }
        catch (IOException failure)
        {
            Lost(failure.Message);
        }
    }

    private void Lost(string reason)
    {
        ResultsLost = true;
        _view.Say($"conformance: {reason}");
    }

    private void Remember(JournalLine line)
    {
        lock (_lock)
        {
            _lines.Add(line);
        }
    }

    private sealed class Progress
    {
        public IReadOnlyList<string>? Planned { get; set; }

        public HashSet<string> Done { get; } = new(StringComparer.Ordinal);

        public string? Current { get; set; }

        public bool Moved { get; set; }

        public bool Closed { get; set; }

        public TargetIdentity? Target { get; set; }

        /// <summary>Whether the kernel is up: the first test begins, and waits for it, while it boots.</summary>
        public bool Up { get; set; }

        public void Start()
        {
            Up = false;
            Current = null;
            Moved = false;
        }
    }
}

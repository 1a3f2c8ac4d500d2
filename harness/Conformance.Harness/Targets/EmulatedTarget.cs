// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Targets;

/// <summary>
/// A kernel in QEMU, with the agent on virtio-serial. It is booted, or restored from a machine that was saved when its agent was ready;
/// modules under test are loaded afterwards in either case.
/// </summary>
public sealed class EmulatedTarget : Target
{
    /// <summary>How long a kernel that prints may take to bring up its agent: with sanitizers, emulated, on a machine that is busy with others.</summary>
    private static readonly TimeSpan s_longestBoot = TimeSpan.FromMinutes(15);
    private static readonly TimeSpan s_callPatience = TimeSpan.FromSeconds(120);
    private static readonly TimeSpan s_restorePatience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan s_endPatience = TimeSpan.FromSeconds(10);

    /// <summary>How long a kernel that reported its death may still take to explain it: the panic an oops ends in.</summary>
    private static readonly TimeSpan s_lastWords = TimeSpan.FromMilliseconds(500);

    private readonly PreparedKernel _kernel;
    private readonly HashSet<string> _loaded = new(StringComparer.Ordinal);
    private readonly QemuProcess _qemu;
    private readonly TaskCompletionSource<TargetDeath> _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<TargetDeath> _hung = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private AgentConnection _agent = null!;
    private ControlSession _control = null!;
    private Task _watching = Task.CompletedTask;
    private bool _ending;

    private EmulatedTarget(PreparedKernel kernel, QemuProcess qemu, KernelLog log)
    {
        _kernel = kernel;
        _qemu = qemu;
        Log = log;
    }

    /// <inheritdoc/>
    public override string Kind => "emulated";

    /// <inheritdoc/>
    public override string Accelerator => "tcg";

    /// <inheritdoc/>
    public override string? QemuVersion => _qemu.Qmp.Version;

    /// <inheritdoc/>
    public override AgentConnection Agent => _agent;

    /// <inheritdoc/>
    public override KernelLog Log { get; }

    /// <inheritdoc/>
    public override Task<TargetDeath> Died => _died.Task;

    /// <inheritdoc/>
    public override QmpClient Qmp => _qemu.Qmp;

    /// <summary>It was restored, not booted.</summary>
    public bool Restored { get; private init; }

    /// <summary>What the reader of a report should know of how it was started: a saved machine that had to be dropped, one that could not be made.</summary>
    public IReadOnlyList<string> Notes { get; private init; } = [];

    /// <summary>Starts QEMU and returns when the agent has answered and the modules of the options are loaded.</summary>
    /// <param name="kernel">A kernel that has an image.</param>
    /// <param name="options">The machine.</param>
    /// <param name="build">Folder with tether.</param>
    /// <param name="work">Folder for <c>console.log</c>, which this start appends to.</param>
    /// <exception cref="MachineFaultException">
    /// QEMU is missing or refused its arguments, the kernel did not come up or refused a module: the message has what it printed.
    /// </exception>
    public static async Task<EmulatedTarget> StartAsync(PreparedKernel kernel, MachineOptions options, string build, string work, CancellationToken cancellation)
    {
        MachineLine line = MachineLine.For(kernel.Architecture);
        Start start = new(kernel, options, line, build, Path.Combine(work, "console.log"), []);
        EmulatedTarget target = await TryRestoreAsync(start, cancellation).ConfigureAwait(false) ?? await BootAsync(start, cancellation).ConfigureAwait(false);
        try
        {
            await target.LoadModulesAsync(options.Modules).ConfigureAwait(false);
            return target;
        }
        catch (Exception e)
        {
            // An agent that is lost meanwhile: a module may have taken the kernel with it.
            TargetDeath? death = e is IOException ? await target.DiagnoseAsync(e).ConfigureAwait(false) : null;
            await target.DisposeAsync().ConfigureAwait(false);
            if (death is not null)
            {
                throw new BootFailureException($"{kernel.Id}, while it loaded {string.Join(", ", options.Modules)}: {death.Reason}\n{death.ConsoleExcerpt}", death, e);
            }

            throw;
        }
    }

    /// <inheritdoc/>
    public override string GuestImagePath(string name) => $"/guests/{name}";

    /// <inheritdoc/>
    public override Task<string> ReadFileAsync(string path) => _control.ReadFileAsync(path);

    /// <inheritdoc/>
    public override async Task LoadModulesAsync(IReadOnlyList<string> names)
    {
        foreach (KernelModule module in ModulesOf(_kernel, names).Where(m => !_loaded.Contains(m.Name)))
        {
            if (module.Upload is { } file)
            {
                await _control.WriteFileAsync(module.Path, await File.ReadAllBytesAsync(file).ConfigureAwait(false)).ConfigureAwait(false);
            }

            Errno answer;
            try
            {
                answer = await _control.LoadModuleAsync(module.Path).WaitAsync(s_callPatience).ConfigureAwait(false);
            }
            catch (TimeoutException e)
            {
                string reason = $"The module {module.Name} was not loaded within {s_callPatience.TotalSeconds:0} s";
                throw new BootFailureException($"{reason} on {_kernel.Release}.", new TargetDeath(TargetEnd.KernelHung, reason, Log.Tail(60)), e);
            }

            if (answer is not Errno.None and not Errno.EEXIST)
            {
                throw new MachineFaultException($"The module {module.Name} does not load on {_kernel.Release}: {answer}.\n{Log.Tail(10)}");
            }

            _loaded.Add(module.Name);
        }
    }

    /// <inheritdoc/>
    public override async Task<TargetDeath> DiagnoseAsync(Exception noticed)
    {
        TargetDeath death = await base.DiagnoseAsync(noticed).ConfigureAwait(false);
        if (death.End != TargetEnd.KernelHung || Died.IsCompleted)
        {
            return death;
        }

        // All that can still be asked, before it is gone.
        string evidence = await new HangEvidence(_qemu, Log).CollectAsync().ConfigureAwait(false);
        _hung.TrySetResult(death with { Evidence = evidence, ConsoleExcerpt = $"{Log.Tail(200)}\n{evidence}" });
        return await Died.ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override async Task ShutdownAsync()
    {
        _ending = true;
        using CancellationTokenSource patience = new(s_endPatience);
        try
        {
            // The answer never comes: the kernel takes the agent with it.
            await Task.WhenAny(_control.PowerOffAsync(), _qemu.Exited).WaitAsync(patience.Token).ConfigureAwait(false);
            await _qemu.Exited.WaitAsync(patience.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            await _qemu.KillAsync().ConfigureAwait(false);
        }

        await _watching.ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        _ending = true;
        await _qemu.DisposeAsync().ConfigureAwait(false);
        await _watching.ConfigureAwait(false);
        if (_agent is not null)
        {
            await _agent.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static async Task<EmulatedTarget> BootAsync(Start start, CancellationToken cancellation)
    {
        EmulatedTarget target = await LaunchAsync(start, null, [.. start.Line.Machine(start.Options, null), .. start.Line.Boot(start.Options, start.Kernel)], cancellation).ConfigureAwait(false);
        return await target.BringUpAsync(start.Options.BootSilence, s_longestBoot, cancellation).ConfigureAwait(false);
    }

    private static IEnumerable<KernelModule> ModulesOf(PreparedKernel kernel, IEnumerable<string> names) =>
        names.SelectMany(n => kernel.LoadOrder(n) ?? []).DistinctBy(m => m.Name);

    /// <summary>A target out of a saved machine, which is made first when there is none; null when that is not wanted or does not work, with a note.</summary>
    private static async Task<EmulatedTarget?> TryRestoreAsync(Start start, CancellationToken cancellation)
    {
        if (start.Options.SnapshotDirectory is not { } directory || start.Options.FreshBoot || MachineLine.Unsaved(start.Options) is not null)
        {
            return null;
        }

        try
        {
            InstantKernels kernels = new(directory);
            IReadOnlyList<KernelModule> modules = ModulesWorthSaving(start);
            using InstantKernel saved = modules.Count == 0
                ? await GetBootedAsync(start, kernels, cancellation).ConfigureAwait(false)
                : await kernels.GetAsync(
                    InstantKernels.KeyOf(start.Kernel, start.Line, start.Options, modules), memory => SaveLoadedAsync(start, kernels, modules, memory, cancellation), start.Notes.Add, cancellation).ConfigureAwait(false);
            try
            {
                return await RestoreAsync(start, saved.Machine, new MemoryFile(saved.Memory, Shared: false), modules, cancellation).ConfigureAwait(false);
            }
            catch (MachineFaultException e)
            {
                kernels.Drop(saved);
                start.Notes.Add($"A saved kernel was dropped because it did not come back: {e.Message.Split('\n')[0]} The kernel is booted.");
                return null;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or QmpException)
        {
            start.Notes.Add($"The kernel could not be saved for the next time: {e.Message}");
            return null;
        }
    }

    /// <summary>
    /// The modules under test, unless one is swapped: such a machine would be restored once or twice before there is another build of the
    /// module, and it is quicker to load it into the one that all builds share.
    /// </summary>
    private static IReadOnlyList<KernelModule> ModulesWorthSaving(Start start)
    {
        KernelModule[] modules = [.. ModulesOf(start.Kernel, start.Options.Modules)];
        return modules.Any(m => m.Overridden) && start.Options.Isolation == Isolation.Suite ? [] : modules;
    }

    private static Task<InstantKernel> GetBootedAsync(Start start, InstantKernels kernels, CancellationToken cancellation) => kernels.GetAsync(
        InstantKernels.KeyOf(start.Kernel, start.Line, start.Options, []), memory => SaveBootedAsync(start, memory, cancellation), start.Notes.Add, cancellation);

    /// <summary>Boots the kernel with its memory in a file and returns what else makes the machine, once the agent is ready.</summary>
    private static async Task<SavedMachine> SaveBootedAsync(Start start, string memory, CancellationToken cancellation)
    {
        string scratch = CheckRoom(start, memory);
        string[] arguments = [.. start.Line.Machine(start.Options, new MemoryFile(memory, Shared: true)), .. start.Line.Boot(start.Options, start.Kernel)];
        await using EmulatedTarget target = await LaunchAsync(start with { ConsoleFile = scratch }, null, arguments, cancellation).ConfigureAwait(false);
        await target.BringUpAsync(start.Options.BootSilence, s_longestBoot, cancellation).ConfigureAwait(false);
        return await target.SaveAsync(scratch, cancellation).ConfigureAwait(false);
    }

    /// <summary>Restores the booted kernel on a copy of its memory, loads modules into it and saves it again.</summary>
    private static async Task<SavedMachine> SaveLoadedAsync(Start start, InstantKernels kernels, IReadOnlyList<KernelModule> modules, string memory, CancellationToken cancellation)
    {
        string scratch = CheckRoom(start, memory);
        using InstantKernel booted = await GetBootedAsync(start, kernels, cancellation).ConfigureAwait(false);
        MemoryPages.Copy(booted.Memory, memory, cancellation);
        await using EmulatedTarget target = await RestoreAsync(start with { ConsoleFile = scratch }, booted.Machine, new MemoryFile(memory, Shared: true), [], cancellation).ConfigureAwait(false);
        await target.LoadModulesAsync([.. modules.Select(m => m.Name)]).ConfigureAwait(false);
        return await target.SaveAsync(scratch, cancellation).ConfigureAwait(false);
    }

    private static string CheckRoom(Start start, string memory)
    {
        long free = new DriveInfo(Path.GetDirectoryName(memory)!).AvailableFreeSpace;
        if (free < (start.Options.MemoryMiB + 64L) << 20)
        {
            // Memory in a file that the disk has no room for kills QEMU in the middle of an instruction.
            throw new IOException($"{free >> 20} MiB of disk are free, the machine has {start.Options.MemoryMiB} MiB of memory.");
        }

        return Path.ChangeExtension(memory, ".log");
    }

    private static async Task<EmulatedTarget> RestoreAsync(Start start, SavedMachine machine, MemoryFile memory, IReadOnlyList<KernelModule> loaded, CancellationToken cancellation)
    {
        // The same machine to the letter, so that it does not matter what of its start a QEMU keeps outside the saved state.
        string[] arguments = [.. start.Line.Machine(start.Options, memory), .. start.Line.Boot(start.Options, start.Kernel), "-incoming", "defer"];
        await File.AppendAllTextAsync(start.ConsoleFile, machine.Console + "\n", cancellation).ConfigureAwait(false);
        EmulatedTarget target = await LaunchAsync(start, machine, arguments, cancellation).ConfigureAwait(false);
        target._loaded.UnionWith(loaded.Select(m => m.Name));
        try
        {
            using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            patience.CancelAfter(s_restorePatience);
            await target._qemu.WhileItLivesAsync(QemuState.RestoreAsync(target._qemu, machine.State, patience.Token)).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            await target.DisposeAsync().ConfigureAwait(false);
            if (e is IOException or QmpException or OperationCanceledException && !cancellation.IsCancellationRequested)
            {
                throw new MachineFaultException($"QEMU did not take the saved state: {e.Message}", e);
            }

            throw;
        }

        await target.BringUpAsync(s_restorePatience, s_restorePatience, cancellation).ConfigureAwait(false);
        try
        {
            await target.WakeAsync().WaitAsync(s_restorePatience, cancellation).ConfigureAwait(false);
            return target;
        }
        catch (Exception e) when (e is IOException or TimeoutException)
        {
            await target.DisposeAsync().ConfigureAwait(false);
            throw new MachineFaultException($"Its kernel answered once and no more: {e.Message}", e);
        }
    }

    /// <summary>Tells a kernel that slept in a file what it missed, and sees that its timers run: one that was saved in a bad moment would be lost to every run to come.</summary>
    private async Task WakeAsync()
    {
        if (_kernel.Architecture == KernelArchitecture.Arm64)
        {
            await _control.StartTimersAsync().ConfigureAwait(false);
        }

        await _control.SetClockAsync(DateTimeOffset.UtcNow).ConfigureAwait(false);
        await _control.AwaitTimersAsync().ConfigureAwait(false);
    }

    private static async Task<EmulatedTarget> LaunchAsync(Start start, SavedMachine? saved, IReadOnlyList<string> arguments, CancellationToken cancellation)
    {
        EmulatedTarget? target = null;
        KernelLog log = new((line, token) => target!._control.LogAsync(line, token));
        if (saved is not null)
        {
            // What the kernel printed while it booted is part of its log, whoever it was booted for.
            log.Feed(Encoding.UTF8.GetBytes(saved.Console + "\n"));
        }

        QemuProcess qemu = await QemuProcess.StartAsync(start.Build, start.Line, arguments, start.ConsoleFile, log, cancellation).ConfigureAwait(false);
        target = new EmulatedTarget(start.Kernel, qemu, log) { Restored = saved is not null, Notes = start.Notes };
        return target;
    }

    /// <summary>Waits for the agent; on failure the target is gone.</summary>
    /// <param name="silence">How long the kernel may print nothing meanwhile.</param>
    /// <param name="most">How long it may take, whatever it prints.</param>
    private async Task<EmulatedTarget> BringUpAsync(TimeSpan silence, TimeSpan most, CancellationToken cancellation)
    {
        using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(most);
        string gaveUp = $"within {most.TotalSeconds:0} s";
        try
        {
            Task opened = _qemu.WhileItLivesAsync(OpenAgentAsync(patience.Token));
            LogMark heard;
            do
            {
                heard = Log.Here;
                await Task.WhenAny(opened, Task.Delay(silence, patience.Token)).ConfigureAwait(false);
            }
            while (!opened.IsCompleted && Log.Here != heard);
            if (!opened.IsCompleted && !patience.IsCancellationRequested)
            {
                gaveUp = $"and its kernel printed nothing for {silence.TotalSeconds:0} s";
                await patience.CancelAsync().ConfigureAwait(false);
            }

            await opened.ConfigureAwait(false);
            _watching = WatchAsync();
            return this;
        }
        catch (Exception e)
        {
            await DisposeAsync().ConfigureAwait(false);
            if (cancellation.IsCancellationRequested || e is not (MachineFaultException or IOException or OperationCanceledException))
            {
                throw;
            }

            throw await ExplainAsync(gaveUp, e).ConfigureAwait(false);
        }
    }

    private async Task<SavedMachine> SaveAsync(string scratch, CancellationToken cancellation)
    {
        File.Delete(scratch);
        byte[] state;
        try
        {
            state = await QemuState.SaveAsync(_qemu, cancellation).WaitAsync(s_callPatience, cancellation).ConfigureAwait(false);
        }
        catch (TimeoutException e)
        {
            throw new IOException($"QEMU did not save it within {s_callPatience.TotalSeconds:0} s.", e);
        }

        return new SavedMachine(state, Log.TextSince(KernelLog.Start), Qmp.Version, _kernel.Id);
    }

    private async Task<bool> OpenAgentAsync(CancellationToken cancellation)
    {
        _agent = await AgentConnection.OpenAsync(_qemu.Channel, cancellation).ConfigureAwait(false);
        _control = await ControlSession.OpenAsync(_agent, _kernel.Architecture, logIsRationed: false, cancellation).ConfigureAwait(false);
        return true;
    }

    private async Task<BootFailureException> ExplainAsync(string gaveUp, Exception noticed)
    {
        QemuExit exit = await _qemu.Exited.ConfigureAwait(false);
        (TargetEnd end, string what) = Log.Death.IsCompletedSuccessfully ? (TargetEnd.KernelDied, $"The kernel {_kernel.Id} died before its agent was up: {Log.Death.Result.Title}.")
            : exit.AskedByKernel ? (TargetEnd.KernelDied, $"The kernel {_kernel.Id} reset its machine before its agent was up.")
            : exit.Cause is null && exit.Code != 137 ? (TargetEnd.Lost, $"QEMU {exit} before the kernel {_kernel.Id} was up.")
            : (TargetEnd.KernelHung, $"The agent on {_kernel.Id} did not answer {gaveUp}.");
        string console = Log.Tail(60);
        return new BootFailureException(
            $"{what}{(exit.Errors.Length > 0 ? "\n" + exit.Errors : "")}\n{(console.Length > 0 ? "The end of its console:\n" + console : "Its console is empty.")}",
            new TargetDeath(end, what, console),
            noticed);
    }

    private async Task WatchAsync()
    {
        Task<QemuExit> exited = _qemu.Exited;
        await Task.WhenAny(exited, Log.Death, _hung.Task).ConfigureAwait(false);
        if (!exited.IsCompleted && !_hung.Task.IsCompleted)
        {
            await Task.WhenAny(exited, Task.Delay(s_lastWords)).ConfigureAwait(false);
        }

        if (!exited.IsCompleted)
        {
            // Not to be used any more; whoever waits for an answer of its agent gets one.
            await _qemu.KillAsync().ConfigureAwait(false);
        }

        QemuExit exit = await exited.ConfigureAwait(false);
        _died.TrySetResult(
            Log.Death.IsCompletedSuccessfully ? OfReport(Log.Death.Result)
            : _hung.Task.IsCompletedSuccessfully ? _hung.Task.Result
            : _ending ? new TargetDeath(TargetEnd.ShutDown, "shut down", Log.Tail())
            : exit.AskedByKernel ? new TargetDeath(TargetEnd.KernelDied, "the kernel reset or switched off its machine without a word", Log.Tail())
            : new TargetDeath(TargetEnd.Lost, $"QEMU {exit} and the kernel had said nothing{(exit.Errors.Length > 0 ? ": " + exit.Errors : "")}", Log.Tail()));
    }

    // The report as it is now, with what followed it: the panic after the oops.
    private TargetDeath OfReport(KernelReport first)
    {
        KernelReport report = Log.ReportsSince(KernelLog.Start).FirstOrDefault(r => r.Severity == Severity.Dead) ?? first;
        return new TargetDeath(TargetEnd.KernelDied, report.Title, report.Text, report);
    }

    private sealed record Start(PreparedKernel Kernel, MachineOptions Options, MachineLine Line, string Build, string ConsoleFile, List<string> Notes);
}

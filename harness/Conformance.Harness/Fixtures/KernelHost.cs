// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;
using System.Reflection;
using System.Text.Json;
using Conformance.Kernels;
using Conformance.Kvm;
using Conformance.Results;
using Conformance.Targets;
using Conformance.Uapi;

namespace Conformance.Fixtures;

/// <summary>Owns the machine of one suite process: boots it, loads the modules under test, replaces it when it died.</summary>
internal sealed class KernelHost : IAsyncDisposable
{
    /// <summary>How long a kernel that is well may take to end a session or to repeat a line of its log; beyond it hangs.</summary>
    public static readonly TimeSpan AnswerPatience = TimeSpan.FromSeconds(10);

    /// <summary>A kernel that did not start this often is not started any more: each test says so at once.</summary>
    private const int StartsAtMost = 2;

    private readonly ConcurrentDictionary<KvmCap, long> _capabilities = new();
    private readonly Lazy<ChangeTable> _changes;
    private readonly MachineNeedsAttribute _needs;
    private readonly MachineOptions _options;
    private readonly ScratchFolder _work;
    private int _failedStarts;
    private string? _lastClass;
    private Task<Target> _target;

    private KernelHost(PreparedKernel kernel, MachineNeedsAttribute needs, MachineOptions options, ScratchFolder work)
    {
        Kernel = kernel;
        _needs = needs;
        _options = options;
        _work = work;
        _changes = new Lazy<ChangeTable>(() =>
            ChangeTable.Parse(File.ReadAllText(Path.Combine(SourcePath.RepositoryRoot, "suites", "changes.tsv"))));
        _target = BootAsync();
    }

    public PreparedKernel Kernel { get; }

    public TimeSpan TestDeadline => TimeSpan.FromSeconds(_needs.TestDeadlineSeconds);

    /// <summary>The machine if it is up; null while it boots or when it could not be started.</summary>
    public Target? Target => _target.IsCompletedSuccessfully ? _target.Result : null;

    public string Release => Target?.Agent.Hello.KernelRelease ?? Kernel.Release;

    /// <summary>The upstream release with its stable number, which Debian's release string does not always have.</summary>
    public Version StableRelease { get; private set; } = new(0, 0);

    public static async Task<KernelHost> StartAsync()
    {
        Assembly suite = Assembly.GetEntryAssembly()!;
        MachineNeedsAttribute needs = suite.GetCustomAttribute<MachineNeedsAttribute>() ?? new MachineNeedsAttribute();
        string file = SuiteEnvironment.Prepared
            ?? throw new MachineFaultException("No kernel was given. Start suites with ./conformance run, or set CONFORMANCE_PREPARED.");
        PreparedKernel kernel = await PreparedKernel.LoadAsync(file);
        MachineOptions options = SuiteEnvironment.Machine is string path
            ? JsonSerializer.Deserialize(await File.ReadAllTextAsync(path), MachineJson.Default.MachineOptions) ?? new MachineOptions()
            : new MachineOptions();
        return new KernelHost(kernel, needs, options, new ScratchFolder());
    }

    /// <summary>The PCI functions that claims may take; null: all, for the machine is the suite's own.</summary>
    public IReadOnlyCollection<string>? NamedDevices => Kernel.IsBooted ? null : _options.VfioDevices;

    public Task<Target> TargetAsync() => _target;

    public bool Has(string change) => _changes.Value[change].IsIn(StableRelease);

    public async Task<long> CapabilityAsync(KvmCap cap, Func<Task<KvmSystem>> open)
    {
        if (!_capabilities.TryGetValue(cap, out long value))
        {
            value = await (await open()).CheckExtensionAsync(cap);
            _capabilities[cap] = value;
        }

        return value;
    }

    /// <summary>A machine that is up: the one there is, a new one when that died or when tests are to be isolated.</summary>
    public async Task PrepareForTestAsync(string? testClass)
    {
        bool fresh = _options.Isolation switch
        {
            Isolation.Test => _lastClass is not null,
            Isolation.Class => _lastClass is not null && _lastClass != testClass,
            _ => false,
        };
        _lastClass = testClass ?? "";
        bool again = _target.IsFaulted && _failedStarts < StartsAtMost;
        if (again || (Target is Target target && (fresh || target.Died.IsCompleted)))
        {
            await ReplaceAsync();
        }

        try
        {
            await _target;
            _failedStarts = 0;
        }
        catch (MachineFaultException e)
        {
            _failedStarts++;
            switch ((e as BootFailureException)?.Death)
            {
                case { End: TargetEnd.KernelDied } death:
                    throw new KernelCrashException(death.Reason, death.ConsoleExcerpt, e);
                case { End: TargetEnd.KernelHung } death:
                    throw new HangException($"{death.Reason}\n{death.ConsoleExcerpt}", e);
                default:
                    throw;
            }
        }
    }

    /// <summary>The machine no longer answers: says why, as the verdict of the test that was running, and drops it.</summary>
    public async Task GiveUpAsync(Target target, TestEvidence evidence, Exception noticed)
    {
        TargetDeath death = await target.DiagnoseAsync(noticed);
        evidence.AddConsole(death.ConsoleExcerpt);
        evidence.Decide(death.End switch
        {
            TargetEnd.KernelDied => Verdict.Crash,
            TargetEnd.KernelHung => Verdict.Hang,
            _ => Verdict.Broken,
        }, death.Reason);
        await ReplaceAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (_target.IsCompletedSuccessfully)
        {
            await _target.Result.DisposeAsync();
        }

        _work.Dispose();
    }

    public async Task ReplaceAsync()
    {
        if (Target is Target old)
        {
            await old.DisposeAsync();
        }

        _target = BootAsync();
    }

    private static string BuildFolder => SuiteEnvironment.Build ?? Path.Combine(SourcePath.RepositoryRoot, "build");

    private async Task<Target> BootAsync()
    {
        SuiteRunner.ReportBoot();
        MachineOptions options = _options with
        {
            Iommu = _options.Iommu || _needs.Iommu,
            Devices = [.. _options.Devices, .. _needs.Devices],
            SparePorts = _needs.SparePorts,
            ExtraKernelArguments = [.. _needs.KernelArguments, .. _options.ExtraKernelArguments],
            Modules = _needs.Modules,
        };
        Target target;
        if (Kernel.IsBooted)
        {
            target = await EmulatedTarget.StartAsync(Kernel, options, BuildFolder, _work.Path, CancellationToken.None);
        }
        else
        {
            target = KernelSpec.Parse(Kernel.Source) is KernelSpec.Ssh board
                ? await SshTarget.StartAsync(Kernel.Architecture, board.Destination, BuildFolder, CancellationToken.None)
                : await LocalTarget.StartAsync(BuildFolder, CancellationToken.None);
            await target.LoadModulesAsync(_needs.Modules);
            await CheckNamedDevicesAsync(target);
        }

        try
        {
            StableRelease = ChangeTable.ParseStableRelease(await target.ReadFileAsync("/proc/version").WaitAsync(AnswerPatience));
        }
        catch (Exception e)
        {
            TargetDeath death = await target.DiagnoseAsync(e);
            await target.DisposeAsync();
            throw new BootFailureException($"{Kernel.Id}, when it was up: {death.Reason}\n{death.ConsoleExcerpt}", death, e);
        }

        SuiteRunner.ReportTarget(
            new TargetIdentity(target.Kind, target.Accelerator, target.QemuVersion) { Release = StableRelease.ToString() },
            (target as EmulatedTarget)?.Notes ?? []);
        return target;
    }

    // Taking a device from its driver is for whoever knows what hangs on it.
    private async Task CheckNamedDevicesAsync(Target target)
    {
        foreach (string device in _options.VfioDevices)
        {
            string events;
            try
            {
                events = await target.ReadFileAsync($"/sys/bus/pci/devices/{device}/uevent").WaitAsync(AnswerPatience);
            }
            catch (IOException e)
            {
                throw new MachineFaultException($"{Kernel.Id} has no PCI function {device}; lspci -D lists them.", e);
            }

            string? driver = events.Split('\n').FirstOrDefault(l => l.StartsWith("DRIVER=", StringComparison.Ordinal))?[7..];
            if (driver != "vfio-pci")
            {
                throw new MachineFaultException(
                    $"{device} is bound to {driver ?? "no driver"}, and only vfio-pci gives it to the suite. Run there: driverctl set-override {device} vfio-pci");
            }
        }
    }
}

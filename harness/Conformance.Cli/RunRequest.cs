// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary>What <c>conformance run</c> was asked for.</summary>
internal sealed partial record RunRequest
{
    /// <summary>The newest kernel of the newest stable Debian.</summary>
    public const string DefaultKernel = "debian:6.12";

    public const string DefaultOutput = "results";

    public const int DefaultTestTimeout = 120;

    public IReadOnlyList<string> Kernels { get; init; } = [DefaultKernel];

    public string? Architecture { get; init; }

    public IReadOnlyList<string> Suites { get; init; } = [];

    public IReadOnlyList<string> Tests { get; init; } = [];

    /// <summary>As written: <c>NAME.ko=PATH</c>.</summary>
    public IReadOnlyList<string> Modules { get; init; } = [];

    public string Output { get; init; } = DefaultOutput;

    /// <summary>Boots every kernel instead of restoring one that was kept.</summary>
    public bool FreshBoot { get; init; }

    public Isolation Isolation { get; init; }

    /// <summary>Appended to the kernel command line, space-separated.</summary>
    public IReadOnlyList<string> Append { get; init; } = [];

    /// <summary>The user's own ledgers of known failures, beside the repository's.</summary>
    public IReadOnlyList<string> KnownFailures { get; init; } = [];

    /// <summary>As written: addresses of PCI functions of a kernel that is there.</summary>
    public IReadOnlyList<string> VfioDevices { get; init; } = [];

    public bool Offline { get; init; }

    public bool NegativeControls { get; init; }

    /// <summary>As written: <c>2/3</c>; null for all tests.</summary>
    public string? Shard { get; init; }

    /// <summary>How often every test runs; 0 until one is red.</summary>
    public int Repeat { get; init; } = 1;

    /// <summary>End at the first verdict that is red.</summary>
    public bool FailFast { get; init; }

    /// <summary>Only say what would be started.</summary>
    public bool DryRun { get; init; }

    /// <summary>An emulated machine keeps one processor busy and takes half a gigabyte of memory.</summary>
    public static int DefaultJobs => Math.Clamp(Environment.ProcessorCount, 1, 8);

    /// <summary>Declared tests that are worth a machine of their own, which takes a second or two to start.</summary>
    public int TestsPerPart { get; init; } = 40;

    /// <summary>How many machines may run at once; null for <see cref="DefaultJobs"/>.</summary>
    public int? Jobs { get; init; }

    /// <summary>Seconds after which a test without a verdict is a hang.</summary>
    public int TestTimeout { get; init; } = DefaultTestTimeout;

    /// <summary>Name every test, also on a terminal.</summary>
    public bool Verbose { get; init; }

    /// <summary>The part of the tests asked for.</summary>
    /// <exception cref="UsageException">It is not written as one.</exception>
    public Shard? ParseShard() => Shard is null ? null
        : Results.Shard.Parse(Shard) ?? throw new UsageException($"--shard {Shard}: write which part of how many, for example --shard 2/3; at most 1000.");

    /// <summary>The architecture asked for, or meant by the kernels' own text.</summary>
    /// <exception cref="UsageException">It is none the suites are for.</exception>
    public KernelArchitecture? ParseArchitecture() => Architecture is null ? null
        : KernelArchitectures.TryParse(Architecture, out KernelArchitecture architecture) ? architecture
        : throw new UsageException($"'{Architecture}' is not an architecture tested here; --arch takes x86_64 or arm64.");

    /// <summary>The PCI functions that the Vfio suite may take, as sysfs spells them.</summary>
    /// <param name="kernels">The kernels of the run.</param>
    /// <exception cref="UsageException">One is no address, or the kernels are emulated.</exception>
    public IReadOnlyList<string> ParseVfioDevices(IEnumerable<KernelSpec> kernels)
    {
        if (VfioDevices.Count > 0 && kernels.Any(k => k is not (KernelSpec.Host or KernelSpec.Ssh)))
        {
            throw new UsageException("--vfio-device names a device of a machine that is there: it needs --kernel host or --kernel ssh:USER@BOARD. An emulated machine has devices of its own.");
        }

        return [.. VfioDevices.Select(d => PciAddress().Match(d) is { Success: true } match
            ? $"{(match.Groups["domain"].Success ? match.Groups["domain"].Value : "0000")}:{match.Groups["rest"].Value}".ToLowerInvariant()
            : throw new UsageException($"--vfio-device {d}: write the function's address as lspci does, for example --vfio-device 0000:01:00.0."))];
    }

    [GeneratedRegex("^((?<domain>[0-9a-fA-F]{4}):)?(?<rest>[0-9a-fA-F]{2}:[01][0-9a-fA-F]\\.[0-7])$")]
    private static partial Regex PciAddress();

    /// <summary>The modules to swap, by name.</summary>
    /// <exception cref="UsageException">One is not written as name and path, or named twice, or not there.</exception>
    public IReadOnlyDictionary<string, string> ParseModules()
    {
        Dictionary<string, string> modules = new(ModuleName.Comparer);
        foreach (string text in Modules)
        {
            int equals = text.IndexOf('=');
            if (equals <= 0 || equals == text.Length - 1)
            {
                throw new UsageException($"--module {text}: write NAME.ko=PATH, for example --module kvm.ko=arch/x86/kvm/kvm.ko.");
            }

            string path = Path.GetFullPath(text[(equals + 1)..]);
            if (!File.Exists(path))
            {
                throw new UsageException($"--module {text}: there is no file {path}.");
            }

            if (!modules.TryAdd(text[..equals], path))
            {
                throw new UsageException($"--module {text}: {text[..equals]} is given twice.");
            }
        }

        return modules;
    }
}

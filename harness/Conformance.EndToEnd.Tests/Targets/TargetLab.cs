// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Targets;
using Conformance.Uapi;
using Conformance.Wire;
using Xunit;

[assembly: AssemblyFixture(typeof(Conformance.EndToEnd.Tests.Targets.TargetLab))]

namespace Conformance.EndToEnd.Tests.Targets;

/// <summary>Kernels to start, and a folder of saved ones that all tests share, so that few of them have to boot.</summary>
public sealed class TargetLab : IAsyncLifetime
{
    /// <summary>What <c>conformance run</c> takes when no kernel is named.</summary>
    private const string X86 = "debian:6.12";
    private const string Arm64 = "debian:6.12:arm64";

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("cfm-lab-");
    private readonly KernelStore _store = new(CacheDirectory.Default);
    private readonly Dictionary<string, PreparedKernel> _prepared = [];

    public static string Build => Path.Combine(SourcePath.RepositoryRoot, "build");

    public static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Holds console.log.</summary>
    public string Work => _folder.FullName;

    public string Saved => Path.Combine(_folder.FullName, "saved");

    public string Console => File.ReadAllText(Path.Combine(Work, "console.log"));

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public ValueTask DisposeAsync()
    {
        _store.Dispose();
        _folder.Delete(recursive: true);
        return ValueTask.CompletedTask;
    }

    public Task<PreparedKernel> X86Async() => PrepareAsync(X86, KernelArchitecture.X86_64);

    /// <summary>The x86_64 kernel with one of its modules swapped for a copy of itself, as <c>--module</c> does it.</summary>
    public async Task<PreparedKernel> X86WithAsync(string module)
    {
        PreparedKernel kernel = await X86Async();
        string package = Path.GetDirectoryName(kernel.ImagePath)!;
        string original = Directory.EnumerateFiles(package, $"{module}.ko*", SearchOption.AllDirectories).Single();
        string copy = Path.Combine(Work, Path.GetFileName(original));
        File.Copy(original, copy, overwrite: true);
        return await PrepareAsync(X86, KernelArchitecture.X86_64, new Dictionary<string, string> { [$"{module}.ko"] = copy });
    }

    /// <summary>Skips where no arm64 kernel can be started.</summary>
    public Task<PreparedKernel> Arm64Async()
    {
        Assert.SkipUnless(File.Exists(Path.Combine(Build, "agent-aarch64")), "the agent is not built for arm64: gcc-aarch64-linux-gnu is not installed");
        Assert.SkipUnless((Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(f => File.Exists(Path.Combine(f, "qemu-system-aarch64"))), "qemu-system-aarch64 is not installed");
        return PrepareAsync(Arm64, KernelArchitecture.Arm64);
    }

    /// <summary>The x86_64 kernel, restored unless the options say otherwise.</summary>
    public async Task<EmulatedTarget> StartAsync(MachineOptions? options = null)
    {
        File.Delete(Path.Combine(Work, "console.log"));
        return await EmulatedTarget.StartAsync(await X86Async(), options ?? new MachineOptions { SnapshotDirectory = Saved }, Build, Work, Cancellation);
    }

    /// <summary>Writes a file of the kernel under test from a session of its own; what becomes of the session is not waited for.</summary>
    public static async Task<AgentSession> WriteAsync(Target target, string path, string text)
    {
        AgentSession session = await target.Agent.OpenSessionAsync(Cancellation);
        SystemCalls calls = target.Agent.Hello.Machine == 62 ? SystemCalls.X86_64 : SystemCalls.Arm64;
        const int WriteOnly = 1;
        CallResult open = await session.CallAsync(new SystemCall(calls.Openat, $"open {path}").Arg(-100).In(System.Text.Encoding.ASCII.GetBytes(path + "\0")).Arg(WriteOnly).Arg(0));
        Assert.Equal(0, open.Errno);
        byte[] bytes = System.Text.Encoding.ASCII.GetBytes(text);
        CallResult write = await session.CallAsync(new SystemCall(calls.Write, $"write {path}").Arg(open.Result).In(bytes).Arg(bytes.Length));
        Assert.Equal(0, write.Errno);
        return session;
    }

    private async Task<PreparedKernel> PrepareAsync(string kernel, KernelArchitecture architecture, IReadOnlyDictionary<string, string>? swapped = null)
    {
        string key = kernel + string.Concat(swapped?.Keys ?? []);
        if (!_prepared.TryGetValue(key, out PreparedKernel? prepared))
        {
            PrepareOptions options = new()
            {
                Architecture = architecture,
                AgentPath = Path.Combine(Build, $"agent-{architecture.MachineName()}"),
                GuestsDirectory = Path.Combine(Build, "guests"),
                ModuleOverrides = swapped ?? new Dictionary<string, string>(),
            };
            _prepared[key] = prepared = await _store.PrepareAsync(KernelSpec.Parse(kernel), options, null, Cancellation);
        }

        return prepared;
    }
}

// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;
using System.Reflection;
using Conformance.Kernels;
using Conformance.Kvm;
using Conformance.Results;
using Conformance.Targets;
using Conformance.Uapi;
using Conformance.Wire;
using Xunit;

namespace Conformance.Fixtures;

/// <summary>
/// The kernel under test, as a suite's tests are given it: booted once, a fresh session per test, booted again when a test killed or hung it.
/// </summary>
public sealed class KernelUnderTest : ITestObserver, IAsyncDisposable
{
    private static readonly Lazy<Task<KernelHost>> s_host = new(KernelHost.StartAsync);

    private readonly ConcurrentDictionary<string, TestSessions> _tests = new();

    public KernelUnderTest() => TestEvidence.Observe(this);

    /// <summary>Starts booting, while xunit is still discovering. Called from a module initializer when a run asked for this process.</summary>
    public static void BootEarly() => _ = s_host.Value;

    public KernelArchitecture Architecture => Host.Kernel.Architecture;

    /// <summary>What uname -r says.</summary>
    public string Release => Host.Release;

    private static KernelHost Host => s_host.Value.IsCompletedSuccessfully ? s_host.Value.Result : throw new InvalidOperationException("The kernel is not up yet.");

    /// <summary>A process of the kernel under test for this test; further calls give further processes.</summary>
    public async Task<KernelSession> CreateSessionAsync() => await (await CurrentAsync()).OpenAsync();

    /// <summary>The test's first process, which its VMs and eventfds live in.</summary>
    public async Task<KernelSession> SessionAsync() => await (await CurrentAsync()).FirstAsync();

    /// <summary>/dev/kvm in the test's first session.</summary>
    public async Task<KvmSystem> OpenKvmAsync() => await (await CurrentAsync()).KvmAsync();

    /// <summary>A VM in the test's first session, with the guest in its memory and its vCPUs not yet run.</summary>
    public Task<Vm> CreateVmAsync(int vcpus = 1) => CreateVmAsync(VmOptions.Default with { Vcpus = vcpus });

    public async Task<Vm> CreateVmAsync(VmOptions options)
    {
        TestSessions test = await CurrentAsync();
        if (options.Irqchip == Irqchip.Full && Host.Kernel.Architecture == KernelArchitecture.X86_64)
        {
            // Built without CONFIG_KVM_IOAPIC, KVM has neither the controllers nor the PIT, and still says that it has KVM_CAP_IRQCHIP.
            long pit = await CapabilityAsync(KvmCap.Pit2);
            Skipping.UnlessCapability(pit > 0, KvmCap.Pit2.CName(), $"{KvmCap.Pit2.CName()} = {pit}");
        }

        return await Vm.CreateAsync(await test.KvmAsync(), options);
    }

    public async Task<EventFd> CreateEventFdAsync(uint count = 0, bool semaphore = false) =>
        await (await (await CurrentAsync()).FirstAsync()).CreateEventFdAsync(count, semaphore);

    /// <summary>The value of a capability on the system descriptor; asked once per kernel.</summary>
    public async Task<long> CapabilityAsync(KvmCap cap) => await Host.CapabilityAsync(cap, OpenKvmAsync);

    /// <summary>Skips the test unless the kernel has every capability, with the value seen.</summary>
    public async Task RequireAsync(params KvmCap[] caps)
    {
        foreach (KvmCap cap in caps)
        {
            long value = await CapabilityAsync(cap);
            TestEvidence.Current?.Need(cap.CName());
            Skipping.UnlessCapability(value > 0, cap.CName(), $"{cap.CName()} = {value}");
        }
    }

    /// <summary>Skips the test unless KVM_CAP_XEN_HVM has every flag, with the value seen.</summary>
    /// <param name="flags">KVM_XEN_HVM_CONFIG_*.</param>
    public async Task RequireXenAsync(uint flags)
    {
        long value = await CapabilityAsync(KvmCap.XenHvm);
        foreach ((_, string name) in XenFlagNames.Where(f => (flags & f.Flag) != 0))
        {
            TestEvidence.Current?.Need(name);
        }

        string needs = string.Join(" and ", XenFlagNames.Where(f => (flags & f.Flag & ~value) != 0).Select(f => f.Name));
        Skipping.UnlessCapability((value & flags) == flags, needs, $"KVM_CAP_XEN_HVM = 0x{value:x}");
    }

    /// <summary>Whether the kernel has a change of <c>suites/changes.tsv</c>, by its release and the stable backports. Probe instead where a probe exists.</summary>
    public bool Has(string change) => Host.Has(change);

    /// <summary>Skips the test unless the kernel has a named change.</summary>
    public void RequireChange(string change) => Skipping.UnlessChange(Has(change), change, $"release {Host.StableRelease}");

    /// <summary>The machine the kernel runs on, for claims about devices.</summary>
    public async Task<Target> TargetAsync() => (await Host.TargetAsync());

    async ValueTask ITestObserver.TestStartingAsync(TestEvidence evidence)
    {
        KernelHost host = await s_host.Value;
        await host.PrepareForTestAsync(TestContext.Current.TestClass?.TestClassName);
        _tests[evidence.TestId] = new TestSessions(host, evidence);
    }

    async ValueTask ITestObserver.TestFinishedAsync(TestEvidence evidence)
    {
        if (_tests.TryRemove(evidence.TestId, out TestSessions? test))
        {
            await test.EndAsync();
        }
    }

    public async ValueTask DisposeAsync()
    {
        TestEvidence.Forget(this);
        if (s_host.IsValueCreated && s_host.Value.IsCompletedSuccessfully)
        {
            await s_host.Value.Result.DisposeAsync();
        }
    }

    private static readonly (uint Flag, string Name)[] XenFlagNames = [.. typeof(KvmXenConst)
        .GetFields(BindingFlags.Public | BindingFlags.Static)
        .Where(f => f.Name.StartsWith("KVM_XEN_HVM_CONFIG_", StringComparison.Ordinal))
        .Select(f => ((uint)f.GetValue(null)!, f.Name))];

    private ValueTask<TestSessions> CurrentAsync()
    {
        string id = TestEvidence.Current?.TestId ?? throw new InvalidOperationException("The kernel is given to tests only.");
        return ValueTask.FromResult(_tests[id]);
    }
}

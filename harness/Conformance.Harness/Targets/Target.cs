// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Wire;

namespace Conformance.Targets;

/// <summary>
/// A kernel under test that is running, with an agent in it. Disposing ends it and leaves nothing behind, whatever state it is in.
/// </summary>
public abstract class Target : IAsyncDisposable
{
    /// <summary>How the kernel is reached, as results name it: <c>emulated</c>, <c>local</c>, <c>ssh</c>.</summary>
    public abstract string Kind { get; }

    /// <summary>What executes the kernel: <c>tcg</c>, <c>kvm</c>; <c>none</c> on its own hardware.</summary>
    public abstract string Accelerator { get; }

    /// <summary>Version of the QEMU it runs in; null when it runs in none.</summary>
    public virtual string? QemuVersion => null;

    /// <summary>The agent in the kernel.</summary>
    public abstract AgentConnection Agent { get; }

    /// <summary>What the kernel prints.</summary>
    public abstract KernelLog Log { get; }

    /// <summary>Completes when the kernel, or what carries it, is gone, with the reason; it never fails.</summary>
    public abstract Task<TargetDeath> Died { get; }

    /// <summary>QEMU's monitor; null when there is no QEMU.</summary>
    public virtual QmpClient? Qmp => null;

    /// <summary>Path, as the kernel under test sees it, of a guest image.</summary>
    /// <param name="name">File name of the image: <c>x86_64.img</c>.</param>
    public abstract string GuestImagePath(string name);

    /// <summary>Ends the kernel in order. Returns when it is gone; <see cref="Died"/> then says <see cref="TargetEnd.ShutDown"/>.</summary>
    public abstract Task ShutdownAsync();

    /// <summary>Loads modules under test with all they need; those that are built in or that the kernel does not have are passed over.</summary>
    /// <exception cref="MachineFaultException">The kernel refused one.</exception>
    public abstract Task LoadModulesAsync(IReadOnlyList<string> names);

    /// <summary>A file of the kernel under test, such as those of procfs.</summary>
    /// <exception cref="IOException">It cannot be read.</exception>
    public abstract Task<string> ReadFileAsync(string path);

    /// <summary>
    /// Says why the target no longer does what it was asked: dead, hung or well after all. Waits a little for a report that is still being
    /// printed, and asks the agent for a sign of life.
    /// </summary>
    /// <param name="noticed">What the asker saw.</param>
    public virtual async Task<TargetDeath> DiagnoseAsync(Exception noticed)
    {
        Task<AgentSession> alive = SignOfLifeAsync();
        await Task.WhenAny(Died, Task.WhenAny(alive, Task.Delay(KernelLog.ReportPatience)));
        if (Died.IsCompleted)
        {
            return await Died;
        }

        return alive.IsCompletedSuccessfully
            ? new TargetDeath(TargetEnd.Lost, $"the kernel answers, but: {noticed.Message}", Log.Tail())
            : new TargetDeath(TargetEnd.KernelHung, $"the kernel does not answer any more: {noticed.Message}", Log.Tail());
    }

    /// <inheritdoc/>
    public abstract ValueTask DisposeAsync();

    private async Task<AgentSession> SignOfLifeAsync()
    {
        using var patience = new CancellationTokenSource(KernelLog.ReportPatience);
        return await Agent.OpenSessionAsync(patience.Token);
    }
}

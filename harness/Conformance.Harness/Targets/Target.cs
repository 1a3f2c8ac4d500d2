// SPDX-License-Identifier: MIT

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

    /// <inheritdoc/>
    public abstract ValueTask DisposeAsync();
}

// SPDX-License-Identifier: MIT
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>What differs between architectures in how a VM with a guest is put together: one class each, nothing elsewhere.</summary>
internal abstract class GuestMachine
{
    /// <summary>File name of the guest image.</summary>
    public abstract string ImageName { get; }

    /// <summary>Guest-physical address of slot 0.</summary>
    public abstract ulong MemoryBase { get; }

    /// <summary>Guest-physical address the image is loaded at.</summary>
    public abstract ulong ImageAddress { get; }

    /// <summary>Guest-physical address of a vCPU's area.</summary>
    public abstract ulong Area(int index);

    /// <summary>Creates the in-kernel interrupt controllers, before any vCPU.</summary>
    public abstract Task CreateIrqchipAsync(Vm vm);

    /// <summary>Puts a new vCPU at the image's entry.</summary>
    public abstract Task InitialiseAsync(Vcpu vcpu);

    /// <summary>What can only be done once every vCPU is there.</summary>
    public virtual Task FinishAsync(Vm vm) => Task.CompletedTask;

    /// <summary>Bytes of the run structure that every exit carries.</summary>
    public abstract IReadOnlyList<VcpuRange> Ranges { get; }

    /// <summary>Recognises a call-out in the run structure.</summary>
    public abstract IReadOnlyList<VcpuCondition> CallOutConditions(uint value);

    /// <summary>The value of a call-out; null when the exit is something else.</summary>
    public abstract uint? CallOutOf(GuestExit exit);
}

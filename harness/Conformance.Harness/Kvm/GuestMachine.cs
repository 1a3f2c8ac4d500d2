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

    /// <summary>Finds out what vCPUs need and does not differ between VMs of a kernel.</summary>
    public virtual Task PrepareAsync(KvmSystem system) => Task.CompletedTask;

    /// <summary>Asks for the in-kernel interrupt controllers, before any vCPU.</summary>
    /// <returns>Tells the VM of them once the burst is over.</returns>
    public abstract Action<Vm> AskForIrqchip(CallBurst burst, FdArgument vm, VmOptions options);

    /// <summary>Asks for what puts a new vCPU at the image's entry.</summary>
    /// <returns>What remains to be asked for once the burst is over.</returns>
    public abstract Action<CallBurst> AskForStart(CallBurst burst, FdArgument vm, FdArgument vcpu, VmOptions options, int index, uint id);

    /// <summary>What can only be done once every vCPU is there.</summary>
    public virtual Task FinishAsync(Vm vm) => Task.CompletedTask;

    /// <summary>Bytes of the run structure that every exit carries.</summary>
    public abstract IReadOnlyList<VcpuRange> Ranges { get; }

    /// <summary>Recognises a call-out in the run structure.</summary>
    public abstract IReadOnlyList<VcpuCondition> CallOutConditions(uint value);

    /// <summary>The value of a call-out; null when the exit is something else.</summary>
    public abstract uint? CallOutOf(GuestExit exit);
}

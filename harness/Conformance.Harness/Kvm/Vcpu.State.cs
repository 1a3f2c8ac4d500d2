// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>What makes a stopped x86 vCPU go on elsewhere where it was.</summary>
/// <param name="Script">What its guest was running, in the memory that moves along.</param>
public sealed record VcpuSnapshot(kvm_regs Registers, kvm_sregs SpecialRegisters, byte[] Lapic, kvm_vcpu_events Events, uint MpState, GuestScript? Script);

public sealed partial class Vcpu
{
    /// <summary>Takes the vCPU out of KVM_RUN, wherever it is, with nothing left half done.</summary>
    public async Task PauseAsync()
    {
        await KickAsync();
        GuestExit exit = await NextExitAsync();
        if (!exit.Kicked)
        {
            throw new UnexpectedExitException($"{exit} instead of a kick");
        }
    }

    /// <summary>Saves a vCPU that is paused, or has not run yet.</summary>
    public async Task<VcpuSnapshot> SaveAsync() => new(
        await GetRegistersAsync(), await GetSpecialRegistersAsync(), await GetLapicAsync(), await GetEventsAsync(), await GetMpStateAsync(), _script);

    /// <summary>Puts this vCPU, which has not run yet, where another one was.</summary>
    public async Task RestoreAsync(VcpuSnapshot state)
    {
        await SetSpecialRegistersAsync(state.SpecialRegisters);
        await SetRegistersAsync(state.Registers);
        Vm.Expect(await TrySetLapicAsync(state.Lapic), "KVM_SET_LAPIC");
        Vm.Expect(await TrySetEventsAsync(state.Events), "KVM_SET_VCPU_EVENTS");
        Vm.Expect(await TrySetMpStateAsync(state.MpState), "KVM_SET_MP_STATE");
        _script = state.Script;
    }

    /// <summary>Runs a restored vCPU: its guest goes on with the script it had.</summary>
    public Task ContinueAsync() => StartThreadAsync();
}

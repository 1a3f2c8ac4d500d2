// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using Conformance.Guests;
using Conformance.Uapi;

namespace Conformance.Kvm;

public sealed partial class Vcpu
{
    private const uint ApicBaseMsr = 0x1b;
    private const ulong ApicBaseX2Apic = 0xfee00c00;
    private const ulong ApicBaseBoot = 0x100;

    public async Task<LapicState> ReadLapicAsync() => new(await GetLapicAsync());

    public async Task WriteLapicAsync(LapicState state) => Vm.Expect(await TrySetLapicAsync(state.Registers), "KVM_SET_LAPIC");

    /// <summary>Reads, changes and writes the local APIC's registers.</summary>
    public async Task UpdateLapicAsync(Action<LapicState> change)
    {
        LapicState state = await ReadLapicAsync();
        change(state);
        await WriteLapicAsync(state);
    }

    /// <summary>Puts the local APIC in x2APIC mode, through its MSR.</summary>
    public async Task EnterX2ApicAsync()
    {
        if (!await TrySetMsrAsync(ApicBaseMsr, ApicBaseX2Apic | (Id == 0 ? ApicBaseBoot : 0)))
        {
            throw new KvmException($"KVM_SET_MSRS({Name}, IA32_APIC_BASE, x2APIC)", Errno.EINVAL);
        }
    }

    /// <summary>Runs commands, each vCPU with its interrupts as they were.</summary>
    [OverloadResolutionPriority(1)]
    public Task<ScriptResults> ExecuteAsync(params ReadOnlySpan<GuestCommand> commands)
    {
        var script = new GuestScript();
        foreach (GuestCommand command in commands)
        {
            script.Add(command);
        }

        return ExecuteAsync(script);
    }

    /// <summary>
    /// Lets the guest take, in order, everything that is pending or becomes so by what its handlers do: interrupts are enabled for one
    /// command and disabled again.
    /// </summary>
    public async Task<IReadOnlyList<LogRecord>> TakeRecordsAsync()
    {
        ulong before = (await ReadControlAsync()).Records;
        await ExecuteAsync(GuestCommand.InterruptsOn, GuestCommand.Nop, GuestCommand.InterruptsOff);
        return [.. (await ReadLogAsync()).Where(r => r.Sequence >= before)];
    }

    /// <summary>The vectors among <see cref="TakeRecordsAsync"/>: <c>0x52 0x41</c>, or <c>-</c>.</summary>
    public async Task<string> TakeAsync()
    {
        IReadOnlyList<LogRecord> records = await TakeRecordsAsync();
        IEnumerable<string> taken = records.Where(r => r.Kind is LogRecordKind.Interrupt or LogRecordKind.Nmi)
            .Select(r => r.Kind == LogRecordKind.Nmi ? "NMI" : r.Vector.ToString());
        return records.Count == 0 ? "-" : string.Join(" ", taken);
    }

    /// <summary>Acknowledges the interrupt in service of highest priority.</summary>
    public Task AcknowledgeAsync() => ExecuteAsync(GuestCommand.Eoi);

    /// <summary>From now on handlers log and leave the acknowledgement to <see cref="AcknowledgeAsync"/>.</summary>
    public Task LeaveInServiceAsync(params ReadOnlySpan<ApicVector> vectors)
    {
        var handlers = new HandlerTable();
        foreach (ApicVector vector in vectors)
        {
            handlers.Set(vector, HandlerPolicy.Default with { Acknowledge = Acknowledgement.Never });
        }

        return SetHandlersAsync(handlers);
    }

    /// <summary>Starts the guest with its local APIC enabled and interrupts disabled.</summary>
    public Task BootAsync(bool x2apic = false) => ExecuteAsync(GuestCommand.EnableApic(x2apic));

    /// <summary>Waits for the guest to stop at <see cref="GuestCommand.Ask"/>; <see cref="ResumeAsync"/> lets it go on.</summary>
    public async Task WaitUntilAskingAsync()
    {
        GuestExit exit = await NextExitAsync();
        if (Vm.Machine.CallOutOf(exit) != (uint)CallOut.Ask)
        {
            throw new UnexpectedExitException($"{exit} where the script asks; {await ReadControlAsync()}");
        }
    }
}

public sealed partial class Vm
{
    /// <summary>Starts the guest on every vCPU (<see cref="Vcpu.BootAsync"/>).</summary>
    public async Task BootAsync(bool x2apic = false)
    {
        foreach (Vcpu vcpu in _vcpus)
        {
            await vcpu.BootAsync(x2apic);
        }
    }

    /// <summary>What each vCPU takes now: <c>0x41 | -</c>.</summary>
    public async Task<string> TakeAsync()
    {
        var taken = new List<string>();
        foreach (Vcpu vcpu in _vcpus)
        {
            taken.Add(await vcpu.TakeAsync());
        }

        return string.Join(" | ", taken);
    }
}

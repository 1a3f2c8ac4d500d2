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

    /// <summary>Runs commands that may exit to user space. Writes are let go, reads get <paramref name="answer"/>.</summary>
    /// <returns>The exits, in order: <c>gpa 0xd0000000 write 4 0x12345678</c>, <c>port 0x510 read 1</c>, <c>eoi 0x41</c>.</returns>
    public async Task<IReadOnlyList<string>> ExecuteExitingAsync(ulong answer, params GuestCommand[] commands)
    {
        var script = new GuestScript();
        script.AddRange(commands);
        await StartAsync(script);
        var exits = new List<string>();
        while (true)
        {
            GuestExit exit = await NextExitAsync();
            switch (exit)
            {
                case var ready when Vm.Machine.CallOutOf(ready) == (uint)CallOut.Ready:
                    return exits;
                case { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_MMIO, Run: { mmio_is_write: 1 } run }:
                    ulong mask = run.mmio_len >= 8 ? ulong.MaxValue : (1ul << ((int)run.mmio_len * 8)) - 1;
                    exits.Add($"gpa 0x{run.mmio_phys_addr:x} write {run.mmio_len} 0x{run.mmio_data & mask:x}");
                    await ResumeAsync();
                    break;
                case { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_MMIO, Run: var run }:
                    exits.Add($"gpa 0x{run.mmio_phys_addr:x} read {run.mmio_len}");
                    await ResumeWithAsync(exit, answer);
                    break;
                case { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_IO, Run: { io_direction: 1 } run }:
                    ulong ioMask = (1ul << (run.io_size * 8)) - 1;
                    exits.Add($"port 0x{run.io_port:x} write {run.io_size} 0x{exit.IoData & ioMask:x}" + (run.io_count > 1 ? $" x {run.io_count}" : ""));
                    await ResumeAsync();
                    break;
                case { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_IO, Run: var run }:
                    exits.Add($"port 0x{run.io_port:x} read {run.io_size}" + (run.io_count > 1 ? $" x {run.io_count}" : ""));
                    await ResumeWithAsync(exit, answer);
                    break;
                case { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_IOAPIC_EOI, Run: var run }:
                    exits.Add($"eoi 0x{run.eoi_vector:x2}");
                    await ResumeAsync();
                    break;
                default:
                    throw new UnexpectedExitException($"{exit}; {await ReadControlAsync()}");
            }
        }
    }

    /// <inheritdoc cref="ExecuteExitingAsync(ulong, GuestCommand[])"/>
    public Task<IReadOnlyList<string>> ExecuteExitingAsync(params GuestCommand[] commands) => ExecuteExitingAsync(0, commands);

    /// <summary>Where the guest counts how often it took this vector.</summary>
    public ulong TakenAddress(ApicVector vector) => Area + GuestProtocol.ControlTaken + (vector.Value * 4u);

    /// <summary>
    /// Lets the guest take, in order, everything that is pending or becomes so by what its handlers do: interrupts are enabled for one
    /// command, which exits so that a KVM without the processor's virtualization looks too, and disabled again.
    /// </summary>
    public async Task<IReadOnlyList<LogRecord>> TakeRecordsAsync()
    {
        ulong before = (await ReadControlAsync()).Records;
        await ExecuteAsync(GuestCommand.InterruptsOn, GuestCommand.Notify, GuestCommand.InterruptsOff);
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

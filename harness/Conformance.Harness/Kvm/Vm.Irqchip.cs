// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

public sealed partial class Vm
{
    // struct kvm_irqchip is { chip_id, pad } and 512 bytes of state.
    private const int IrqchipHeader = 8;
    private const int IrqchipSize = 520;

    public async Task<IoApicState> GetIoApicAsync()
    {
        (Errno error, byte[] state) = await TryGetIrqchipAsync(KvmX86Const.KVM_IRQCHIP_IOAPIC);
        Expect(error, "KVM_GET_IRQCHIP(I/O APIC)");
        return IoApicState.Parse(KernelSession.Read<kvm_ioapic_state>(state.AsSpan(IrqchipHeader)));
    }

    public async Task SetIoApicAsync(IoApicState state) => Expect(
        await TrySetIrqchipAsync(IrqchipArgument(KvmX86Const.KVM_IRQCHIP_IOAPIC, KernelSession.Bytes(state.ToUapi()))), "KVM_SET_IRQCHIP(I/O APIC)");

    /// <summary>Writes redirection entries by way of the state, the rest unchanged.</summary>
    public async Task SetRedirectionAsync(params IReadOnlyList<(int Pin, RedirectionEntry Entry)> entries)
    {
        IoApicState state = await GetIoApicAsync();
        foreach ((int pin, RedirectionEntry entry) in entries)
        {
            state[pin] = entry;
        }

        await SetIoApicAsync(state);
    }

    public Task SetRedirectionAsync(int pin, RedirectionEntry entry) => SetRedirectionAsync([(pin, entry)]);

    public async Task<RedirectionEntry> GetRedirectionAsync(int pin) => (await GetIoApicAsync())[pin];

    /// <summary>Enables the local APIC of every vCPU in software, through their state: no guest need run to take an interrupt into its IRR.</summary>
    public async Task EnableLocalApicsAsync()
    {
        foreach (Vcpu vcpu in _vcpus)
        {
            await vcpu.UpdateLapicAsync(l => l[LapicState.SpuriousVector] = LapicState.SoftwareEnable);
        }
    }

    /// <summary>The vectors pending in each vCPU's local APIC: <c>0x41 0x52 | - | 0x41</c>.</summary>
    public async Task<string> PendingAsync()
    {
        var pending = new List<string>();
        foreach (Vcpu vcpu in _vcpus)
        {
            IReadOnlyList<ApicVector> vectors = (await vcpu.ReadLapicAsync()).Vectors(LapicState.Request);
            pending.Add(vectors.Count == 0 ? "-" : string.Join(" ", vectors));
        }

        return string.Join(" | ", pending);
    }

    /// <summary>What is pending now, and then nothing more is.</summary>
    public async Task<string> DrainPendingAsync()
    {
        string pending = await PendingAsync();
        foreach (Vcpu vcpu in _vcpus)
        {
            await vcpu.UpdateLapicAsync(l => l.Registers.AsSpan(LapicState.Request, 0x80).Clear());
        }

        return pending;
    }

    /// <summary>Raises and lowers a GSI's line.</summary>
    public async Task PulseAsync(uint gsi)
    {
        await IrqLineAsync(gsi, true);
        await IrqLineAsync(gsi, false);
    }

    /// <summary>KVM_IRQ_LINE_STATUS: how many took it, 0 when coalesced, -1 when ignored.</summary>
    public async Task<int> IrqLineStatusAsync(uint gsi, bool asserted)
    {
        (Errno error, int status) = await TryIrqLineStatusAsync(gsi, asserted);
        Expect(error, $"KVM_IRQ_LINE_STATUS({gsi}, {asserted})");
        return status;
    }

    private static byte[] IrqchipArgument(uint chip, byte[] state)
    {
        byte[] argument = new byte[IrqchipSize];
        BitConverter.TryWriteBytes(argument, chip);
        state.CopyTo(argument, IrqchipHeader);
        return argument;
    }
}

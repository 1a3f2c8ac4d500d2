// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Uapi;

namespace Conformance.Kvm;

public sealed partial class Vm
{
    /// <summary>
    /// The interrupt log guest on every vCPU: the local APIC enabled, every vector logged, acknowledged and notified, interrupts on, halted.
    /// Returns when each has said that it halts.
    /// </summary>
    /// <param name="x2apic">In x2APIC mode.</param>
    public async Task RunUntilHaltedAsync(bool x2apic = false)
    {
        foreach (Vcpu vcpu in _vcpus)
        {
            await vcpu.RunUntilHaltedAsync(x2apic);
        }
    }

    /// <summary>What vCPU 0 took, once it took <paramref name="until"/>.</summary>
    public Task<ApicVector[]> ReadInterruptLogAsync(ApicVector until) => _vcpus[0].ReadInterruptLogAsync(until);
}

public sealed partial class Vcpu
{
    /// <summary>Every vector from 0x20 logged, acknowledged and notified.</summary>
    public static HandlerTable NotifyingHandlers()
    {
        var handlers = new HandlerTable();
        for (int vector = 0; vector < 256; vector++)
        {
            handlers.Set(new ApicVector((byte)vector), HandlerPolicy.Default with { Notify = true });
        }

        return handlers;
    }

    /// <inheritdoc cref="Vm.RunUntilHaltedAsync"/>
    public async Task RunUntilHaltedAsync(bool x2apic = false)
    {
        await Task.WhenAll(
            SetHandlersAsync(NotifyingHandlers()),
            StartAsync(new GuestScript()
                .Add(GuestCommand.EnableApic(x2apic))
                .Add(GuestCommand.InterruptsOn)
                .Add(GuestCommand.HaltUntilLogged(ulong.MaxValue))));
        await WaitUntilHaltingAsync();
    }

    /// <summary>The vectors taken, once <paramref name="until"/> is among them.</summary>
    public async Task<ApicVector[]> ReadInterruptLogAsync(ApicVector until)
    {
        InterruptLog log = await ReadLogAsync(l => l.Vectors.Contains(until), until.ToString());
        return [.. log.Vectors];
    }
}

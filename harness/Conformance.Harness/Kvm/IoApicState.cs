// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>The state of the in-kernel I/O APIC (kvm_ioapic_state).</summary>
public sealed class IoApicState
{
    public const int Pins = 24;

    /// <summary>Where the kernel puts its registers.</summary>
    public const ulong DefaultBase = 0xfec00000;

    private readonly RedirectionEntry[] _entries = new RedirectionEntry[Pins];

    public ulong BaseAddress { get; set; } = DefaultBase;

    /// <summary>The register selected.</summary>
    public uint Select { get; set; }

    public uint Id { get; set; }

    /// <summary>Lines up, and edges not delivered, a bit per pin.</summary>
    public uint Irr { get; set; }

    public RedirectionEntry this[int pin]
    {
        get => _entries[pin];
        set => _entries[pin] = value;
    }

    /// <summary>As it is after KVM_CREATE_IRQCHIP.</summary>
    public static IoApicState New()
    {
        var state = new IoApicState();
        Array.Fill(state._entries, RedirectionEntry.Masked);
        return state;
    }

    public bool IsPending(int pin) => ((Irr >> pin) & 1) != 0;

    internal static unsafe IoApicState Parse(kvm_ioapic_state raw)
    {
        var state = new IoApicState { BaseAddress = raw.base_address, Select = raw.ioregsel, Id = raw.id, Irr = raw.irr };
        for (int pin = 0; pin < Pins; pin++)
        {
            state._entries[pin] = new RedirectionEntry(raw.redirtbl[pin]);
        }

        return state;
    }

    internal unsafe kvm_ioapic_state ToUapi()
    {
        var raw = new kvm_ioapic_state { base_address = BaseAddress, ioregsel = Select, id = Id, irr = Irr };
        for (int pin = 0; pin < Pins; pin++)
        {
            raw.redirtbl[pin] = _entries[pin].Bits;
        }

        return raw;
    }

    public override string ToString()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"base 0x{BaseAddress:x} select 0x{Select:x} id 0x{Id:x} irr 0x{Irr:x6}\n");
        for (int pin = 0; pin < Pins; pin++)
        {
            text.Append(CultureInfo.InvariantCulture, $"  {pin,2}  0x{_entries[pin].Bits:x16}  {_entries[pin]}\n");
        }

        return text.ToString();
    }
}

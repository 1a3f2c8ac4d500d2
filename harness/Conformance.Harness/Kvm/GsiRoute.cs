// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>One entry of a VM's GSI routing table (kvm_irq_routing_entry).</summary>
/// <remarks>KVM_SET_GSI_ROUTING replaces the whole table: what is not in the call is gone.</remarks>
public readonly record struct GsiRoute
{
    private readonly kvm_irq_routing_entry _entry;

    private GsiRoute(kvm_irq_routing_entry entry, string text)
    {
        _entry = entry;
        Text = text;
    }

    private string Text { get; }

    /// <summary>The entry as the kernel is given it.</summary>
    public kvm_irq_routing_entry Entry => _entry;

    public uint Gsi => _entry.gsi;

    public static GsiRoute Msi(uint gsi, MsiMessage message) => new(
        new kvm_irq_routing_entry
        {
            gsi = gsi,
            type = KvmConst.KVM_IRQ_ROUTING_MSI,
            flags = message.DeviceId is null ? 0 : KvmConst.KVM_MSI_VALID_DEVID,
            msi_address_lo = (uint)message.Address,
            msi_address_hi = (uint)(message.Address >> 32),
            msi_data = message.Data,
            msi_devid = message.DeviceId ?? 0,
        },
        $"{gsi} msi {message}");

    /// <param name="irqchip">x86: 0 and 1 are the PICs, 2 the I/O APIC; arm64: 0.</param>
    public static GsiRoute Irqchip(uint gsi, uint irqchip, uint pin) => new(
        new kvm_irq_routing_entry { gsi = gsi, type = KvmConst.KVM_IRQ_ROUTING_IRQCHIP, irqchip_irqchip = irqchip, irqchip_pin = pin },
        $"{gsi} irqchip {irqchip} pin {pin}");

    public static GsiRoute IoApic(uint gsi, uint pin) => Irqchip(gsi, KvmX86Const.KVM_IRQCHIP_IOAPIC, pin);

    /// <param name="vcpu">The vCPU id (KVM_CREATE_VCPU's argument), which need not exist yet.</param>
    public static GsiRoute XenEventChannel(uint gsi, uint port, uint vcpu = 0,
        uint priority = KvmConst.KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL) => new(
        new kvm_irq_routing_entry
        {
            gsi = gsi,
            type = KvmConst.KVM_IRQ_ROUTING_XEN_EVTCHN,
            xen_evtchn_port = port,
            xen_evtchn_vcpu = vcpu,
            xen_evtchn_priority = priority,
        },
        $"{gsi} xen-evtchn port {port} vcpu {vcpu}");

    /// <summary>Any entry at all, for the rules about wrong ones.</summary>
    public static GsiRoute Raw(kvm_irq_routing_entry entry) =>
        new(entry, $"{entry.gsi} type {entry.type} flags 0x{entry.flags:x}");

    public override string ToString() => Text ?? "none";
}

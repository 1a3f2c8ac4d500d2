// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Conformance.Uapi;

namespace Conformance.Kvm;

public sealed partial class Vm
{
    // KVM_IRQFD

    /// <summary>KVM_IRQFD with any flags and descriptors at all.</summary>
    public async Task<Errno> TryIrqfdAsync(kvm_irqfd irqfd, string what, bool offload = false) =>
        (await Session.IoctlAsync(Fd, KvmIoctl.KVM_IRQFD, irqfd, what, offload)).Outcome;

    public Task<Errno> TryAssignIrqfdAsync(uint gsi, KernelFd eventfd) =>
        TryIrqfdAsync(new kvm_irqfd { fd = (uint)eventfd.Number, gsi = gsi }, $"assign gsi {gsi} {eventfd}");

    /// <summary>Binds an eventfd to a GSI: from now on a signal injects the GSI.</summary>
    public async Task AssignIrqfdAsync(uint gsi, KernelFd eventfd) =>
        Expect(await TryAssignIrqfdAsync(gsi, eventfd), $"KVM_IRQFD(assign, gsi {gsi}, {eventfd})");

    public Task<Errno> TryAssignResampleIrqfdAsync(uint gsi, KernelFd eventfd, KernelFd resamplefd) => TryIrqfdAsync(new kvm_irqfd
    {
        fd = (uint)eventfd.Number,
        gsi = gsi,
        flags = KvmConst.KVM_IRQFD_FLAG_RESAMPLE,
        resamplefd = (uint)resamplefd.Number,
    }, $"assign gsi {gsi} {eventfd} resample {resamplefd}");

    /// <summary>Binds an eventfd that asserts a level-triggered GSI until the guest's EOI, which signals the resamplefd.</summary>
    public async Task AssignResampleIrqfdAsync(uint gsi, KernelFd eventfd, KernelFd resamplefd) => Expect(
        await TryAssignResampleIrqfdAsync(gsi, eventfd, resamplefd), $"KVM_IRQFD(assign, gsi {gsi}, {eventfd}, resample {resamplefd})");

    public Task<Errno> TryDeassignIrqfdAsync(uint gsi, KernelFd eventfd) => TryIrqfdAsync(
        new kvm_irqfd { fd = (uint)eventfd.Number, gsi = gsi, flags = KvmConst.KVM_IRQFD_FLAG_DEASSIGN }, $"deassign gsi {gsi} {eventfd}");

    /// <summary>Unbinds; when it returns nothing more arrives from this pair.</summary>
    public async Task DeassignIrqfdAsync(uint gsi, KernelFd eventfd) =>
        Expect(await TryDeassignIrqfdAsync(gsi, eventfd), $"KVM_IRQFD(deassign, gsi {gsi}, {eventfd})");

    // KVM_SET_GSI_ROUTING

    public Task<Errno> TrySetGsiRoutingAsync(params IReadOnlyList<GsiRoute> routes) => TrySetGsiRoutingAsync(0, routes);

    /// <param name="flags">Of the table; none is defined.</param>
    public async Task<Errno> TrySetGsiRoutingAsync(uint flags, IReadOnlyList<GsiRoute> routes) =>
        (await Session.IoctlAsync(Fd, KvmIoctl.KVM_SET_GSI_ROUTING, RoutingTable(flags, routes), string.Join("; ", routes))).Outcome;

    /// <summary>Replaces the routing table.</summary>
    public async Task SetGsiRoutingAsync(params IReadOnlyList<GsiRoute> routes) =>
        Expect(await TrySetGsiRoutingAsync(0, routes), $"KVM_SET_GSI_ROUTING({string.Join("; ", routes)})");

    /// <summary>The argument of KVM_SET_GSI_ROUTING: { nr, flags } and the entries. Programs put it in memory themselves.</summary>
    public static byte[] RoutingTable(uint flags, IReadOnlyList<GsiRoute> routes)
    {
        byte[] table = new byte[8 + (routes.Count * Marshal.SizeOf<kvm_irq_routing_entry>())];
        BinaryPrimitives.WriteInt32LittleEndian(table, routes.Count);
        BinaryPrimitives.WriteUInt32LittleEndian(table.AsSpan(4), flags);
        for (int i = 0; i < routes.Count; i++)
        {
            MemoryMarshal.Write(table.AsSpan(8 + (i * 48)), routes[i].Entry);
        }

        return table;
    }

    // KVM_SIGNAL_MSI

    public Task<IoctlAnswer> TrySignalMsiAsync(kvm_msi msi, string what) => Session.IoctlAsync(Fd, KvmIoctl.KVM_SIGNAL_MSI, msi, what);

    public Task<IoctlAnswer> TrySignalMsiAsync(MsiMessage message) => TrySignalMsiAsync(new kvm_msi
    {
        address_lo = (uint)message.Address,
        address_hi = (uint)(message.Address >> 32),
        data = message.Data,
        flags = message.DeviceId is null ? 0 : KvmConst.KVM_MSI_VALID_DEVID,
        devid = message.DeviceId ?? 0,
    }, message.ToString());

    /// <returns>How many vCPUs took it, as the kernel counts: 0 when the destination is absent or cannot.</returns>
    public async Task<long> SignalMsiAsync(MsiMessage message)
    {
        IoctlAnswer answer = await TrySignalMsiAsync(message);
        Expect(answer.Error, $"KVM_SIGNAL_MSI({message})");
        return answer.Result;
    }

    // KVM_IRQ_LINE

    public async Task<Errno> TryIrqLineAsync(uint irq, bool asserted) => (await Session.IoctlAsync(Fd, KvmIoctl.KVM_IRQ_LINE,
        new kvm_irq_level { irq = irq, level = asserted ? 1u : 0 }, $"{irq} = {(asserted ? 1 : 0)}")).Outcome;

    public async Task IrqLineAsync(uint irq, bool asserted) => Expect(await TryIrqLineAsync(irq, asserted), $"KVM_IRQ_LINE({irq}, {asserted})");

    /// <returns>The status the kernel wrote: 1 delivered, 0 coalesced, -1 ignored.</returns>
    public async Task<(Errno Error, int Status)> TryIrqLineStatusAsync(uint irq, bool asserted)
    {
        (Errno error, kvm_irq_level value) = await Session.TryGetAsync(Fd, KvmIoctl.KVM_IRQ_LINE_STATUS,
            new kvm_irq_level { irq = irq, level = asserted ? 1u : 0 }, $"{irq} = {(asserted ? 1 : 0)}");
        return (error, value.status);
    }

    // KVM_IOEVENTFD

    public async Task<Errno> TryIoeventfdAsync(kvm_ioeventfd argument, string what) =>
        (await Session.IoctlAsync(Fd, KvmIoctl.KVM_IOEVENTFD, argument, what)).Outcome;

    public Task<Errno> TryAssignIoeventfdAsync(Ioeventfd match, KernelFd eventfd) => TryIoeventfdAsync(match.Argument(eventfd, 0), $"assign {match} {eventfd}");

    /// <summary>From now on a guest write that matches adds 1 to the eventfd and does not exit.</summary>
    public async Task AssignIoeventfdAsync(Ioeventfd match, KernelFd eventfd) =>
        Expect(await TryAssignIoeventfdAsync(match, eventfd), $"KVM_IOEVENTFD(assign, {match}, {eventfd})");

    public Task<Errno> TryDeassignIoeventfdAsync(Ioeventfd match, KernelFd eventfd) =>
        TryIoeventfdAsync(match.Argument(eventfd, KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN), $"deassign {match} {eventfd}");

    public async Task DeassignIoeventfdAsync(Ioeventfd match, KernelFd eventfd) =>
        Expect(await TryDeassignIoeventfdAsync(match, eventfd), $"KVM_IOEVENTFD(deassign, {match}, {eventfd})");
}

/// <summary>What an ioeventfd matches: bus, address, length and optionally data.</summary>
/// <param name="Address">Guest-physical address, or port.</param>
/// <param name="Length">Of the write in bytes; 0: any (KVM_CAP_IOEVENTFD_ANY_LENGTH).</param>
public readonly record struct Ioeventfd(ulong Address, uint Length)
{
    /// <summary>Port I/O instead of memory.</summary>
    public bool Pio { get; init; }

    /// <summary>Only a write of exactly this value matches; null: every value.</summary>
    public ulong? Datamatch { get; init; }

    public kvm_ioeventfd Argument(KernelFd eventfd, uint extraFlags) => new()
    {
        addr = Address,
        len = Length,
        fd = eventfd.Number,
        datamatch = Datamatch ?? 0,
        flags = (Pio ? KvmConst.KVM_IOEVENTFD_FLAG_PIO : 0) | (Datamatch is null ? 0 : KvmConst.KVM_IOEVENTFD_FLAG_DATAMATCH) | extraFlags,
    };

    public override string ToString() => $"{(Pio ? "port" : "gpa")} 0x{Address:x} len {Length}{(Datamatch is ulong d ? $" data 0x{d:x}" : "")}";
}

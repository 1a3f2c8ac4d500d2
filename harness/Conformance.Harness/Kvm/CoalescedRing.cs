// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>A write that the kernel collected instead of exiting.</summary>
public readonly record struct CoalescedWrite(ulong Address, uint Length, ulong Data, bool Pio)
{
    public override string ToString() => $"{(Pio ? "port" : "gpa")} 0x{Address:x} len {Length} data 0x{Data:x}";
}

/// <summary>The ring of coalesced writes: a page in every vCPU's mapping, shared by the VM.</summary>
public sealed class CoalescedRing
{
    private const int PageSize = 4096;
    private const int RecordSize = 24;

    private readonly Mapping _run;
    private readonly ulong _offset;

    private CoalescedRing(Mapping run, ulong offset)
    {
        _run = run;
        _offset = offset;
    }

    /// <summary>Places in the ring; one of them stays free.</summary>
    public static uint Capacity => (PageSize - 8) / RecordSize;

    /// <summary>The ring, where KVM_CAP_COALESCED_MMIO says it is.</summary>
    public static async Task<CoalescedRing> OpenAsync(Vcpu vcpu) =>
        new(await vcpu.RunAsync(), (ulong)await vcpu.Vm.CheckExtensionAsync(KvmCap.CoalescedMmio) * PageSize);

    public Task<uint> ReadFirstAsync() => _run.ReadUInt32Async(_offset);

    public Task<uint> ReadLastAsync() => _run.ReadUInt32Async(_offset + 4);

    public async Task SetAsync(uint first, uint last)
    {
        await _run.WriteUInt32Async(_offset, first);
        await _run.WriteUInt32Async(_offset + 4, last);
    }

    /// <summary>Takes everything that is in the ring, oldest first.</summary>
    public async Task<IReadOnlyList<CoalescedWrite>> TakeAsync()
    {
        byte[] page = await _run.ReadAsync(_offset, PageSize);
        uint first = BinaryPrimitives.ReadUInt32LittleEndian(page), last = BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(4));
        var writes = new List<CoalescedWrite>();
        for (; first != last; first = (first + 1) % Capacity)
        {
            kvm_coalesced_mmio record = KernelSession.Read<kvm_coalesced_mmio>(page.AsSpan(8 + ((int)first * RecordSize)));
            ulong mask = record.len >= 8 ? ulong.MaxValue : (1ul << ((int)record.len * 8)) - 1;
            writes.Add(new CoalescedWrite(record.phys_addr, record.len, record.data & mask, record.pio != 0));
        }

        await _run.WriteUInt32Async(_offset, last);
        return writes;
    }
}

public sealed partial class Vm
{
    public Task<Errno> TryRegisterCoalescedAsync(ulong address, uint size, uint pio = 0) => TryCoalescedAsync(KvmIoctl.KVM_REGISTER_COALESCED_MMIO, address, size, pio);

    public Task<Errno> TryUnregisterCoalescedAsync(ulong address, uint size, uint pio = 0) => TryCoalescedAsync(KvmIoctl.KVM_UNREGISTER_COALESCED_MMIO, address, size, pio);

    /// <summary>From now on guest writes within the zone are collected in the ring.</summary>
    public async Task RegisterCoalescedAsync(ulong address, uint size, bool pio = false) =>
        Expect(await TryRegisterCoalescedAsync(address, size, pio ? 1u : 0), $"KVM_REGISTER_COALESCED_MMIO(0x{address:x}, {size})");

    private async Task<Errno> TryCoalescedAsync(Ioctl request, ulong address, uint size, uint pio) =>
        (await Session.IoctlAsync(Fd, request, new kvm_coalesced_mmio_zone { addr = address, size = size, pio = pio }, $"0x{address:x} size {size} pio {pio}")).Outcome;
}

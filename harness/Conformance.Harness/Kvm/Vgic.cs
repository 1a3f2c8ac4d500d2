// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Uapi;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.Kvm;

/// <summary>The GICv3 of an arm64 VM, and what user space may read and write of it while no vCPU is in KVM_RUN.</summary>
public sealed class Vgic : KvmDevice
{
    internal Vgic(Vm vm, KernelFd fd)
        : base(fd) => Vm = vm;

    public Vm Vm { get; }

    public static async Task<(Errno Error, Vgic? Gic)> TryCreateAsync(Vm vm)
    {
        (Errno error, KernelFd? fd) = await vm.TryCreateDeviceAsync(KvmConst.KVM_DEV_TYPE_ARM_VGIC_V3, "vgic");
        return (error, fd is null ? null : new Vgic(vm, fd));
    }

    /// <summary>Affinity of a vCPU: what KVM puts into MPIDR_EL1 for this id, Aff0 in the low byte.</summary>
    public static uint Affinity(uint vcpuId) => (vcpuId & 0xf) | ((vcpuId >> 4 & 0xff) << 8) | ((vcpuId >> 12 & 0xff) << 16);

    // Addresses and life cycle

    /// <param name="type">KVM_VGIC_V3_ADDR_TYPE_*.</param>
    public Task<Errno> TrySetAddressAsync(uint type, ulong value) => TrySetUInt64Async(KVM_DEV_ARM_VGIC_GRP_ADDR, type, value, $"address {type}");

    /// <param name="initial">A redistributor region is asked for by the index in it.</param>
    public Task<(Errno Error, ulong Value)> TryGetAddressAsync(uint type, ulong initial = 0) =>
        TryGetUInt64Async(KVM_DEV_ARM_VGIC_GRP_ADDR, type, $"address {type}", initial);

    /// <summary>The value of KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: where it is, how many redistributors it has and which region it is.</summary>
    /// <param name="flags">4 bits; none is defined.</param>
    public static ulong RedistributorRegion(ulong address, uint count, uint index, uint flags = 0) => address | ((ulong)count << 52) | (flags << 12) | index;

    public Task<Errno> TrySetIrqCountAsync(uint count) => TrySetUInt32Async(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, count, "NR_IRQS");

    public Task<(Errno Error, uint Value)> TryGetIrqCountAsync() => TryGetUInt32Async(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, "NR_IRQS");

    public Task<Errno> TryInitialiseAsync() => TrySetAsync(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, default, "INIT");

    public Task<Errno> TrySavePendingTablesAsync() =>
        TrySetAsync(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, default, "SAVE_PENDING_TABLES");

    public async Task SavePendingTablesAsync() => Vm.Expect(await TrySavePendingTablesAsync(), "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES");

    // Registers

    public Task<(Errno Error, uint Value)> TryReadDistributorAsync(uint offset) =>
        TryGetUInt32Async(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, $"GICD 0x{offset:x}");

    public Task<Errno> TryWriteDistributorAsync(uint offset, uint value) =>
        TrySetUInt32Async(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, value, $"GICD 0x{offset:x}");

    public async Task<uint> ReadDistributorAsync(uint offset) => Checked(await TryReadDistributorAsync(offset), $"GICD 0x{offset:x}");

    public async Task WriteDistributorAsync(uint offset, uint value) => Vm.Expect(await TryWriteDistributorAsync(offset, value), $"GICD 0x{offset:x} = 0x{value:x}");

    public Task<(Errno Error, uint Value)> TryReadRedistributorAsync(uint vcpuId, uint offset) =>
        TryGetUInt32Async(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, OfVcpu(vcpuId) | offset, $"GICR of vCPU {vcpuId} 0x{offset:x}");

    public Task<Errno> TryWriteRedistributorAsync(uint vcpuId, uint offset, uint value) =>
        TrySetUInt32Async(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, OfVcpu(vcpuId) | offset, value, $"GICR of vCPU {vcpuId} 0x{offset:x}");

    public async Task<uint> ReadRedistributorAsync(uint vcpuId, uint offset) =>
        Checked(await TryReadRedistributorAsync(vcpuId, offset), $"GICR of vCPU {vcpuId} 0x{offset:x}");

    public async Task WriteRedistributorAsync(uint vcpuId, uint offset, uint value) =>
        Vm.Expect(await TryWriteRedistributorAsync(vcpuId, offset, value), $"GICR of vCPU {vcpuId} 0x{offset:x} = 0x{value:x}");

    /// <summary>A 64-bit redistributor register, as its two halves.</summary>
    public async Task<ulong> ReadRedistributor64Async(uint vcpuId, uint offset)
    {
        uint[] halves = await Task.WhenAll(ReadRedistributorAsync(vcpuId, offset), ReadRedistributorAsync(vcpuId, offset + 4));
        return halves[0] | ((ulong)halves[1] << 32);
    }

    /// <inheritdoc cref="ReadRedistributor64Async"/>
    public Task WriteRedistributor64Async(uint vcpuId, uint offset, ulong value) =>
        Task.WhenAll(WriteRedistributorAsync(vcpuId, offset, (uint)value), WriteRedistributorAsync(vcpuId, offset + 4, (uint)(value >> 32)));

    public Task<(Errno Error, ulong Value)> TryReadCpuRegisterAsync(uint vcpuId, IccRegister register) =>
        TryGetUInt64Async(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, OfVcpu(vcpuId) | (uint)register, $"ICC_{register} of vCPU {vcpuId}");

    public Task<Errno> TryWriteCpuRegisterAsync(uint vcpuId, IccRegister register, ulong value) =>
        TrySetUInt64Async(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, OfVcpu(vcpuId) | (uint)register, value, $"ICC_{register} of vCPU {vcpuId}");

    public async Task<ulong> ReadCpuRegisterAsync(uint vcpuId, IccRegister register) =>
        Checked(await TryReadCpuRegisterAsync(vcpuId, register), $"ICC_{register} of vCPU {vcpuId}");

    public async Task WriteCpuRegisterAsync(uint vcpuId, IccRegister register, ulong value) =>
        Vm.Expect(await TryWriteCpuRegisterAsync(vcpuId, register, value), $"ICC_{register} of vCPU {vcpuId} = 0x{value:x}");

    /// <summary>The input lines of 32 interrupts.</summary>
    /// <param name="first">A multiple of 32.</param>
    public Task<(Errno Error, uint Value)> TryReadLinesAsync(uint vcpuId, uint first, uint info = VGIC_LEVEL_INFO_LINE_LEVEL) =>
        TryGetUInt32Async(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, Lines(vcpuId, first, info), $"lines from {first} of vCPU {vcpuId}");

    /// <inheritdoc cref="TryReadLinesAsync"/>
    public Task<Errno> TryWriteLinesAsync(uint vcpuId, uint first, uint value, uint info = VGIC_LEVEL_INFO_LINE_LEVEL) =>
        TrySetUInt32Async(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, Lines(vcpuId, first, info), value, $"lines from {first} of vCPU {vcpuId}");

    public async Task<uint> ReadLinesAsync(uint first, uint vcpuId = 0) => Checked(await TryReadLinesAsync(vcpuId, first), "LEVEL_INFO");

    public async Task WriteLinesAsync(uint first, uint value, uint vcpuId = 0) => Vm.Expect(await TryWriteLinesAsync(vcpuId, first, value), "LEVEL_INFO");

    // One interrupt

    /// <summary>Enables an SPI, with a priority, for one vCPU.</summary>
    /// <param name="edge">Edge triggered, or level sensitive.</param>
    public async Task EnableAsync(Spi spi, bool edge = true, byte priority = 0xa0, uint vcpuId = 0)
    {
        uint[] old = await Task.WhenAll(ReadDistributorAsync(ConfigurationOf(spi)), ReadDistributorAsync(PriorityOf(spi)));
        await Task.WhenAll(
            WriteDistributorAsync(ConfigurationOf(spi), Configured(spi, old[0], edge)),
            WriteDistributorAsync(PriorityOf(spi), Prioritised(spi, old[1], priority)),
            RouteAsync(spi, vcpuId),
            WriteDistributorAsync(Gicd.Bit(Gicd.Isenabler, spi), Gicd.Mask(spi)));
    }

    public async Task ConfigureAsync(Spi spi, bool edge) =>
        await WriteDistributorAsync(ConfigurationOf(spi), Configured(spi, await ReadDistributorAsync(ConfigurationOf(spi)), edge));

    public async Task SetPriorityAsync(Spi spi, byte priority) =>
        await WriteDistributorAsync(PriorityOf(spi), Prioritised(spi, await ReadDistributorAsync(PriorityOf(spi)), priority));

    public Task RouteAsync(Spi spi, uint vcpuId) => WriteDistributorAsync(Gicd.Irouter + (spi.Value * 8), Affinity(vcpuId));

    /// <summary>Enables a PPI of one vCPU.</summary>
    public async Task EnableAsync(Ppi ppi, uint vcpuId, byte priority = 0xa0)
    {
        uint register = Gicr.Ipriorityr0 + (ppi.Value & ~3u);
        int shift = (int)(ppi.Value % 4 * 8);
        await WriteRedistributorAsync(vcpuId, register, (await ReadRedistributorAsync(vcpuId, register) & ~(0xffu << shift)) | ((uint)priority << shift));
        await WriteRedistributorAsync(vcpuId, Gicr.Isenabler0, 1u << (int)ppi.Value);
    }

    /// <summary>Group 1 forwarding on: without it no interrupt reaches a vCPU.</summary>
    public Task EnableDistributorAsync() => WriteDistributorAsync(Gicd.Ctlr, Gicd.CtlrEnableGroup1);

    // LPIs

    /// <summary>The table with one configuration byte per LPI from 8192, which all redistributors share.</summary>
    public static ulong PropertyTable => Arm64Layout.Scratch;

    /// <summary>A vCPU's table of pending LPIs: bit n is INTID n.</summary>
    /// <param name="index">Of the vCPU, at most 63.</param>
    public static ulong PendingTable(int index) => Arm64Layout.Scratch + 0x10000 + ((ulong)index * 0x10000);

    /// <summary>Gives every redistributor its LPI tables, for INTIDs of so many bits.</summary>
    /// <param name="enable">Also enables LPIs on them.</param>
    public Task SetLpiTablesAsync(int idBits = 16, bool enable = true)
    {
        // GICR_PROPBASER is one register for the whole GIC: the last word counts.
        List<Task> asked = [];
        for (int index = 0; index < Vm.Vcpus.Count; index++)
        {
            uint id = Vm.Vcpus[index].Id;
            asked.Add(WriteRedistributor64Async(id, Gicr.Propbaser, PropertyTable | (uint)(idBits - 1)));
            asked.Add(WriteRedistributor64Async(id, Gicr.Pendbaser, PendingTable(index)));
        }

        if (enable)
        {
            asked.Add(EnableLpisAsync());
        }

        return Task.WhenAll(asked);
    }

    public Task EnableLpisAsync() => Task.WhenAll(Vm.Vcpus.Select(v => WriteRedistributorAsync(v.Id, Gicr.Ctlr, Gicr.CtlrEnableLpis)));

    /// <summary>Writes an LPI's configuration byte; the GIC looks at it when the LPI is mapped and on INV and INVALL.</summary>
    public Task ConfigureAsync(Lpi lpi, bool enabled = true, byte priority = 0xa0) =>
        Vm.WriteMemoryAsync(PropertyTable + lpi.Value - Lpi.First, new[] { ConfigurationByte(enabled, priority) });

    public static byte ConfigurationByte(bool enabled, byte priority = 0xa0) => (byte)((priority & 0xfc) | (enabled ? 1 : 0));

    private static uint ConfigurationOf(Spi spi) => Gicd.Icfgr + (spi.Value / 16 * 4);

    private static uint Configured(Spi spi, uint old, bool edge)
    {
        uint bit = 2u << (int)(spi.Value % 16 * 2);
        return edge ? old | bit : old & ~bit;
    }

    private static uint PriorityOf(Spi spi) => Gicd.Ipriorityr + (spi.Value & ~3u);

    private static uint Prioritised(Spi spi, uint old, byte priority)
    {
        int shift = (int)(spi.Value % 4 * 8);
        return (old & ~(0xffu << shift)) | ((uint)priority << shift);
    }

    private static ulong OfVcpu(uint vcpuId) => (ulong)Affinity(vcpuId) << (int)KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;

    private static ulong Lines(uint vcpuId, uint first, uint info) => OfVcpu(vcpuId) | (info << (int)KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT) | first;

    private static T Checked<T>((Errno Error, T Value) answer, string what)
    {
        Vm.Expect(answer.Error, what);
        return answer.Value;
    }
}

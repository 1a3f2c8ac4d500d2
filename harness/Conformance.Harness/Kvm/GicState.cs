// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>
/// What a VMM saves of a GICv3 with ITSs and restores into a new VM: registers, lines and the guest memory that the LPI and ITS tables
/// are in. The tables themselves are written by SAVE_TABLES and SAVE_PENDING_TABLES before.
/// </summary>
public sealed class GicState
{
    private static readonly uint[] s_redistributor =
        [Gicr.Igroupr0, Gicr.Isenabler0, Gicr.Isactiver0, Gicr.Ispendr0, .. Enumerable.Range(0, 8).Select(n => Gicr.Ipriorityr0 + (uint)(n * 4)), Gicr.Icfgr1];

    private static readonly uint[] s_its = [Gits.BaserDevices, Gits.BaserCollections, Gits.Creadr, Gits.Cwriter];

    private GicState()
    {
    }

    /// <summary>Offset and value of every distributor register, in the order they are restored in.</summary>
    public required IReadOnlyList<(uint Offset, uint Value)> Distributor { get; init; }

    /// <summary>The input lines of 32 interrupts each, from SPI 32.</summary>
    public required IReadOnlyList<uint> Lines { get; init; }

    public required IReadOnlyList<RedistributorState> Redistributors { get; init; }

    public required IReadOnlyList<ItsState> Itss { get; init; }

    private IReadOnlyList<(ulong Address, byte[] Bytes)> Tables { get; init; } = [];

    public static async Task<GicState> ReadAsync(Vm vm)
    {
        (Errno _, uint irqs) = await vm.Gic.TryGetIrqCountAsync();
        var distributor = new List<(uint, uint)>();
        foreach (uint offset in DistributorOffsets(irqs))
        {
            distributor.Add((offset, await vm.Gic.ReadDistributorAsync(offset)));
        }

        var lines = new List<uint>();
        for (uint first = 32; first < irqs; first += 32)
        {
            lines.Add(await vm.Gic.ReadLinesAsync(first));
        }

        var redistributors = new List<RedistributorState>();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            var registers = new List<uint>();
            foreach (uint offset in s_redistributor)
            {
                registers.Add(await vm.Gic.ReadRedistributorAsync(vcpu.Id, offset));
            }

            redistributors.Add(new RedistributorState(vcpu.Id, await vm.Gic.ReadRedistributor64Async(vcpu.Id, Gicr.Propbaser),
                await vm.Gic.ReadRedistributor64Async(vcpu.Id, Gicr.Pendbaser), await vm.Gic.ReadRedistributorAsync(vcpu.Id, Gicr.Ctlr), registers));
        }

        var itss = new List<ItsState>();
        foreach (Its its in vm.Itss)
        {
            var registers = new List<ulong>();
            foreach (uint offset in s_its)
            {
                registers.Add(await its.ReadAsync(offset));
            }

            itss.Add(new ItsState(await its.ReadAsync(Gits.Cbaser), registers, await its.ReadAsync(Gits.Iidr), await its.ReadAsync(Gits.Ctlr)));
        }

        var tables = new List<(ulong, byte[])>();
        foreach ((ulong address, int length) in vm.Itss.Count == 0 ? [] : vm.Itss.SelectMany(its => its.Tables).Append((Vgic.PropertyTable, 0x10000 * (1 + vm.Vcpus.Count))))
        {
            tables.Add((address, await vm.ReadMemoryAsync(address, length)));
        }

        return new GicState
        {
            Distributor = distributor, Lines = lines, Redistributors = redistributors, Itss = itss,
            Tables = tables,
        };
    }

    /// <summary>Restores in the documented order: memory, redistributors, distributor, then of each ITS the queue, the other registers, the tables and last GITS_CTLR.</summary>
    public async Task WriteAsync(Vm vm)
    {
        foreach ((ulong address, byte[] bytes) in Tables)
        {
            await vm.WriteMemoryAsync(address, bytes);
        }

        foreach (RedistributorState state in Redistributors)
        {
            await vm.Gic.WriteRedistributor64Async(state.VcpuId, Gicr.Propbaser, state.Propbaser);
            await vm.Gic.WriteRedistributor64Async(state.VcpuId, Gicr.Pendbaser, state.Pendbaser);
            await vm.Gic.WriteRedistributorAsync(state.VcpuId, Gicr.Ctlr, state.Ctlr);
            for (int n = 0; n < s_redistributor.Length; n++)
            {
                await vm.Gic.WriteRedistributorAsync(state.VcpuId, s_redistributor[n], state.Registers[n]);
            }
        }

        foreach ((uint offset, uint value) in Distributor)
        {
            await vm.Gic.WriteDistributorAsync(offset, value);
        }

        for (int n = 0; n < Lines.Count; n++)
        {
            await vm.Gic.WriteLinesAsync((uint)(32 + (n * 32)), Lines[n]);
        }

        foreach ((ItsState state, Its its) in Itss.Zip(vm.Itss))
        {
            await its.WriteAsync(Gits.Iidr, state.Iidr);
            await its.WriteAsync(Gits.Cbaser, state.Cbaser);
            for (int n = 0; n < s_its.Length; n++)
            {
                await its.WriteAsync(s_its[n], state.Registers[n]);
            }

            await its.RestoreTablesAsync();
            await its.WriteAsync(Gits.Ctlr, state.Ctlr);
        }
    }

    private static IEnumerable<uint> DistributorOffsets(uint irqs)
    {
        yield return Gicd.Iidr;
        yield return Gicd.Ctlr;
        foreach (uint bank in new[] { Gicd.Igroupr, Gicd.Isenabler, Gicd.Isactiver, Gicd.Ispendr })
        {
            for (uint n = 1; n < irqs / 32; n++)
            {
                yield return bank + (n * 4);
            }
        }

        for (uint n = 32; n < irqs; n += 4)
        {
            yield return Gicd.Ipriorityr + n;
        }

        for (uint n = 2; n < irqs / 16; n++)
        {
            yield return Gicd.Icfgr + (n * 4);
        }

        for (uint n = 32; n < irqs; n++)
        {
            yield return Gicd.Irouter + (n * 8);
        }
    }
}

/// <param name="Registers">Of the private interrupts.</param>
public sealed record RedistributorState(uint VcpuId, ulong Propbaser, ulong Pendbaser, uint Ctlr, IReadOnlyList<uint> Registers);

/// <param name="Registers">GITS_BASER of devices and collections, GITS_CREADR, GITS_CWRITER.</param>
public sealed record ItsState(ulong Cbaser, IReadOnlyList<ulong> Registers, ulong Iidr, ulong Ctlr);

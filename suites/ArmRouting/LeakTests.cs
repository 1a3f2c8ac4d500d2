// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>LPIs and devices that nobody has a use for any more are given back: the kernel's own count of its small objects, before and after.</summary>
public sealed class LeakTests(KernelUnderTest kernel)
{
    private const int Count = 480;

    // Processors keep slabs of their own, which grow once and for all: a leak grows in every round.
    private const int Rounds = 4;
    private const int Tolerated = Count / 2;

    private static readonly DeviceId s_device = new(0x12);
    private static readonly CollectionId s_collection = new(0);

    [Fact]
    [Clause("arm-lpi/leak/end-of-the-vm")]
    public async Task LpisPendingAtTheEndOfTheVmAreGivenBack()
    {
        await using Vm beside = await kernel.CreateGicVmAsync();
        await ExpectNoGrowthAsync(beside.Session, async () =>
        {
            await using Vm vm = await CreateWithDeviceAsync();
            await MapAndRaiseAsync(vm, 0, Count, Lpi.First);
        });
    }

    [Fact]
    [Clause("arm-lpi/leak/discarded-while-pending")]
    public async Task LpisDiscardedWhilePendingAreGivenBack()
    {
        const int AtOnce = 96;
        await using Vm vm = await CreateWithDeviceAsync();
        uint lpi = Lpi.First;
        await ExpectNoGrowthAsync(vm.Session, async () =>
        {
            // Never the same LPI again: its next mapping might give back what its last one left.
            for (int first = 0; first < Count; first += AtOnce, lpi += AtOnce)
            {
                await MapAndRaiseAsync(vm, first, AtOnce, lpi);
                await vm.Its.IssueAsync([.. Events(first, AtOnce).Select(e => ItsCommand.DiscardEvent(s_device, e))]);
                await vm.Vcpus[0].TakePendingAsync();
            }
        });
    }

    [Fact]
    [Clause("arm-lpi/leak/moved-while-pending")]
    public async Task LpisMovedWhilePendingAreGivenBack()
    {
        const int AtOnce = 96;
        var other = new CollectionId(1);
        await using Vm vm = await CreateWithDeviceAsync(vcpus: 2);
        await vm.Its.IssueAsync(ItsCommand.MapCollection(other, 1));
        uint lpi = Lpi.First;
        await ExpectNoGrowthAsync(vm.Session, async () =>
        {
            for (int first = 0; first < Count; first += AtOnce, lpi += AtOnce)
            {
                await MapAndRaiseAsync(vm, first, AtOnce, lpi);
                await vm.Its.IssueAsync([.. Events(first, AtOnce).Select(e => ItsCommand.Move(s_device, e, other))]);
                // They are queued for vCPU 0, and go over when it has come out of the guest.
                await vm.Vcpus[0].TakePendingAsync(Arm64Command.LeaveAndReturn);
                await vm.Its.IssueAsync([.. Events(first, AtOnce).Select(e => ItsCommand.DiscardEvent(s_device, e))]);
                await vm.Vcpus[1].TakePendingAsync();
            }
        });
    }

    [Fact]
    [Clause("arm-lpi/leak/invalidated-by-the-redistributor")]
    public async Task LpisInvalidatedByTheRedistributorAreGivenBack()
    {
        const int AtOnce = 96;
        await using Vm vm = await CreateWithDeviceAsync();
        uint lpi = Lpi.First;
        await ExpectNoGrowthAsync(vm.Session, async () =>
        {
            for (int first = 0; first < Count; first += AtOnce, lpi += AtOnce)
            {
                uint firstLpi = lpi;
                await vm.Its.IssueAsync([.. Events(first, AtOnce).Select((e, n) => ItsCommand.MapEvent(s_device, e, new Lpi(firstLpi + (uint)n), s_collection))]);
                await vm.Vcpus[0].ExecuteAsync([.. Enumerable.Range(0, AtOnce).Select(n => Arm64Command.StoreRedistributor(0, Gicr.Invlpir, firstLpi + (uint)n, AccessWidth.Qword))]);
                await vm.Its.IssueAsync([.. Events(first, AtOnce).Select(e => ItsCommand.DiscardEvent(s_device, e))]);
            }
        });
    }

    [Fact]
    [Clause("arm-its/mapd/given-back")]
    public async Task DevicesThatAreUnmappedAreGivenBack()
    {
        await using Vm vm = await CreateWithDeviceAsync();
        ItsCommand[] once = [vm.Its.MapDevice(new DeviceId(0x20)), ItsCommand.UnmapDevice(new DeviceId(0x20))];
        await ExpectNoGrowthAsync(vm.Session, () => vm.Its.IssueAsync([.. Enumerable.Repeat(once, Count).SelectMany(c => c)]));
    }

    private static async Task ExpectNoGrowthAsync(KernelSession session, Func<Task> round)
    {
        await round();
        var growths = new List<long>();
        do
        {
            long before = await session.CountSmallObjectsAsync();
            await round();
            // What RCU gives back late counts for the next round, so only the last one waits for it.
            long after = growths.Count < Rounds - 1 ? await session.CountSmallObjectsAsync() : await session.CountSmallObjectsUntilAsync(below: before + Tolerated);
            growths.Add(after - before);
        }
        while (growths[^1] >= Tolerated && growths.Count < Rounds);

        growths[^1].Should().BeLessThan(Tolerated, "{0} of them leave nothing behind in one of the rounds, which grew by {1}", Count, string.Join(", ", growths));
    }

    private static IEnumerable<EventId> Events(int first, int count) => Enumerable.Range(first, count).Select(n => new EventId((uint)n));

    private static async Task MapAndRaiseAsync(Vm vm, int first, int count, uint firstLpi)
    {
        await vm.Its.IssueAsync([.. Events(first, count).Select(e => ItsCommand.MapEvent(s_device, e, new Lpi(firstLpi + e.Value - (uint)first), s_collection))]);
        await vm.Its.IssueAsync([.. Events(first, count).Select(e => ItsCommand.Raise(s_device, e))]);
    }

    private async Task<Vm> CreateWithDeviceAsync(int vcpus = 1)
    {
        Vm vm = await kernel.CreateItsVmAsync(vcpus);
        await vm.WriteMemoryAsync(Vgic.PropertyTable, Enumerable.Repeat(Vgic.ConfigurationByte(enabled: true), (Rounds + 1) * Count).ToArray());
        await vm.Its.IssueAsync(vm.Its.MapDevice(s_device, eventBits: 10), ItsCommand.MapCollection(s_collection, 0));
        return vm;
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>What holds for any device, also one whose registers nobody has described: the kernel itself signals its entries.</summary>
public sealed class NamedDeviceTests(KernelUnderTest kernel)
{
    private const uint FirstGsi = 24;
    private const byte FirstVector = 0x40;

    /// <summary>A vector each, between the fence and 0xff.</summary>
    private const uint MostEntries = 128;

    private static readonly ApicVector Fence = new(0x31);

    [Theory]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [Clause("vfio-irqs/trigger/none-hits-the-range")]
    [Clause("vfio-irqs/delivery/guest-vector")]
    public async Task EntrySignalledByTheKernelReachesItsVectorOnItsVcpu(IrqIndex index)
    {
        uint tried = 0;
        foreach (PciFunction function in await kernel.UndescribedAsync())
        {
            await using VfioDevice device = await VfioDevice.OpenAsync(await kernel.SessionAsync(), function);
            uint entries = Math.Min((await device.IrqInfoAsync(index)).Count, MostEntries);
            if (entries > 0)
            {
                await ExpectEachOnceAsync(device, index, entries);
                tried++;
            }
        }

        Skipping.UnlessHardware(tried > 0, $"a device with {index}", "none of those there are has it");
    }

    private async Task ExpectEachOnceAsync(VfioDevice device, IrqIndex index, uint entries)
    {
        await using Vm vm = await kernel.CreateVmAsync(vcpus: 2);
        EventFd[] eventfds = await kernel.CreateEventFdsAsync((int)entries);
        await vm.SetGsiRoutingAsync([.. eventfds.Select((_, i) => GsiRoute.Msi(FirstGsi + (uint)i, MsiMessage.Fixed((uint)i % 2, VectorOf(i))))]);
        for (int i = 0; i < eventfds.Length; i++)
        {
            await vm.AssignIrqfdAsync(FirstGsi + (uint)i, eventfds[i]);
        }

        await device.AttachAsync(index, 0, eventfds);
        await vm.RunUntilHaltedAsync();
        for (uint entry = 0; entry < entries; entry++)
        {
            await device.TriggerAsync(index, entry);
            await vm.Vcpus[(int)entry % 2].ReadInterruptLogAsync(VectorOf((int)entry));
        }

        // Deassigning drains, and the fence of lower priority is logged last.
        for (int i = 0; i < eventfds.Length; i++)
        {
            await vm.DeassignIrqfdAsync(FirstGsi + (uint)i, eventfds[i]);
        }

        for (int vcpu = 0; vcpu < 2; vcpu++)
        {
            await vm.SignalMsiAsync(MsiMessage.Fixed((uint)vcpu, Fence));
            ApicVector[] taken = await vm.Vcpus[vcpu].ReadInterruptLogAsync(Fence);
            taken.Should().Equal([.. Enumerable.Range(0, (int)entries).Where(e => e % 2 == vcpu).Select(VectorOf), Fence], $"these are {device}'s entries");
        }

        await device.DisableAsync(index);
    }

    private static ApicVector VectorOf(int entry) => new((byte)(FirstVector + entry));
}

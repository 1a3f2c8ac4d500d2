// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>Entries beyond the first set: added one by one since vfio-dynamic-msix, refused before.</summary>
public sealed class DynamicMsixTests(KernelUnderTest kernel)
{
    [Fact]
    [Clause("vfio-irqs/dynamic/noresize")]
    public async Task NoresizeIsClearExactlyWhereEntriesCanBeAdded()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        bool grows = (await device.IrqInfoAsync(IrqIndex.Msix)).CanGrow;
        grows.Should().Be(kernel.Has("vfio-dynamic-msix"));

        await device.AttachAsync(IrqIndex.Msix, 0, eventfd);
        (await device.TryAttachAsync(IrqIndex.Msix, 1, eventfd)).Should().Be(grows ? Errno.None : Errno.EINVAL);
        (await device.TryAttachAsync(IrqIndex.Msix, 15, eventfd)).Should().Be(grows ? Errno.None : Errno.EINVAL);
    }

    [Fact]
    [Clause("vfio-irqs/dynamic/added-singly")]
    public async Task EntriesAreAddedAndTakenAwaySingly()
    {
        kernel.RequireChange("vfio-dynamic-msix");
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(16);
        await device.AttachAsync(IrqIndex.Msix, 3, eventfds[3]);

        foreach (int entry in new[] { 7, 15, 0, 4 })
        {
            await device.AttachAsync(IrqIndex.Msix, (uint)entry, eventfds[entry]);
        }

        await device.TriggerAsync(IrqIndex.Msix, 0, 16);
        (await eventfds.CountsAsync()).Should().Be("1 - - 1 1 - - 1 - - - - - - - 1");
        await device.AttachAsync(IrqIndex.Msix, 7, (KernelFd?)null);
        await device.AttachAsync(IrqIndex.Msix, 3, (KernelFd?)null);
        await device.TriggerAsync(IrqIndex.Msix, 0, 16);
        (await eventfds.CountsAsync()).Should().Be("1 - - - 1 - - - - - - - - - - 1");
    }

    [Fact]
    [Clause("vfio-irqs/dynamic/delivers")]
    public async Task AddedEntryDeliversTheDevicesInterrupts()
    {
        kernel.RequireChange("vfio-dynamic-msix");
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds[0]);
        await nic.PrepareAsync(IrqIndex.Msix);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, eventfds[1]);

        for (ulong round = 0; round < 3; round++)
        {
            await nic.RaiseAsync(IrqIndex.Msix, 4);
            (await eventfds[1].WaitAsync()).Should().Be(1);
            await nic.RaiseAsync(IrqIndex.Msix, 0);
            (await eventfds[0].WaitAsync()).Should().Be(1);
            await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, (KernelFd?)null);
            await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, eventfds[1]);
        }

        (await eventfds.CountsAsync()).Should().Be("- -");
    }

    [Fact]
    [Clause("vfio-irqs/msi/fixed-set")]
    public async Task MsisBeyondTheFirstSetAreRefused()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(4);
        await device.AttachAsync(IrqIndex.Msi, 0, eventfds[..3]);

        (await device.TryAttachAsync(IrqIndex.Msi, 3, eventfds[3])).Should().Be(Errno.EINVAL);
        (await device.TryAttachAsync(IrqIndex.Msi, 15, eventfds[3])).Should().Be(Errno.EINVAL);
        await device.TriggerAsync(IrqIndex.Msi, 0, 3);
        (await eventfds.CountsAsync()).Should().Be("1 1 1 -");
    }
}

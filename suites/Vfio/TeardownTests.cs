// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>A device that ends, or starts over, with everything attached.</summary>
public sealed class TeardownTests(KernelUnderTest kernel)
{
    [Theory]
    [InlineData(IrqIndex.Intx)]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [Clause("vfio-irqs/teardown/close")]
    public async Task ClosedDeviceIsReleasedWithItsEventfdsAndOpensAgain(IrqIndex index)
    {
        KernelSession session = await kernel.SessionAsync();
        ReleasedEventfds released = new(session);
        PciFunction? function = null;
        await released.ExpectAsync("attached when its device was closed", async e =>
        {
            await using E1000eDevice nic = await kernel.OpenNicAsync();
            function = nic.Vfio.Function;
            await nic.PrepareAsync(index);
            await nic.Vfio.AttachAsync(index, 0, e);
            await nic.Vfio.AttachAsync(IrqIndex.Err, 0, e);
            await nic.Vfio.AttachAsync(IrqIndex.Req, 0, e);
            if (index == IrqIndex.Intx)
            {
                await nic.Vfio.SetIrqsAsync(IrqSet.Eventfds(index, IrqAction.Unmask, 0, e));
            }
        });

        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using E1000eDevice again = await kernel.OpenNicAsync();
        (await Interrupts.OfAsync(again.Vfio)).Should().BeEmpty();
        (await again.Vfio.TryTriggerAsync(index)).Should().Be(Errno.EINVAL, "it opens with no index in use");
        await again.PrepareAsync(index);
        await again.Vfio.AttachAsync(index, 0, eventfd);
        await again.RaiseAsync(index);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/delivery/none-after-disable")]
    public async Task InterruptAfterTheEndOfItsIndexSignalsNothing()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nic.PrepareAsync(IrqIndex.Msix);
        await nic.Vfio.DisableAsync(IrqIndex.Msix);

        await nic.RaiseAsync(IrqIndex.Msix);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, null, eventfds[1]);
        await nic.RaiseAsync(IrqIndex.Msix, 1);

        (await eventfds[1].WaitAsync()).Should().Be(1);
        (await eventfds[0].ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("vfio-irqs/teardown/killed-user")]
    [Clause("vfio-irqs/teardown/close-while-firing")]
    public async Task UserWhoIsKilledWhileTheDeviceFiresLeavesItUsable()
    {
        // The test's first process stays; the second is the one to be killed.
        await kernel.SessionAsync();
        KernelSession second = await kernel.CreateSessionAsync();
        EventFd fired = await second.CreateEventFdAsync();
        PciFunction function = (await PciFunction.FindAsync(second, EduDevice.Vendor, EduDevice.Device))!;
        var doomed = new EduDevice(await VfioDevice.OpenAsync(second, function));
        await doomed.PrepareAsync(IrqIndex.Msi);
        await doomed.Vfio.AttachAsync(IrqIndex.Msi, 0, fired);
        Mapping bar = await (await doomed.Vfio.RegionAsync(0)).MapAsync();
        var program = new AgentProgram("raise until killed") { Deadline = TimeSpan.FromSeconds(20) };
        program.Thread().Store(bar.Address + 0x60, 4, 1).Loop(0, 0);
        Task<ProgramOutcome> raising = second.Agent.RunProgramAsync(program);
        await fired.WaitAsync();
        await fired.WaitAsync();

        await second.DisposeAsync();
        Func<Task> ended = () => raising;
        await ended.Should().ThrowAsync<Exception>();

        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await edu.PrepareAsync(IrqIndex.Msi);
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfd);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.RaiseAsync(IrqIndex.Msi);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Theory]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [InlineData(IrqIndex.Intx)]
    [Clause("vfio-irqs/teardown/reset")]
    public async Task EventfdsOutliveAReset(IrqIndex index)
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await nic.Vfio.AttachAsync(index, 0, eventfd);
        await nic.PrepareAsync(index);
        await nic.RaiseAsync(index);
        (await eventfd.WaitAsync()).Should().Be(1);

        (await nic.Vfio.TryResetAsync()).Should().Be(Errno.None);
        (await eventfd.ReadAsync()).Should().BeNull();
        if (index == IrqIndex.Intx)
        {
            await nic.Vfio.UnmaskIntxAsync();
        }

        await nic.PrepareAsync(index);
        await nic.RaiseAsync(index);
        (await eventfd.WaitAsync()).Should().Be(1);
    }
}

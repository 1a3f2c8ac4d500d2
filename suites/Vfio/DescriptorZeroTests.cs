// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>0 is a descriptor as good as any.</summary>
public sealed class DescriptorZeroTests(KernelUnderTest kernel)
{
    [Theory]
    [InlineData(IrqIndex.Intx)]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [InlineData(IrqIndex.Err)]
    [InlineData(IrqIndex.Req)]
    [Clause("vfio-irqs/eventfd/zero")]
    public async Task EventfdWithTheNumberZeroIsAttached(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await MoveToZeroAsync(eventfd);

        await device.SetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 0, 0));
        await device.TriggerAsync(index);
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/eventfd/zero")]
    public async Task UnmaskEventfdWithTheNumberZeroUnmasks()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await edu.PrepareAsync(IrqIndex.Intx);
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await MoveToZeroAsync(eventfds[1]);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfds[0]);
        await edu.Vfio.SetIrqsAsync(IrqSet.Descriptors(IrqIndex.Intx, IrqAction.Unmask, 0, 0));

        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfds[0].WaitAsync()).Should().Be(1);
        await eventfds[1].SignalAsync();
        (await eventfds[0].WaitAsync()).Should().Be(1, "the line is still up");
    }

    // The session's standard input is /dev/null, and is its own.
    private static async Task MoveToZeroAsync(EventFd eventfd)
    {
        CallResult call = await eventfd.Session.Agent.CallAsync(new SystemCall(eventfd.Session.Numbers.Dup3, $"dup3({eventfd.Name}, 0)").Arg(eventfd.Number).Arg(0).Arg(0));
        ((Errno)call.Errno).Should().Be(Errno.None);
    }
}

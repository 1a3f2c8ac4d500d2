// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>The indexes that are no interrupts of the device: ERR, a PCI Express error, and REQ, somebody wants the device back.</summary>
public sealed class ErrReqTests(KernelUnderTest kernel)
{
    public static TheoryData<IrqIndex> Both => [IrqIndex.Err, IrqIndex.Req];

    [Theory, MemberData(nameof(Both))]
    [Clause("vfio-irqs/err-req/nothing-attached")]
    public async Task NothingIsAttachedAtFirst(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();

        (await device.TryTriggerAsync(index)).Should().Be(Errno.EINVAL);
        (await device.TryDisableAsync(index)).Should().Be(Errno.EINVAL);
        (await device.TrySetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 0, 1))).Should().Be(Errno.None);
        (await device.TryAttachAsync(index, 0, (KernelFd?)null)).Should().Be(Errno.None);
    }

    [Theory, MemberData(nameof(Both))]
    [Clause("vfio-irqs/err-req/trigger")]
    [Clause("vfio-irqs/err-req/detach")]
    public async Task TriggerSignalsOnceUntilDetached(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        foreach (bool byMinusOne in new[] { true, false })
        {
            await device.AttachAsync(index, 0, eventfd);
            (await eventfd.ReadAsync()).Should().BeNull();
            await device.TriggerAsync(index);
            (await eventfd.ReadAsync()).Should().Be(1);
            await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 0, 2));
            (await eventfd.ReadAsync()).Should().Be(1);
            await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 0, 0));
            (await eventfd.ReadAsync()).Should().BeNull();
            (await device.TrySetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 0))).Should().Be(Errno.EINVAL);
            (await device.TryAttachAsync(index, 0)).Should().Be(Errno.EINVAL);

            if (byMinusOne)
            {
                await device.AttachAsync(index, 0, (KernelFd?)null);
            }
            else
            {
                await device.DisableAsync(index);
            }

            (await device.TryTriggerAsync(index)).Should().Be(Errno.EINVAL);
            await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 0, 1));
            (await eventfd.ReadAsync()).Should().BeNull();
        }
    }

    [Theory, MemberData(nameof(Both))]
    [Clause("vfio-irqs/err-req/bad-fd")]
    public async Task RefusedDescriptorLeavesTheEventfdAttached(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await device.AttachAsync(index, 0, eventfd);
        foreach ((int number, Errno error) in new[] { (9999, Errno.EBADF), (device.Fd.Number, Errno.EINVAL) })
        {
            (await device.TrySetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 0, number))).Should().Be(error, $"descriptor {number}");
        }

        // Older kernels take a number below -1 and do nothing with it; the release that began to refuse it is not established.
        foreach (int number in new[] { -2, int.MinValue })
        {
            (await device.TrySetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 0, number))).Should().BeOneOf(Errno.EINVAL, Errno.None);
        }

        await device.TriggerAsync(index);
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/err-req/independent")]
    public async Task ErrReqAndMsixAreAttachedTogetherAndSignalledAlone()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(3);
        IrqIndex[] indexes = [IrqIndex.Err, IrqIndex.Req, IrqIndex.Msix];
        for (int i = 0; i < 3; i++)
        {
            await device.AttachAsync(indexes[i], 0, eventfds[i]);
        }

        await device.TriggerAsync(IrqIndex.Err);
        (await eventfds.CountsAsync()).Should().Be("1 - -");
        await device.TriggerAsync(IrqIndex.Req);
        (await eventfds.CountsAsync()).Should().Be("- 1 -");
        await device.DisableAsync(IrqIndex.Msix);
        await device.TriggerAsync(IrqIndex.Err);
        await device.TriggerAsync(IrqIndex.Req);
        (await eventfds.CountsAsync()).Should().Be("1 1 -");
        await device.DisableAsync(IrqIndex.Err);
        await device.TriggerAsync(IrqIndex.Req);
        (await eventfds.CountsAsync()).Should().Be("- 1 -");
    }

    [Theory, MemberData(nameof(Both))]
    [Clause("vfio-irqs/err-req/released")]
    public async Task EventfdsAreReleased(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd other = await kernel.CreateEventFdAsync();
        ReleasedEventfds released = new(device.Session);
        await released.ExpectAsync("replaced", async e =>
        {
            await device.AttachAsync(index, 0, e);
            await device.AttachAsync(index, 0, other);
        });
        await released.ExpectAsync("detached by -1", async e =>
        {
            await device.AttachAsync(index, 0, e);
            await device.AttachAsync(index, 0, (KernelFd?)null);
        });
        await released.ExpectAsync("detached by an empty trigger", async e =>
        {
            await device.AttachAsync(index, 0, e);
            await device.DisableAsync(index);
        });
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>A descriptor that is no eventfd, somewhere in the range: what the call leaves.</summary>
public sealed class RollbackTests(KernelUnderTest kernel)
{
    private const int NotOpen = 9999;

    public static TheoryData<IrqIndex> MessageIndexes => [IrqIndex.Msi, IrqIndex.Msix];

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/bad-fd")]
    [Clause("vfio-irqs/rollback/enabling-call-enables-nothing")]
    public async Task EnablingCallWithABadDescriptorEnablesNothing(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        for (int bad = 0; bad < 3; bad++)
        {
            foreach ((int number, Errno error) in new[] { (NotOpen, Errno.EBADF), (device.Fd.Number, Errno.EINVAL) })
            {
                int[] numbers = [eventfds[0].Number, eventfds[1].Number, eventfds[0].Number];
                numbers[bad] = number;
                (await device.TrySetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 1, numbers))).Should().Be(error);
                (await device.TryTriggerAsync(index, 1, 3)).Should().Be(Errno.EINVAL, "the index was not enabled");
                (await Interrupts.OfAsync(device)).Should().BeEmpty();
            }
        }

        (await eventfds.CountsAsync()).Should().Be("- -");
        await device.AttachAsync(index == IrqIndex.Msi ? IrqIndex.Msix : IrqIndex.Msi, 0, eventfds);
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/rollback/range-is-taken-away")]
    [Clause("vfio-irqs/rollback/rest-stays")]
    public async Task BadDescriptorTakesAwayTheRangeUpToItAndNothingElse(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(8);
        EventFd[] others = await kernel.CreateEventFdsAsync(3);
        await device.AttachAsync(index, 0, eventfds);

        // 2 and 3 are replaced, 4 fails, 5 is never reached.
        (await device.TrySetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 2, others[0].Number, others[1].Number, NotOpen, others[2].Number)))
            .Should().Be(Errno.EBADF);

        await device.TriggerAsync(index, 0, 8);
        (await eventfds.CountsAsync()).Should().Be("1 1 - - - 1 1 1");
        (await others.CountsAsync()).Should().Be("- - -");
        (await Interrupts.OfAsync(device)).Should().HaveCount(5);

        await device.AttachAsync(index, 2, others);
        await device.TriggerAsync(index, 0, 8);
        (await eventfds.CountsAsync()).Should().Be("1 1 - - - 1 1 1");
        (await others.CountsAsync()).Should().Be("1 1 1");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/rollback/rest-stays")]
    public async Task BadFirstDescriptorTakesAwayOnlyItsOwnEntry(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(4);
        await device.AttachAsync(index, 0, eventfds);

        (await device.TrySetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 1, device.Fd.Number, eventfds[3].Number))).Should().Be(Errno.EINVAL);

        await device.TriggerAsync(index, 0, 4);
        (await eventfds.CountsAsync()).Should().Be("1 - 1 1");
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>Eventfds of MSIs and MSI-X entries, signalled by SET_IRQS itself: which is hit, replaced, taken away.</summary>
public sealed class TriggerTests(KernelUnderTest kernel)
{
    private static readonly string AllOnce = string.Join(' ', Enumerable.Repeat("1", 16));
    private static readonly string Nothing = string.Join(' ', Enumerable.Repeat("-", 16));

    public static TheoryData<IrqIndex> MessageIndexes => [IrqIndex.Msi, IrqIndex.Msix];

    private async Task<(VfioDevice Device, EventFd[] Eventfds)> AttachAllAsync(IrqIndex index)
    {
        VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(16);
        await device.AttachAsync(index, 0, eventfds);
        return (device, eventfds);
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/trigger/none-hits-the-range")]
    public async Task RangeWithoutDataHitsExactlyItsEntries(IrqIndex index)
    {
        (VfioDevice device, EventFd[] eventfds) = await AttachAllAsync(index);
        await using VfioDevice _ = device;
        (await eventfds.CountsAsync()).Should().Be(Nothing, "attaching signals nothing");

        await device.TriggerAsync(index, 4, 9);
        (await eventfds.CountsAsync()).Should().Be("- - - - 1 1 1 1 1 1 1 1 1 - - -");
        await device.TriggerAsync(index, 0, 16);
        (await eventfds.CountsAsync()).Should().Be(AllOnce);
        await device.TriggerAsync(index, 15, 1);
        await device.TriggerAsync(index, 0, 1);
        (await eventfds.CountsAsync()).Should().Be("1 - - - - - - - - - - - - - - 1");
        await device.TriggerAsync(index, 3, 1);
        await device.TriggerAsync(index, 3, 1);
        (await eventfds.CountsAsync()).Should().Be("- - - 2 - - - - - - - - - - - -");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/trigger/bool-hits-those-that-are-set")]
    public async Task BooleansHitExactlyThoseThatAreNotZero(IrqIndex index)
    {
        (VfioDevice device, EventFd[] eventfds) = await AttachAllAsync(index);
        await using VfioDevice _ = device;

        await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 3, 1, 0, 2, 0, 0, 0xff));
        (await eventfds.CountsAsync()).Should().Be("- - - 1 - 1 - - 1 - - - - - - -");
        await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 0, 0, 0, 0, 0));
        (await eventfds.CountsAsync()).Should().Be(Nothing);
        await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 15, 1));
        (await eventfds.CountsAsync()).Should().Be("- - - - - - - - - - - - - - - 1");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/trigger/none-hits-the-range")]
    [Clause("vfio-irqs/eventfd/empty-range")]
    public async Task EmptyRangeBeyondTheStartHitsNothing(IrqIndex index)
    {
        (VfioDevice device, EventFd[] eventfds) = await AttachAllAsync(index);
        await using VfioDevice _ = device;

        (await device.TrySetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 5))).Should().Be(Errno.None);
        (await device.TryAttachAsync(index, 5)).Should().Be(Errno.None);
        (await eventfds.CountsAsync()).Should().Be(Nothing);
        await device.TriggerAsync(index, 0, 16);
        (await eventfds.CountsAsync()).Should().Be(AllOnce, "neither took anything away");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/minus-one-takes-away")]
    [Clause("vfio-irqs/trigger/skips-entries-without-eventfd")]
    public async Task MinusOneTakesAwayExactlyItsEntry(IrqIndex index)
    {
        (VfioDevice device, EventFd[] eventfds) = await AttachAllAsync(index);
        await using VfioDevice _ = device;

        await device.AttachAsync(index, 2, null, null);
        await device.AttachAsync(index, 15, (KernelFd?)null);
        await device.TriggerAsync(index, 0, 16);
        (await eventfds.CountsAsync()).Should().Be("1 1 - - 1 1 1 1 1 1 1 1 1 1 1 -");
        await device.SetIrqsAsync(IrqSet.Bools(index, IrqAction.Trigger, 1, 1, 1, 1, 1));
        (await eventfds.CountsAsync()).Should().Be("- 1 - - 1 - - - - - - - - - - -");

        await device.AttachAsync(index, 2, (KernelFd?)null);
        await device.AttachAsync(index, 2, eventfds[3]);
        await device.TriggerAsync(index, 0, 16);
        (await eventfds.CountsAsync()).Should().Be("1 1 - 1 1 1 1 1 1 1 1 1 1 1 1 -", "taking away twice is nothing, and the entry can be used again");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/replaces")]
    public async Task NewEventfdReplacesTheOldOneOfItsEntry(IrqIndex index)
    {
        (VfioDevice device, EventFd[] eventfds) = await AttachAllAsync(index);
        await using VfioDevice _ = device;
        EventFd[] others = await kernel.CreateEventFdsAsync(2);

        await device.AttachAsync(index, 6, others);
        await device.TriggerAsync(index, 0, 16);

        (await eventfds.CountsAsync()).Should().Be("1 1 1 1 1 1 - - 1 1 1 1 1 1 1 1");
        (await others.CountsAsync()).Should().Be("1 1");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/shared")]
    public async Task EventfdOfSeveralEntriesCountsEach(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        await device.AttachAsync(index, 0, eventfd, eventfd, null, eventfd);
        await device.TriggerAsync(index, 0, 4);

        (await eventfd.ReadAsync()).Should().Be(3);
        await device.AttachAsync(index, 1, (KernelFd?)null);
        await device.TriggerAsync(index, 0, 4);
        (await eventfd.ReadAsync()).Should().Be(2);
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/disable/ends-the-index")]
    [Clause("vfio-irqs/disable/others-may-follow")]
    public async Task DisabledIndexSignalsNothingAndCanBeEnabledAgain(IrqIndex index)
    {
        (VfioDevice device, EventFd[] eventfds) = await AttachAllAsync(index);
        await using VfioDevice _ = device;

        await device.DisableAsync(index);
        (await device.TryTriggerAsync(index, 0, 16)).Should().Be(Errno.EINVAL);
        (await device.TryDisableAsync(index)).Should().Be(Errno.EINVAL, "it is not enabled any more");
        (await eventfds.CountsAsync()).Should().Be(Nothing);

        await device.AttachAsync(index, 0, eventfds[..3]);
        await device.TriggerAsync(index, 0, 3);
        (await eventfds.CountsAsync()).Should().Be("1 1 1 - - - - - - - - - - - - -");
    }

    [Fact]
    [Clause("vfio-irqs/set/one-index-at-a-time")]
    [Clause("vfio-irqs/disable/others-may-follow")]
    [Clause("vfio-irqs/set/empty-trigger-of-another-index")]
    public async Task IndexesFollowEachOtherOnlyAfterADisable()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        IrqIndex[] indexes = [IrqIndex.Intx, IrqIndex.Msi, IrqIndex.Msix];
        foreach (IrqIndex used in indexes.Concat(indexes.Reverse()))
        {
            EventFd[] own = used == IrqIndex.Intx ? eventfds[..1] : eventfds;
            await device.AttachAsync(used, 0, own);
            foreach (IrqIndex other in indexes.Where(i => i != used))
            {
                (await device.TryAttachAsync(other, 0, eventfds[1])).Should().Be(Errno.EINVAL);
                (await device.TryAttachAsync(other, 0, (KernelFd?)null)).Should().Be(Errno.EINVAL);
                (await device.TryTriggerAsync(other)).Should().Be(Errno.EINVAL);
                (await device.TryDisableAsync(other)).Should().Be(Errno.EINVAL, "it is not the one in use");
            }

            await device.TriggerAsync(used, 0, (uint)own.Length);
            (await own.CountsAsync()).Should().Be(used == IrqIndex.Intx ? "1" : "1 1");
            await device.DisableAsync(used);
        }
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/empty-range-enables")]
    public async Task EmptyRangeEnablesTheEntriesBeforeIt(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(4);

        bool enables = kernel.Has("vfio-dynamic-msix");
        (await device.TryAttachAsync(index, 4)).Should().Be(enables ? Errno.None : Errno.EINVAL);
        if (!enables)
        {
            (await device.TryTriggerAsync(index)).Should().Be(Errno.EINVAL, "a refused call enables nothing");
            await device.AttachAsync(index, 0, null, null, null, null);
        }

        await device.TriggerAsync(index, 0, 4);
        await device.AttachAsync(index, 0, eventfds);
        await device.TriggerAsync(index, 0, 4);

        (await eventfds.CountsAsync()).Should().Be("1 1 1 1");
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/released")]
    public async Task EventfdsAreReleasedWhenTheyAreReplacedTakenAwayOrDisabled(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd first = await kernel.CreateEventFdAsync();
        await device.AttachAsync(index, 0, first, null);
        ReleasedEventfds released = new(device.Session);

        await released.ExpectAsync("replaced", async e =>
        {
            await device.AttachAsync(index, 0, e);
            await device.AttachAsync(index, 0, first);
        });
        await released.ExpectAsync("taken away", async e =>
        {
            await device.AttachAsync(index, 1, e);
            await device.AttachAsync(index, 1, (KernelFd?)null);
        });
        await released.ExpectAsync("disabled", async e =>
        {
            await device.AttachAsync(index, 1, e);
            await device.DisableAsync(index);
            await device.AttachAsync(index, 0, first, null);
        });
        await released.ExpectAsync("rolled back", async e =>
            (await device.TrySetIrqsAsync(IrqSet.Descriptors(index, IrqAction.Trigger, 0, e.Number, 9999))).Should().Be(Errno.EBADF));
    }

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/eventfd/name")]
    public async Task InterruptsAreNamedByKindEntryAndFunction(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        string kind = index == IrqIndex.Msi ? "vfio-msi" : "vfio-msix";

        await device.AttachAsync(index, 1, eventfds);
        (await Interrupts.OfAsync(device)).Should().Equal($"{kind}[1]({device})", $"{kind}[2]({device})");
        await device.AttachAsync(index, 1, (KernelFd?)null);
        (await Interrupts.OfAsync(device)).Should().Equal($"{kind}[2]({device})");
        await device.DisableAsync(index);
        (await Interrupts.OfAsync(device)).Should().BeEmpty();
    }
}

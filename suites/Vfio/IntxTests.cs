// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>
/// INTx of a device whose line stays up until it is acknowledged. The kernel masks the line when it signals; unmasking while it is still up
/// signals again, which is how these claims see whether it was masked.
/// </summary>
public sealed class IntxTests(KernelUnderTest kernel)
{
    private async Task<(EduDevice Edu, EventFd Eventfd)> AttachAsync()
    {
        EduDevice edu = await kernel.OpenEduAsync();
        await edu.PrepareAsync(IrqIndex.Intx);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        return (edu, eventfd);
    }

    private static async Task<bool> DisabledInDeviceAsync(EduDevice edu)
    {
        // The kernel shows the guest's view of the bit, not the device's: what the device does with its line tells.
        VfioRegion config = await edu.Vfio.ConfigAsync();
        return (await config.ReadUInt16Async(PciConfiguration.Command) & PciConfiguration.InterruptDisable) != 0;
    }

    [Fact]
    [Clause("vfio-irqs/intx/delivers")]
    [Clause("vfio-irqs/intx/automasked")]
    [Clause("vfio-irqs/intx/unmask-when-low")]
    public async Task LineSignalsOnceAndStaysMaskedUntilUnmasked()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        for (int i = 0; i < 3; i++)
        {
            await edu.RaiseAsync(IrqIndex.Intx);
            (await eventfd.WaitAsync()).Should().Be(1);
            await edu.AcknowledgeAsync(IrqIndex.Intx);
            // Masked: a new edge signals nothing, unmasking then finds the line up.
            await edu.RaiseAsync(IrqIndex.Intx);
            (await eventfd.ReadAsync()).Should().BeNull("the line is masked since it signalled");
            await edu.Vfio.UnmaskIntxAsync();
            (await eventfd.WaitAsync()).Should().Be(1, "unmasking finds the line up");
            await edu.AcknowledgeAsync(IrqIndex.Intx);
            await edu.Vfio.UnmaskIntxAsync();
            (await eventfd.ReadAsync()).Should().BeNull("the line is down");
        }

        (await DisabledInDeviceAsync(edu)).Should().BeFalse("masking is not shown in the command register");
    }

    [Fact]
    [Clause("vfio-irqs/intx/unmask-when-up")]
    public async Task UnmaskingALineThatIsUpSignalsAgainAndMasksAgain()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);

        for (int i = 0; i < 3; i++)
        {
            await edu.Vfio.UnmaskIntxAsync();
            (await eventfd.ReadAsync()).Should().Be(1, "the signal is sent before the call returns");
        }

        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.UnmaskIntxAsync();
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/unmask-unmasked")]
    public async Task UnmaskingAnUnmaskedLineIsNothing()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;

        await edu.Vfio.UnmaskIntxAsync();
        await edu.Vfio.UnmaskIntxAsync();
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Theory]
    [InlineData(IrqData.None)]
    [InlineData(IrqData.Bool)]
    [Clause("vfio-irqs/intx/mask")]
    [Clause("vfio-irqs/intx/bool")]
    public async Task MaskedLineSignalsOnlyWhenUnmasked(IrqData data)
    {
        IrqSet Of(IrqAction action, byte chosen) =>
            data == IrqData.None ? IrqSet.None(IrqIndex.Intx, action) : IrqSet.Bools(IrqIndex.Intx, action, 0, chosen);
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        foreach (byte chosen in new byte[] { 1, 0xff })
        {
            await edu.Vfio.SetIrqsAsync(Of(IrqAction.Mask, chosen));
            await edu.Vfio.SetIrqsAsync(Of(IrqAction.Mask, chosen));
            await edu.RaiseAsync(IrqIndex.Intx);
            (await eventfd.ReadAsync()).Should().BeNull();
            if (data == IrqData.Bool)
            {
                await edu.Vfio.SetIrqsAsync(Of(IrqAction.Unmask, 0));
                (await eventfd.ReadAsync()).Should().BeNull("a boolean of 0 unmasks nothing");
            }

            await edu.Vfio.SetIrqsAsync(Of(IrqAction.Unmask, chosen));
            (await eventfd.ReadAsync()).Should().Be(1);
            await edu.AcknowledgeAsync(IrqIndex.Intx);
            await edu.Vfio.SetIrqsAsync(Of(IrqAction.Unmask, chosen));
            (await eventfd.ReadAsync()).Should().BeNull();
        }

        if (data == IrqData.Bool)
        {
            await edu.Vfio.SetIrqsAsync(Of(IrqAction.Mask, 0));
        }

        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1, "it was not masked");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("vfio-irqs/intx/low-power")]
    public async Task DeviceThatSleptIsMaskedAsItWasBefore(bool masked)
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        if (masked)
        {
            await edu.Vfio.MaskIntxAsync();
        }

        await edu.Vfio.SleepAsync();
        await edu.Vfio.WakeAsync();

        await edu.RaiseAsync(IrqIndex.Intx);
        if (masked)
        {
            (await eventfd.ReadAsync()).Should().BeNull("waking unmasks nothing that its user has masked");
            await edu.Vfio.UnmaskIntxAsync();
        }

        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/trigger")]
    public async Task TriggerSignalsWithoutTheDevice()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;

        await edu.Vfio.TriggerAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().Be(1);
        foreach (byte chosen in new byte[] { 1, 2, 0x80 })
        {
            await edu.Vfio.SetIrqsAsync(IrqSet.Bools(IrqIndex.Intx, IrqAction.Trigger, 0, chosen));
            (await eventfd.ReadAsync()).Should().Be(1);
        }

        await edu.Vfio.SetIrqsAsync(IrqSet.Bools(IrqIndex.Intx, IrqAction.Trigger, 0, 0));
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.Vfio.MaskIntxAsync();
        await edu.Vfio.TriggerAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().Be(1, "masking stops the device, not the trigger");
        await edu.Vfio.UnmaskIntxAsync();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1, "a trigger does not mask");
    }

    [Fact]
    [Clause("vfio-irqs/intx/unmask-eventfd")]
    [Clause("vfio-irqs/intx/unmask-eventfd-takes-the-count")]
    public async Task SignalledUnmaskEventfdUnmasks()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        bool drains = kernel.Has("vfio-virqfd-drains");
        await using EventFd unmask = await kernel.CreateEventFdAsync();
        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask));

        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        await unmask.SignalAsync();
        (await eventfd.WaitAsync()).Should().Be(1, "the line is still up");
        (await unmask.ReadAsync()).Should().Be(drains ? null : 1ul);
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await unmask.SignalAsync(5);
        (await unmask.ReadAsync()).Should().Be(drains ? null : 5ul);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1, "it was unmasked");
    }

    [Fact]
    [Clause("vfio-irqs/intx/unmask-eventfd-pending")]
    public async Task UnmaskEventfdThatIsReadableUnmasksAtOnce()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        await using EventFd unmask = await kernel.CreateEventFdAsync(count: 1);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);

        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask));

        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/unmask-eventfd-errors")]
    [Clause("vfio-irqs/intx/unmask-eventfd-ends")]
    public async Task UnmaskEventfdIsOneAndEndsWithMinusOne()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        EventFd[] unmask = await kernel.CreateEventFdsAsync(2);
        Task<Errno> SetAsync(int number) => edu.Vfio.TrySetIrqsAsync(IrqSet.Descriptors(IrqIndex.Intx, IrqAction.Unmask, 0, number));

        (await SetAsync(9999)).Should().Be(Errno.EBADF);
        (await SetAsync(edu.Vfio.Fd.Number)).Should().Be(Errno.EINVAL);
        (await SetAsync(unmask[0].Number)).Should().Be(Errno.None);
        (await SetAsync(unmask[0].Number)).Should().Be(Errno.EBUSY);
        (await SetAsync(unmask[1].Number)).Should().Be(Errno.EBUSY);
        (await SetAsync(-1)).Should().Be(Errno.None);
        (await SetAsync(-1)).Should().Be(Errno.None, "there was none");

        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        await unmask[0].SignalAsync(3);
        (await unmask[0].ReadAsync()).Should().Be(3, "it is an ordinary eventfd again");
        (await eventfd.ReadAsync()).Should().BeNull();
        (await SetAsync(unmask[1].Number)).Should().Be(Errno.None);
        await unmask[1].SignalAsync();
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/unmask-eventfd-closed")]
    public async Task ClosedUnmaskEventfdEndsAndAnotherMayFollow()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        EventFd[] unmask = await kernel.CreateEventFdsAsync(2);
        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask[0]));

        await unmask[0].CloseAsync();
        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask[1]));

        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        await unmask[1].SignalAsync();
        (await eventfd.WaitAsync()).Should().Be(1, "the line is still up");
    }

    [Fact]
    [Clause("vfio-irqs/intx/mask-by-eventfd-is-absent")]
    public async Task MaskingByEventfdIsNotImplemented()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;

        (await edu.Vfio.TrySetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Mask, 0, eventfd))).Should().Be(Errno.ENOTTY);
        (await edu.Vfio.TrySetIrqsAsync(IrqSet.Descriptors(IrqIndex.Intx, IrqAction.Mask, 0, -1))).Should().Be(Errno.ENOTTY);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/replaced-eventfd")]
    [Clause("vfio-irqs/intx/eventfd-errors")]
    public async Task ReplacedEventfdGetsTheLineAndARefusedOneChangesNothing()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        await using EventFd second = await kernel.CreateEventFdAsync();
        Task<Errno> SetAsync(int number) => edu.Vfio.TrySetIrqsAsync(IrqSet.Descriptors(IrqIndex.Intx, IrqAction.Trigger, 0, number));

        (await SetAsync(9999)).Should().Be(Errno.EBADF);
        (await SetAsync(edu.Vfio.Fd.Number)).Should().Be(Errno.EINVAL);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        (await SetAsync(second.Number)).Should().Be(Errno.None);
        await edu.Vfio.UnmaskIntxAsync();
        (await second.WaitAsync()).Should().Be(1);
        (await eventfd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("vfio-irqs/intx/no-eventfd")]
    [FixedBy("18c198c96a81", "vfio/pci: Create persistent INTx handler")]
    public async Task LineWithoutEventfdSurvivesEverySignal()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        await using EventFd unmask = await kernel.CreateEventFdAsync();
        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask));
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, (KernelFd?)null);

        // Whatever the answers, nothing may be signalled and the kernel must not fault.
        await edu.Vfio.TryTriggerAsync(IrqIndex.Intx);
        await edu.RaiseAsync(IrqIndex.Intx);
        await unmask.SignalAsync();
        await edu.Vfio.TrySetIrqsAsync(IrqSet.None(IrqIndex.Intx, IrqAction.Unmask));
        (await eventfd.ReadAsync()).Should().BeNull();

        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        await edu.Vfio.TrySetIrqsAsync(IrqSet.None(IrqIndex.Intx, IrqAction.Unmask));
        await eventfd.ReadAsync();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/starts-without-eventfd")]
    public async Task LineThatIsEnabledWithoutEventfdSignalsTheOneItGetsLater()
    {
        kernel.RequireChange("vfio-persistent-intx");
        await using EduDevice edu = await kernel.OpenEduAsync();
        await edu.PrepareAsync(IrqIndex.Intx);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, (KernelFd?)null);
        (await Interrupts.OfAsync(edu.Vfio)).Should().Equal($"vfio-intx({edu.Vfio})");
        await edu.Vfio.TriggerAsync(IrqIndex.Intx);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        await edu.Vfio.DisableAsync(IrqIndex.Intx);
        (await Interrupts.OfAsync(edu.Vfio)).Should().BeEmpty();
    }

    [Fact]
    [Clause("vfio-irqs/intx/disint")]
    public async Task InterruptDisableMasksAndItsEndUnmasks()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;

        await edu.Vfio.SetCommandAsync(PciConfiguration.InterruptDisable);
        (await DisabledInDeviceAsync(edu)).Should().BeTrue();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.Vfio.UnmaskIntxAsync();
        (await eventfd.ReadAsync()).Should().BeNull("the guest's bit is stronger than unmask");
        await edu.Vfio.TriggerAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull("and than a trigger");
        await edu.Vfio.SetCommandAsync(0, PciConfiguration.InterruptDisable);
        (await eventfd.WaitAsync()).Should().Be(1, "the line is up");

        // A line that had not signalled stays ready.
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.UnmaskIntxAsync();
        await edu.Vfio.SetCommandAsync(PciConfiguration.InterruptDisable);
        await edu.Vfio.UnmaskIntxAsync();
        (await edu.Vfio.Function.ReadCommandAsync(edu.Session) & PciConfiguration.InterruptDisable).Should().NotBe(0, "unmasking a line that is down leaves the guest's bit alone");
        await edu.Vfio.SetCommandAsync(0, PciConfiguration.InterruptDisable);
        (await edu.Vfio.Function.ReadCommandAsync(edu.Session) & PciConfiguration.InterruptDisable).Should().Be(0);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/disint")]
    public async Task InterruptDisableWrittenAsAByteMasks()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        VfioRegion config = await edu.Vfio.ConfigAsync();

        await config.WriteAsync(PciConfiguration.Command + 1, [PciConfiguration.InterruptDisable >> 8]);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.Vfio.UnmaskIntxAsync();
        (await eventfd.ReadAsync()).Should().BeNull();
        await config.WriteAsync(PciConfiguration.Command + 1, [0]);
        (await eventfd.WaitAsync()).Should().Be(1, "the line is up");
    }

    [Theory]
    [InlineData(null)]
    [InlineData(IrqIndex.Msi)]
    [Clause("vfio-irqs/intx/disint-of-another-index")]
    public async Task InterruptDisableReachesTheDeviceWhileIntxIsNotInUse(IrqIndex? index)
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        if (index is IrqIndex other)
        {
            await edu.PrepareAsync(other);
            await edu.Vfio.AttachAsync(other, 0, eventfd);
        }

        for (int i = 0; i < 2; i++)
        {
            await edu.Vfio.SetCommandAsync(PciConfiguration.InterruptDisable);
            (await edu.Vfio.Function.ReadCommandAsync(edu.Session) & PciConfiguration.InterruptDisable).Should().NotBe(0);
            await edu.Vfio.SetCommandAsync(0, PciConfiguration.InterruptDisable);
            (await edu.Vfio.Function.ReadCommandAsync(edu.Session) & PciConfiguration.InterruptDisable).Should().Be(0);
        }

        if (index is IrqIndex used)
        {
            await edu.RaiseAsync(used);
            (await eventfd.WaitAsync()).Should().Be(1);
            await edu.Vfio.DisableAsync(used);
            (await edu.Vfio.Function.ReadCommandAsync(edu.Session) & PciConfiguration.InterruptDisable).Should().Be(0, "the end of MSI leaves the line able to interrupt");
        }
    }

    [Fact]
    [Clause("vfio-irqs/intx/disint-before-enabling")]
    public async Task LineEnabledWhileInterruptsAreDisabledStartsMasked()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await edu.PrepareAsync(IrqIndex.Intx);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await edu.Vfio.SetCommandAsync(PciConfiguration.InterruptDisable);

        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        (await edu.Vfio.Function.ReadCommandAsync(edu.Session) & PciConfiguration.InterruptDisable).Should().NotBe(0, "the device is masked, not only its eventfd");
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.Vfio.SetCommandAsync(0, PciConfiguration.InterruptDisable);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/intx/disable")]
    [Clause("vfio-irqs/intx/disable-masked")]
    [Clause("vfio-irqs/intx/disable-ends-unmask-eventfd")]
    public async Task DisabledLineIsSilentAndStartsUnmaskedAgain()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        await using EventFd unmask = await kernel.CreateEventFdAsync();
        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask));
        await edu.Vfio.MaskIntxAsync();

        await edu.Vfio.DisableAsync(IrqIndex.Intx);
        await unmask.SignalAsync();
        (await unmask.ReadAsync()).Should().Be(1, "it is an ordinary eventfd again");
        (await edu.Vfio.TryTriggerAsync(IrqIndex.Intx)).Should().Be(Errno.EINVAL);

        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1, "being masked does not outlive the index");
    }

    [Fact]
    [Clause("vfio-irqs/intx/released")]
    public async Task EventfdsOfTheLineAreReleased()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        ReleasedEventfds released = new(edu.Session);
        await released.ExpectAsync("replaced", async e =>
        {
            await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, e);
            await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        });
        await released.ExpectAsync("the unmask eventfd", async e =>
        {
            await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, e));
            await edu.Vfio.SetIrqsAsync(IrqSet.Descriptors(IrqIndex.Intx, IrqAction.Unmask, 0, -1));
        });
        await released.ExpectAsync("an unmask eventfd too many", async e =>
        {
            await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, eventfd));
            (await edu.Vfio.TrySetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, e))).Should().Be(Errno.EBUSY);
            await edu.Vfio.SetIrqsAsync(IrqSet.Descriptors(IrqIndex.Intx, IrqAction.Unmask, 0, -1));
        });
        await released.ExpectAsync("attached when the index was disabled", async e =>
        {
            await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, e);
            await edu.Vfio.DisableAsync(IrqIndex.Intx);
        });
    }

    [Fact]
    [Clause("vfio-irqs/intx/name")]
    public async Task LineIsNamedByItsFunction()
    {
        (EduDevice edu, EventFd eventfd) = await AttachAsync();
        await using EduDevice _ = edu;
        await using EventFd __ = eventfd;

        (await Interrupts.OfAsync(edu.Vfio)).Should().Equal($"vfio-intx({edu.Vfio})");
        await edu.Vfio.DisableAsync(IrqIndex.Intx);
        (await Interrupts.OfAsync(edu.Vfio)).Should().BeEmpty();
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Level-triggered irqfds: from the signal through the guest's acknowledgement to the resamplefd.</summary>
public sealed class ResampleIrqfdTests(KernelUnderTest kernel)
{
    private const int Pin = 10;
    private static readonly ApicVector Vector = Vectors.B;

    // A guest that has booted, whose handlers leave acknowledging to the test.
    private async Task<Vm> CreateAsync(RedirectionEntry entry, int pin = Pin, int vcpus = 1)
    {
        await kernel.RequireInServiceAsync();
        Vm vm = await kernel.CreateVmAsync(vcpus);
        await vm.MaskPicsAsync();
        await vm.BootAsync();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.LeaveInServiceAsync(Vectors.A, Vectors.B, Vectors.C, Vectors.D);
        }

        await vm.SetRedirectionAsync(pin, entry);
        return vm;
    }

    // The assertion of a resample irqfd comes from a worker: the guest's taking it is the event.
    private static Task TakeAsync(Vcpu vcpu, ApicVector vector, uint times) => vcpu.ExecuteAsync(GuestCommand.HaltUntilTaken(vector, times));

    [Fact]
    [Clause("kvm-irqfd/resample/asserts-until-eoi")]
    [Clause("kvm-irqfd/resample/notifies-once-per-eoi")]
    [Clause("kvm-ioapic/pin/level")]
    public async Task SignalAssertsUntilTheAcknowledgementWhichNotifiesOnce()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);

        for (uint round = 1; round <= 3; round++)
        {
            await eventfd.SignalAsync();
            await TakeAsync(vcpu, Vector, round);
            IoApicState inService = await vm.GetIoApicAsync();
            inService.Irr.Should().Be(1u << Pin, "the line is up until the acknowledgement");
            inService[Pin].RemoteIrr.Should().BeTrue();
            (await resamplefd.ReadAsync()).Should().BeNull("nothing is acknowledged yet");

            await vcpu.AcknowledgeAsync();

            (await resamplefd.ReadAsync()).Should().Be(1);
            IoApicState after = await vm.GetIoApicAsync();
            after.Irr.Should().Be(0);
            after[Pin].RemoteIrr.Should().BeFalse();
            (await vcpu.TakeAsync()).Should().Be("-", "the line is down");
        }
    }

    [Fact]
    [Clause("kvm-irqfd/resample/all-sharers-are-notified")]
    [Clause("kvm-irqfd/resample/other-gsis-are-not-notified")]
    [Clause("kvm-irqfd/resample/deassign-one-of-two")]
    [Clause("kvm-irqfd/resample/deassigned-is-not-notified")]
    public async Task SharersAreNotifiedAndNobodyElse()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetRedirectionAsync(11, RedirectionEntry.LevelTriggered(Vectors.C));
        EventFd[] eventfds = new EventFd[4], resamplefds = new EventFd[4];
        for (int i = 0; i < 4; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
            resamplefds[i] = await kernel.CreateEventFdAsync();
            await vm.AssignResampleIrqfdAsync(i == 3 ? 11 : (uint)Pin, eventfds[i], resamplefds[i]);
        }

        await eventfds[0].SignalAsync();
        await TakeAsync(vcpu, Vector, 1);
        await vcpu.AcknowledgeAsync();
        (await CountsAsync(resamplefds)).Should().Be("1 1 1 -");

        await eventfds[3].SignalAsync();
        await TakeAsync(vcpu, Vectors.C, 1);
        await vcpu.AcknowledgeAsync();
        (await CountsAsync(resamplefds)).Should().Be("- - - 1");

        await eventfds[1].SignalAsync();
        await TakeAsync(vcpu, Vector, 2);
        await vm.DeassignIrqfdAsync(Pin, eventfds[1]);
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin, "two sharers are left");
        await vcpu.AcknowledgeAsync();
        (await CountsAsync(resamplefds)).Should().Be("1 - 1 -");
    }

    [Fact]
    [Clause("kvm-irqfd/resample/own-line-source")]
    [Clause("kvm-irq-line/sources-are-ored")]
    public async Task IrqLineNeitherLowersNorIsLowered()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await eventfd.SignalAsync();
        await TakeAsync(vcpu, Vector, 1);

        await vm.IrqLineAsync(Pin, true);
        await vm.IrqLineAsync(Pin, false);
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin, "the irqfd still asserts");
        await vm.IrqLineAsync(Pin, true);
        await vcpu.AcknowledgeAsync();

        (await resamplefd.ReadAsync()).Should().Be(1);
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin, "KVM_IRQ_LINE still asserts");
        (await vcpu.TakeAsync()).Should().Be("0x52", "the line is still up");
        await vm.IrqLineAsync(Pin, false);
        await vcpu.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().Be(1, "this acknowledgement is of the same GSI");
        (await vcpu.TakeAsync()).Should().Be("-");
        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-irqfd/resample/deasserts-before-notifying")]
    public async Task SignalAfterTheNotificationIsANewInterrupt()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        // The resamplefd drives a message, so that the guest sees when it was signalled.
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(Pin, Pin), GsiRoute.Msi(30, MsiMessage.Fixed(0, Vectors.D)));
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await vm.AssignIrqfdAsync(30, resamplefd);

        await eventfd.SignalAsync();
        await TakeAsync(vcpu, Vector, 1);
        await vcpu.AcknowledgeAsync();
        (await vcpu.TakeAsync()).Should().Be("0x74", "only the notification is pending");
        await vcpu.AcknowledgeAsync();
        await eventfd.SignalAsync();
        await TakeAsync(vcpu, Vector, 2);
        await vcpu.AcknowledgeAsync();
        (await vcpu.TakeAsync()).Should().Be("0x74");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-irqfd/resample/last-deassign-deasserts")]
    [Clause("kvm-irqfd/resample/close-of-the-last-deasserts")]
    public async Task LineFallsWithItsLastResampler(bool byClosing)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await eventfd.SignalAsync();
        await TakeAsync(vcpu, Vector, 1);

        if (byClosing)
        {
            await eventfd.CloseAsync();
            // Deassigning anything waits for the removals that are under way.
            await vm.DeassignIrqfdAsync(99, resamplefd);
        }
        else
        {
            await vm.DeassignIrqfdAsync(Pin, eventfd);
        }

        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
        await vcpu.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().BeNull("its irqfd is gone");
        (await vcpu.TakeAsync()).Should().Be("-");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse();
    }

    [Fact]
    [Clause("kvm-irqfd/assign/refused-changes-nothing")]
    public async Task ResamplerOfARefusedAssignIsNotNotified()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(99, eventfd);
        (await vm.TryAssignResampleIrqfdAsync(Pin, eventfd, resamplefd)).Should().Be(Errno.EBUSY);

        await vm.IrqLineAsync(Pin, true);
        (await vcpu.TakeAsync()).Should().Be("0x52");
        await vm.IrqLineAsync(Pin, false);
        await vcpu.AcknowledgeAsync();

        (await resamplefd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-irqfd/resample/edge-pin")]
    [Clause("kvm-irqfd/resample/registered-after-the-vcpu-ran")]
    public async Task EdgePinNotifiesAndStopsDoingSo()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        // The vCPU has run with this entry and nothing wanted its acknowledgement.
        await vm.PulseAsync(Pin);
        (await vcpu.TakeAsync()).Should().Be("0x52");
        await vcpu.AcknowledgeAsync();

        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await vm.PulseAsync(Pin);
        (await vcpu.TakeAsync()).Should().Be("0x52");
        (await resamplefd.ReadAsync()).Should().BeNull();
        await vcpu.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().Be(1);

        await vm.DeassignIrqfdAsync(Pin, eventfd);
        await vm.PulseAsync(Pin);
        (await vcpu.TakeAsync()).Should().Be("0x52");
        await vcpu.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-irqfd/resample/comes-back")]
    public async Task ResamplerThatComesAfterTheLastOneLeftIsNotified()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();

        for (uint round = 1; round <= 3; round++)
        {
            await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
            await eventfd.SignalAsync();
            await TakeAsync(vcpu, Vector, round);
            await vcpu.AcknowledgeAsync();
            (await resamplefd.ReadAsync()).Should().Be(1);
            await vm.DeassignIrqfdAsync(Pin, eventfd);
        }
    }

    [Fact]
    [Clause("kvm-irqfd/resample/gsi-need-not-be-the-pin")]
    [Clause("kvm-irqfd/resample/other-gsis-are-not-notified")]
    public async Task NotificationFindsTheGsiThatThePinIsRoutedFrom()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        EventFd[] eventfds = new EventFd[4], resamplefds = new EventFd[4];
        // Pin 10 is GSI 30's; GSI 10, GSI 0 and GSI 2 are other pins'.
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(30, Pin), GsiRoute.IoApic(10, 12), GsiRoute.IoApic(0, 2), GsiRoute.IoApic(2, 3));
        uint[] gsis = [30, 10, 0, 2];
        for (int i = 0; i < 4; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
            resamplefds[i] = await kernel.CreateEventFdAsync();
            await vm.AssignResampleIrqfdAsync(gsis[i], eventfds[i], resamplefds[i]);
        }

        await eventfds[0].SignalAsync();
        await TakeAsync(vcpu, Vector, 1);
        await vcpu.AcknowledgeAsync();

        (await CountsAsync(resamplefds)).Should().Be("1 - - -");
        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-irqfd/resample/unrouted-pin-notifies-nobody")]
    public async Task PinWithoutARouteNotifiesNobody()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        var eventfds = new List<EventFd>();
        var resamplefds = new List<EventFd>();
        foreach (uint gsi in new uint[] { 0, 1, (uint)Pin, uint.MaxValue })
        {
            eventfds.Add(await kernel.CreateEventFdAsync());
            resamplefds.Add(await kernel.CreateEventFdAsync());
            await vm.AssignResampleIrqfdAsync(gsi, eventfds[^1], resamplefds[^1]);
        }

        await vm.IrqLineAsync(Pin, true);
        (await vcpu.TakeAsync()).Should().Be("0x52");

        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(0, 2), GsiRoute.IoApic(1, 3), GsiRoute.Msi(Pin, MsiMessage.Fixed(0, Vectors.D)));
        await vcpu.AcknowledgeAsync();

        (await CountsAsync([.. resamplefds])).Should().Be("- - - -");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeTrue("the line is still up, so it was delivered again");
        (await vcpu.TakeAsync()).Should().Be("0x52");
    }

    [Fact]
    [Clause("gsi-routing/entry/several-gsis-per-pin")]
    public async Task AcknowledgementBelongsToTheLastGsiOfThePin()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        EventFd[] eventfds = new EventFd[3], resamplefds = new EventFd[3];
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(40, Pin), GsiRoute.IoApic(30, Pin), GsiRoute.IoApic(35, Pin));
        uint[] gsis = [40, 30, 35];
        for (int i = 0; i < 3; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
            resamplefds[i] = await kernel.CreateEventFdAsync();
            await vm.AssignResampleIrqfdAsync(gsis[i], eventfds[i], resamplefds[i]);
        }

        await eventfds[2].SignalAsync();
        await TakeAsync(vcpu, Vector, 1);
        await vcpu.AcknowledgeAsync();

        (await CountsAsync(resamplefds)).Should().Be("- - 1");
    }

    [Fact]
    [Clause("kvm-irqfd/resample/pending-at-assign")]
    public async Task EventfdThatIsReadableWhenAssignedAssertsTheLine()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync(count: 2);
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();

        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await TakeAsync(vcpu, Vector, 1);
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin);
        await vcpu.AcknowledgeAsync();

        (await resamplefd.ReadAsync()).Should().Be(1);
        (await eventfd.ReadAsync()).Should().Be(2);
        (await vcpu.TakeAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-irqfd/resample/masked-then-unmasked")]
    [Clause("kvm-irqfd/resample/unmask-resamples")]
    [FixedBy("fef8f2b90edb", "KVM: x86/ioapic: Resample the pending state of an IRQ when unmasking")]
    public async Task UnmaskingAnAssertedPinAsksTheResampler()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector) with { IsMasked = true });
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await using EventFd otherEventfd = await kernel.CreateEventFdAsync();
        await using EventFd otherResamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(11, otherEventfd, otherResamplefd);
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        // KVM_IRQ_LINE asserts before it returns: no need to wait for the irqfd's worker.
        await vm.IrqLineAsync(Pin, true);
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin);

        await vcpu.ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.LevelTriggered(Vectors.C) with { IsMasked = true }));
        (await resamplefd.ReadAsync()).Should().BeNull("it is masked still");
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin);

        await vcpu.ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.LevelTriggered(Vector)));

        if (kernel.Has("ioapic-resample-on-unmask"))
        {
            (await resamplefd.ReadAsync()).Should().Be(1);
            (await vm.GetIoApicAsync()).Irr.Should().Be(0, "the resampler is asked to assert again");
            (await vcpu.TakeAsync()).Should().Be("-");
            await eventfd.SignalAsync();
            await TakeAsync(vcpu, Vector, 1);
            await vcpu.AcknowledgeAsync();
            (await resamplefd.ReadAsync()).Should().Be(1);
        }
        else
        {
            (await resamplefd.ReadAsync()).Should().BeNull();
            (await vcpu.TakeAsync()).Should().Be("0x52");
        }

        (await otherResamplefd.ReadAsync()).Should().BeNull("the other GSI has nothing to do with it");
    }

    [Fact]
    [Clause("kvm-ioapic/pin/level-unmask-delivers")]
    public async Task UnmaskingInjectsWhenOnlyAnotherGsiHasAResampler()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector) with { IsMasked = true });
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(11, eventfd, resamplefd);
        await vm.IrqLineAsync(Pin, true);

        await vcpu.ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.LevelTriggered(Vector)));

        (await vcpu.TakeAsync()).Should().Be("0x52");
        (await resamplefd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-ioapic/pin/level-unmask-delivers")]
    public async Task UnmaskingInjectsOnceTheLastResamplerHasLeft()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector) with { IsMasked = true });
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await vm.DeassignIrqfdAsync(Pin, eventfd);
        await vm.IrqLineAsync(Pin, true);

        await vcpu.ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.LevelTriggered(Vector)));

        (await vcpu.TakeAsync()).Should().Be("0x52");
    }

    [Theory]
    [InlineData("destination")]
    [InlineData("vector")]
    [InlineData("masked")]
    [Clause("kvm-irqfd/resample/retarget-between-assert-and-eoi")]
    [Clause("kvm-ioapic/eoi/after-retarget")]
    public async Task EntryRewrittenWhileInServiceLosesNothing(string what)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector), vcpus: 2);
        Vcpu first = vm.Vcpus[0], second = vm.Vcpus[1];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await eventfd.SignalAsync();
        await TakeAsync(first, Vector, 1);

        RedirectionEntry rewritten = what switch
        {
            "destination" => RedirectionEntry.LevelTriggered(Vector, 1),
            "vector" => RedirectionEntry.LevelTriggered(Vectors.C),
            _ => RedirectionEntry.LevelTriggered(Vector) with { IsMasked = true },
        };
        await second.ExecuteAsync(IoApicRegisters.Write(Pin, rewritten));
        await first.AcknowledgeAsync();

        if (what == "vector")
        {
            // The acknowledged vector is no entry's any more: remote IRR stays until a guest makes the entry edge-triggered.
            (await resamplefd.ReadAsync()).Should().BeNull();
            (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeTrue();
            await second.ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.Edge(Vectors.C)));
            await second.ExecuteAsync(IoApicRegisters.Write(Pin, rewritten));
            if (kernel.Has("ioapic-resample-on-unmask"))
            {
                (await resamplefd.ReadAsync()).Should().Be(1);
                return;
            }

            await TakeAsync(first, Vectors.C, 1);
            await first.AcknowledgeAsync();
            (await resamplefd.ReadAsync()).Should().Be(1);
            return;
        }

        (await resamplefd.ReadAsync()).Should().Be(1);
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse();
        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
        if (what == "destination")
        {
            await eventfd.SignalAsync();
            await TakeAsync(second, Vector, 1);
            await second.AcknowledgeAsync();
            (await resamplefd.ReadAsync()).Should().Be(1);
            (await first.TakeAsync()).Should().Be("-");
        }
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/old-destination-forgets")]
    public async Task OldDestinationsAcknowledgementsAreNoLongerThePins()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector), vcpus: 2);
        Vcpu first = vm.Vcpus[0], second = vm.Vcpus[1];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await eventfd.SignalAsync();
        await TakeAsync(first, Vector, 1);
        await first.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().Be(1);

        await second.ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.LevelTriggered(Vector, 1)));
        // With nothing of the vector pending, the old destination looks at the entries again.
        await first.ExecuteAsync(GuestCommand.Nop);
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vector));
        (await first.TakeAsync()).Should().Be("0x52");
        await first.AcknowledgeAsync();

        (await resamplefd.ReadAsync()).Should().BeNull("that was a message of the same vector");
    }

    [Theory]
    [InlineData(5)]
    [InlineData(40)]
    [Clause("kvm-irqfd/resample/pic-eoi")]
    public async Task AcknowledgementOfThePicNotifies(uint gsi)
    {
        await using Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        if (gsi != 5)
        {
            // The I/O APIC's pin of that number belongs to another GSI.
            await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(gsi, KvmX86Const.KVM_IRQCHIP_PIC_MASTER, 5), GsiRoute.IoApic(30, 5));
        }

        await vm.BootAsync();
        await vm.SetPicAsync(new kvm_pic_state { imr = 0xdf, irq_base = 0x50, elcr = 0x20, elcr_mask = 0xf8 });
        await vcpu.UpdateLapicAsync(l => l[LapicState.LvtLint0] = 0x700);
        var handlers = new HandlerTable();
        handlers.Set(new ApicVector(0x55), HandlerPolicy.Default with { Acknowledge = Acknowledgement.Never });
        await vcpu.SetHandlersAsync(handlers);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(gsi, eventfd, resamplefd);

        await eventfd.SignalAsync();
        await TakeAsync(vcpu, new ApicVector(0x55), 1);
        (await vm.GetPicAsync()).isr.Should().Be(0x20);
        (await resamplefd.ReadAsync()).Should().BeNull();
        await vcpu.ExecuteAsync(GuestCommand.Out(PicPort.MasterCommand, 0x20));

        (await resamplefd.ReadAsync()).Should().Be(1);
        kvm_pic_state pic = await vm.GetPicAsync();
        pic.isr.Should().Be(0);
        pic.irr.Should().Be(0, "the line fell");
        (await vcpu.TakeAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-irqfd/resample/save-restore-asserted")]
    [Clause("kvm-ioapic/state/new-vm")]
    public async Task AssertedLineMovesToANewVm()
    {
        await using Vm old = await CreateAsync(RedirectionEntry.LevelTriggered(Vector));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await old.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);
        await eventfd.SignalAsync();
        await TakeAsync(old.Vcpus[0], Vector, 1);
        IoApicState ioapic = await old.GetIoApicAsync();
        LapicState lapic = await old.Vcpus[0].ReadLapicAsync();
        await old.DeassignIrqfdAsync(Pin, eventfd);

        await using Vm vm = await CreateAsync(RedirectionEntry.Masked);
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetIoApicAsync(ioapic);
        await vcpu.WriteLapicAsync(lapic);
        await vm.AssignResampleIrqfdAsync(Pin, eventfd, resamplefd);

        (await vcpu.TakeAsync()).Should().Be("-", "it is in service");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeTrue();
        await vcpu.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().Be(1);
        (await vcpu.TakeAsync()).Should().Be("-", "nobody asserted in this VM");
        await eventfd.SignalAsync();
        await TakeAsync(vcpu, Vector, 1);
        await vcpu.AcknowledgeAsync();
        (await resamplefd.ReadAsync()).Should().Be(1);
    }

    private static async Task<string> CountsAsync(EventFd[] eventfds)
    {
        var counts = new List<string>();
        foreach (EventFd eventfd in eventfds)
        {
            counts.Add((await eventfd.ReadAsync())?.ToString() ?? "-");
        }

        return string.Join(" ", counts);
    }
}

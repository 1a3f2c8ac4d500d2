// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>
/// An irqfd from assign to its end. A deassign is the fence: when it returns, everything the eventfd was signalled for has been injected.
/// </summary>
public sealed class IrqfdTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private static readonly GsiRoute Route = GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A));

    private async Task<Vm> CreateAsync(int vcpus = 1, params GsiRoute[] routes)
    {
        Vm vm = await kernel.CreateVmAsync(vcpus);
        await vm.EnableLocalApicsAsync();
        await vm.SetGsiRoutingAsync(routes.Length == 0 ? [Route] : routes);
        return vm;
    }

    // What arrives for one signal, none of it outstanding when this returns.
    private static async Task<string> SignalAsync(Vm vm, uint gsi, EventFd eventfd)
    {
        await vm.AssignIrqfdAsync(gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(gsi, eventfd);
        return await vm.DrainPendingAsync();
    }

    [Fact]
    [Clause("kvm-irqfd/signal/injects-the-routed-interrupt")]
    [Clause("kvm-irqfd/signal/no-vcpu-running-needed")]
    [Clause("kvm-irqfd/signal/takes-the-count")]
    public async Task SignalIsPendingAtOnceAndTheCountIsTaken()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        (await vm.PendingAsync()).Should().Be("-", "assigning alone injects nothing");

        await eventfd.SignalAsync(7);

        (await vm.PendingAsync()).Should().Be("0x41", "a message to one processor is sent before the signal returns");
        (await eventfd.ReadAsync()).Should().Be(kernel.Left(7));
    }

    [Fact]
    [Clause("kvm-irqfd/signal/semaphore-takes-one")]
    public async Task SemaphoreKeepsWhatOneSignalDidNotTake()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync(semaphore: true);
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        await eventfd.SignalAsync(3);

        (await vm.PendingAsync()).Should().Be("0x41");
        for (ulong left = kernel.Left(3, taken: 1)!.Value; left > 0; left--)
        {
            (await eventfd.ReadAsync()).Should().Be(1);
        }

        (await eventfd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-irqfd/assign/pending-count-injects")]
    public async Task EventfdThatIsReadableWhenAssignedInjectsAndKeepsItsCount()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await eventfd.SignalAsync(3);

        await vm.AssignIrqfdAsync(Gsi, eventfd);
        (await eventfd.ReadAsync()).Should().Be(3);

        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/takes-what-is-left")]
    public async Task DeassignTakesWhatIsLeftInTheEventfd()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync(count: 5);
        await using EventFd semaphore = await kernel.CreateEventFdAsync(count: 5, semaphore: true);
        foreach (EventFd fd in new[] { eventfd, semaphore })
        {
            await vm.AssignIrqfdAsync(Gsi, fd);
            await vm.DeassignIrqfdAsync(Gsi, fd);
            (await vm.DrainPendingAsync()).Should().Be("0x41");
        }

        (await eventfd.ReadAsync()).Should().BeNull();
        int left = 0;
        while (await semaphore.ReadAsync() is not null)
        {
            left++;
        }

        left.Should().Be(4, "a semaphore gives one at a time");
    }

    [Fact]
    [Clause("kvm-irqfd/assign/pending-count-injects")]
    public async Task EventfdThatIsReadableWhenAssignedPulsesItsPinOnce()
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(Gsi, 5));
        await vm.SetRedirectionAsync(5, RedirectionEntry.Edge(Vectors.B));
        await using EventFd eventfd = await kernel.CreateEventFdAsync(count: 1);

        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);

        (await vm.DrainPendingAsync()).Should().Be("0x52");
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1, "the pulse ended");
    }

    [Fact]
    [Clause("kvm-irqfd/signal/first-vm-takes-it")]
    public async Task SignalIsTakenByTheVmThatBoundTheEventfdFirst()
    {
        await using Vm first = await CreateAsync();
        await using Vm second = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await first.AssignIrqfdAsync(Gsi, eventfd);
        bool bound = await second.TryAssignIrqfdAsync(Gsi, eventfd) == Errno.None;

        await eventfd.SignalAsync();

        (await first.PendingAsync()).Should().Be("0x41");
        (await second.PendingAsync()).Should().Be(bound && !kernel.Has("irqfd-takes-count") ? "0x41" : "-");
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/drains")]
    public async Task DeassignReturnsWhenWhatWasSignalledIsInjected()
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(Gsi, 7));
        await vm.SetRedirectionAsync(7, RedirectionEntry.Edge(Vectors.B));
        await ExpectPendingInEveryRoundAsync(vm, Vectors.B, deassign: true);
    }

    [Fact]
    [Clause("kvm-irqfd/signal/no-vcpu-running-needed")]
    public async Task MessageIsPendingWhenTheSignalReturns()
    {
        await using Vm vm = await CreateAsync();
        await ExpectPendingInEveryRoundAsync(vm, Vectors.A, deassign: false);
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/drains")]
    public async Task DeassignWaitsForAnInjectionThatAnotherProcessorOwes()
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(Gsi, 7));
        await vm.SetRedirectionAsync(7, RedirectionEntry.Edge(Vectors.B));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        Mapping memory = await vm.Session.MapAnonymousAsync(4096, "arguments and a local APIC");
        await memory.WriteAsync(0, BitConverter.GetBytes(1ul));
        await memory.WriteAsync(64, Bytes(new kvm_irqfd { fd = (uint)eventfd.Number, gsi = Gsi, flags = KvmConst.KVM_IRQFD_FLAG_DEASSIGN }));
        await memory.WriteAsync(192, BitConverter.GetBytes(1));
        ulong signalled = memory.Address + 256;
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        SystemCalls numbers = vm.Session.Numbers;

        // The signal's processor is kept from its worker for a while; the deassign comes from wherever there is room.
        var program = new AgentProgram("deassign before the worker");
        ProgramThread signal = (await AddRealTimeThreadAsync(program, vm, memory.Address + 192))
            .Call(numbers.Write, [(ulong)eventfd.Number, memory.Address, 8], stopOnFailure: true)
            .Store(signalled, 8, 1);
        int busy = signal.Here;
        signal.Call(numbers.Gettid, []).Loop(busy, 5000);
        program.Thread()
            .Await(signalled, 8, MemoryCondition.Equal, 1)
            .Call(numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IRQFD.Number, memory.Address + 64], stopOnFailure: true)
            .Call(numbers.Ioctl, [(ulong)vm.Vcpus[0].Fd.Number, KvmX86Ioctl.KVM_GET_LAPIC.Number, memory.Address + 1024], stopOnFailure: true);
        (await vm.Session.Agent.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);

        new LapicState(await memory.ReadAsync(1024, 1024)).Vectors(LapicState.Request).Should().Equal(Vectors.B);
    }

    private static byte[] Bytes(kvm_irqfd irqfd) => System.Runtime.InteropServices.MemoryMarshal.AsBytes(new ReadOnlySpan<kvm_irqfd>(in irqfd)).ToArray();

    // No worker of its processor comes before a real-time thread. Where that is not permitted the claim is the same, only harder to break.
    // The last processor, because a deassign's grace period may need the first one's workers.
    private static async Task<ProgramThread> AddRealTimeThreadAsync(AgentProgram program, Vm vm, ulong priority)
    {
        const ulong Fifo = 1;
        int[] processors = await vm.Session.ProcessorsAsync();
        return program.Thread((uint)processors[^1]).Call(vm.Session.Numbers.SchedSetscheduler, [0, Fifo, priority]);
    }

    // What is pending, the signal or the deassign itself sent.
    private async Task ExpectPendingInEveryRoundAsync(Vm vm, ApicVector vector, bool deassign)
    {
        const int Rounds = 16;
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        LapicState idle = await vm.Vcpus[0].ReadLapicAsync();
        Mapping memory = await vm.Session.MapAnonymousAsync((Rounds + 2) * 1024, "arguments and local APICs");
        await memory.WriteAsync(0, BitConverter.GetBytes(1ul));
        await memory.WriteAsync(64, Bytes(new kvm_irqfd { fd = (uint)eventfd.Number, gsi = Gsi }));
        await memory.WriteAsync(128, Bytes(new kvm_irqfd { fd = (uint)eventfd.Number, gsi = Gsi, flags = KvmConst.KVM_IRQFD_FLAG_DEASSIGN }));
        await memory.WriteAsync(1024, idle.Registers);

        await memory.WriteAsync(192, BitConverter.GetBytes(1));
        var program = new AgentProgram("signal and look");
        SystemCalls numbers = vm.Session.Numbers;
        ProgramThread thread = await AddRealTimeThreadAsync(program, vm, memory.Address + 192);
        for (ulong round = 0; round < Rounds; round++)
        {
            thread.Call(numbers.Ioctl, [(ulong)vm.Vcpus[0].Fd.Number, KvmX86Ioctl.KVM_SET_LAPIC.Number, memory.Address + 1024], stopOnFailure: true)
                .Call(numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IRQFD.Number, memory.Address + 64], stopOnFailure: true)
                .Call(numbers.Write, [(ulong)eventfd.Number, memory.Address, 8], stopOnFailure: true);
            ulong[] look = [(ulong)vm.Vcpus[0].Fd.Number, KvmX86Ioctl.KVM_GET_LAPIC.Number, memory.Address + ((round + 2) * 1024)];
            if (!deassign)
            {
                thread.Call(numbers.Ioctl, look, stopOnFailure: true);
            }

            thread.Call(numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IRQFD.Number, memory.Address + 128], stopOnFailure: true);
            if (deassign)
            {
                thread.Call(numbers.Ioctl, look, stopOnFailure: true);
            }
        }

        (await vm.Session.Agent.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);

        for (ulong round = 0; round < Rounds; round++)
        {
            LapicState seen = new(await memory.ReadAsync((round + 2) * 1024, 1024));
            seen.Vectors(LapicState.Request).Should().Equal([vector], "round {0}", round);
        }
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/does-not-replay")]
    [Clause("kvm-irqfd/deassign/eventfd-is-ordinary-again")]
    public async Task ConsumedSignalIsNotReplayedByALaterAssign()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        (await SignalAsync(vm, Gsi, eventfd)).Should().Be("0x41");

        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);

        (await vm.PendingAsync()).Should().Be("-");
        await eventfd.SignalAsync(2);
        (await vm.PendingAsync()).Should().Be("-");
        (await eventfd.ReadAsync()).Should().Be(2);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/many-eventfds-on-one-gsi")]
    [Clause("kvm-irqfd/deassign/matches-eventfd-and-gsi")]
    public async Task EveryEventfdOfAGsiInjectsIt()
    {
        await using Vm vm = await CreateAsync();
        EventFd[] eventfds = new EventFd[4];
        for (int i = 0; i < eventfds.Length; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
            await vm.AssignIrqfdAsync(Gsi, eventfds[i]);
        }

        await vm.DeassignIrqfdAsync(Gsi, eventfds[1]);

        for (int i = 0; i < eventfds.Length; i++)
        {
            await eventfds[i].SignalAsync();
            (await vm.DrainPendingAsync()).Should().Be(i == 1 ? "-" : "0x41", "of {0}", eventfds[i]);
        }
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/matches-eventfd-and-gsi")]
    [Clause("kvm-irqfd/deassign/unassigned-succeeds")]
    public async Task DeassignOfAnotherPairChangesNothing()
    {
        await using Vm vm = await CreateAsync(1, Route, GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.B)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd other = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.AssignIrqfdAsync(25, other);

        (await vm.TryDeassignIrqfdAsync(25, eventfd)).Should().Be(Errno.None);
        (await vm.TryDeassignIrqfdAsync(Gsi, other)).Should().Be(Errno.None);
        (await vm.TryDeassignIrqfdAsync(99, other)).Should().Be(Errno.None);

        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        await other.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("0x52");
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/by-a-duplicate")]
    public async Task DuplicateDeassigns()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using KernelFd duplicate = await eventfd.DuplicateAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        await vm.DeassignIrqfdAsync(Gsi, duplicate);

        await eventfd.SignalAsync();
        (await vm.PendingAsync()).Should().Be("-");
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-irqfd/deassign/then-assign-elsewhere")]
    public async Task DeassignedEventfdCanBeBoundElsewhere()
    {
        await using Vm vm = await CreateAsync(1, Route, GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.B)));
        await using Vm other = await CreateAsync(1, GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.C)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await SignalAsync(vm, Gsi, eventfd)).Should().Be("0x41");
        (await SignalAsync(vm, 25, eventfd)).Should().Be("0x52");
        (await SignalAsync(other, Gsi, eventfd)).Should().Be("0x63");
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-irqfd/deassign/releases-the-eventfd")]
    public async Task DeassignReleasesBothEventfds(bool resample)
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(5, 5));
        EventFd eventfd = await kernel.CreateEventFdAsync(), resamplefd = await kernel.CreateEventFdAsync();
        int[] ids = [await eventfd.ReadIdAsync(), await resamplefd.ReadIdAsync()];

        await (resample ? vm.AssignResampleIrqfdAsync(5, eventfd, resamplefd) : vm.AssignIrqfdAsync(5, eventfd));
        await vm.DeassignIrqfdAsync(5, eventfd);

        await eventfd.CloseAsync();
        await resamplefd.CloseAsync();
        await using EventFd next = await kernel.CreateEventFdAsync();
        await using EventFd after = await kernel.CreateEventFdAsync();
        new[] { await next.ReadIdAsync(), await after.ReadIdAsync() }.Should().BeEquivalentTo(ids);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-irqfd/close/removes-the-irqfd")]
    public async Task ClosingTheEventfdReleasesIt(bool resample)
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(5, 5));
        await using EventFd fence = await kernel.CreateEventFdAsync();
        EventFd eventfd = await kernel.CreateEventFdAsync(), resamplefd = await kernel.CreateEventFdAsync();
        int[] ids = [await eventfd.ReadIdAsync(), await resamplefd.ReadIdAsync()];
        await (resample ? vm.AssignResampleIrqfdAsync(5, eventfd, resamplefd) : vm.AssignIrqfdAsync(5, eventfd));

        await eventfd.CloseAsync();
        await resamplefd.CloseAsync();

        // Deassigning anything waits for the removals that are under way.
        await vm.DeassignIrqfdAsync(99, fence);
        await using EventFd next = await kernel.CreateEventFdAsync();
        await using EventFd after = await kernel.CreateEventFdAsync();
        new[] { await next.ReadIdAsync(), await after.ReadIdAsync() }.Should().BeEquivalentTo(ids);
    }

    [Fact]
    [Clause("kvm-irqfd/close/removes-the-irqfd")]
    public async Task DuplicateKeepsTheIrqfd()
    {
        await using Vm vm = await CreateAsync();
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await using KernelFd duplicate = await eventfd.DuplicateAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        await eventfd.CloseAsync();
        await vm.Session.WriteAsync(duplicate, BitConverter.GetBytes(1ul));

        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-irqfd/close/vm-releases-its-irqfds")]
    public async Task VmThatGoesLeavesTheEventfdOrdinary()
    {
        Vm vm = await CreateAsync();
        await using Vm other = await CreateAsync(1, GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.B)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resampled = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.AssignResampleIrqfdAsync(5, resampled, resamplefd);

        await vm.DisposeAsync();

        foreach (EventFd fd in new[] { eventfd, resampled })
        {
            await fd.SignalAsync(4);
            (await fd.ReadAsync()).Should().Be(4);
        }

        (await SignalAsync(other, Gsi, eventfd)).Should().Be("0x52");
    }

    [Fact]
    [Clause("kvm-irqfd/signal/from-another-process")]
    [Clause("kvm-irqfd/close/signaller-may-die")]
    public async Task VmOfAnotherProcessIsNotTouchedByTheEndOfThisOne()
    {
        await using KernelSession mine = await kernel.CreateSessionAsync();
        KernelSession theirs = await kernel.CreateSessionAsync();
        await using Vm vm = await Vm.CreateAsync(await KvmSystem.OpenAsync(mine), VmOptions.Default);
        await vm.EnableLocalApicsAsync();
        await vm.SetGsiRoutingAsync(Route);
        Vm dying = await Vm.CreateAsync(await KvmSystem.OpenAsync(theirs), VmOptions.Default);
        await dying.SetGsiRoutingAsync(Route);
        await using EventFd eventfd = await mine.CreateEventFdAsync();
        EventFd lost = await theirs.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await dying.AssignIrqfdAsync(Gsi, lost);

        await theirs.DisposeAsync();

        await eventfd.SignalAsync();
        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-irqfd/signal/irqchip-route-pulses")]
    public async Task EverySignalPulsesItsPin()
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(Gsi, 7));
        await vm.SetRedirectionAsync(7, RedirectionEntry.Edge(Vectors.B));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await SignalAsync(vm, Gsi, eventfd)).Should().Be("0x52");
        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
        (await SignalAsync(vm, Gsi, eventfd)).Should().Be("0x52");
    }

    [Fact]
    [Clause("kvm-irqfd/signal/shares-the-line-source-of-irq-line")]
    public async Task PulseLowersALineThatIrqLineHeld()
    {
        await using Vm vm = await CreateAsync(1, GsiRoute.IoApic(Gsi, 7));
        await vm.SetRedirectionAsync(7, RedirectionEntry.Edge(Vectors.B));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.IrqLineAsync(Gsi, true);
        (await vm.DrainPendingAsync()).Should().Be("0x52");

        (await SignalAsync(vm, Gsi, eventfd)).Should().Be("-", "the line was up");

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1, "the pulse lowered it");
    }

    [Fact]
    [Clause("kvm-irqfd/signal/rtc-is-not-coalesced")]
    public async Task PulseOfTheClockIsNotHeldBackByAnUnacknowledgedOne()
    {
        await kernel.RequireInServiceAsync();
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.MaskPicsAsync();
        await vm.BootAsync();
        await vm.SetRedirectionAsync(8, RedirectionEntry.Edge(Vectors.B));
        await vm.Vcpus[0].LeaveInServiceAsync(Vectors.B);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        (await vm.IrqLineStatusAsync(8, true)).Should().Be(1);
        await vm.IrqLineAsync(8, false);
        (await vm.TakeAsync()).Should().Be("0x52");
        (await vm.IrqLineStatusAsync(8, true)).Should().Be(0, "the status form waits for the acknowledgement");
        await vm.IrqLineAsync(8, false);

        (await SignalAsync(vm, 8, eventfd)).Should().Be("0x52");
    }

    [Fact]
    [Clause("kvm-irqfd/signal/broadcast-takes-the-slow-path")]
    public async Task BroadcastReachesEveryProcessor()
    {
        await using Vm vm = await CreateAsync(3, GsiRoute.Msi(Gsi, MsiMessage.Fixed(0xff, Vectors.A)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await SignalAsync(vm, Gsi, eventfd)).Should().Be("0x41 | 0x41 | 0x41");
    }

    [Theory]
    [InlineData(0, "0x41 | - | -")]
    [InlineData(1, "- | 0x41 | -")]
    [InlineData(2, "- | - | 0x41")]
    [InlineData(3, "- | - | -")]
    [Clause("kvm-irqfd/signal/each-route-type")]
    public async Task MessageGoesToItsDestination(uint destination, string pending)
    {
        await using Vm vm = await CreateAsync(3, GsiRoute.Msi(Gsi, MsiMessage.Fixed(destination, Vectors.A)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await SignalAsync(vm, Gsi, eventfd)).Should().Be(pending);
    }

    [Fact]
    [Clause("kvm-irqfd/signal/each-route-type")]
    public async Task MessageKeepsDeliveryModeAndTrigger()
    {
        await using Vm vm = await CreateAsync(2,
            GsiRoute.Msi(24, MsiMessage.Nmi(1)), GsiRoute.Msi(25, MsiMessage.X86(0, Vectors.B, level: true)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await SignalAsync(vm, 24, eventfd)).Should().Be("- | -");
        (await vm.Vcpus[1].GetEventsAsync()).nmi_pending.Should().Be(1);
        (await SignalAsync(vm, 25, eventfd)).Should().Be("0x52 | -");
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().Equal(Vectors.B);
    }

    [Fact]
    [Clause("kvm-irqfd/signal/each-route-type")]
    public async Task PicPinIsDrivenWithTheIoApicPin()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.EnableLocalApicsAsync();
        await vm.SetRedirectionAsync(11, RedirectionEntry.Edge(Vectors.B));
        kvm_pic_state pic = await vm.GetPicAsync(slave: true);
        pic.imr = 0xff;
        await vm.SetPicAsync(pic, slave: true);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await SignalAsync(vm, 11, eventfd)).Should().Be("0x52");

        (await vm.GetPicAsync(slave: true)).irr.Should().Be(1 << 3);
        (await vm.GetPicAsync(slave: true)).last_irr.Should().Be(0, "the pulse ended");
    }

    [Fact]
    [Clause("kvm-irqfd/route/assigned-before-the-route")]
    [Clause("kvm-irqfd/route/follows-the-table")]
    [Clause("gsi-routing/set/synchronous")]
    public async Task SignalFollowsTheTableInForce()
    {
        await using Vm vm = await CreateAsync(2, GsiRoute.Msi(30, MsiMessage.Fixed(0, Vectors.D)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd beside = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(30, beside);
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("- | -", "there is no route yet");
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)));
        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("0x41 | -");
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(1, Vectors.A)));
        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("- | 0x41");
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(1, Vectors.B)));
        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("- | 0x52");
        await vm.SetGsiRoutingAsync();
        await eventfd.SignalAsync();
        await beside.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await vm.DeassignIrqfdAsync(30, beside);
        (await vm.DrainPendingAsync()).Should().Be("- | -", "the table is empty");
    }

    [Fact]
    [Clause("kvm-irqfd/route/type-changes")]
    [FixedBy("bcda70c56f3e", "KVM: x86: Explicitly treat routing entry type changes as changes")]
    public async Task SignalFollowsARouteThatChangesItsType()
    {
        await using Vm vm = await CreateAsync(1, Route);
        await vm.SetRedirectionAsync([(7, RedirectionEntry.Edge(Vectors.B)), (9, RedirectionEntry.Edge(Vectors.C))]);
        kvm_pic_state pic = await vm.GetPicAsync();
        pic.imr = 0xff;
        await vm.SetPicAsync(pic);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd fence = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        async Task<string> SignalAndReassignAsync()
        {
            await eventfd.SignalAsync();
            await vm.DeassignIrqfdAsync(Gsi, eventfd);
            string pending = await vm.DrainPendingAsync();
            await vm.AssignIrqfdAsync(Gsi, eventfd);
            return pending;
        }

        (await SignalAndReassignAsync()).Should().Be("0x41");
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(Gsi, 7));
        (await SignalAndReassignAsync()).Should().Be("0x52");
        await vm.SetGsiRoutingAsync(Route);
        (await SignalAndReassignAsync()).Should().Be("0x41");
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(Gsi, 9), GsiRoute.Irqchip(Gsi, 0, 4));
        (await SignalAndReassignAsync()).Should().Be("0x63");
        (await vm.GetPicAsync()).irr.Should().Be(1 << 4);
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(Gsi, 7));
        (await SignalAndReassignAsync()).Should().Be("0x52");
        await vm.SetGsiRoutingAsync();
        (await SignalAndReassignAsync()).Should().Be("-");
        await vm.SetGsiRoutingAsync(Route);
        (await SignalAndReassignAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-irqfd/route/type-changes")]
    public async Task EveryIrqfdOfTheVmFollowsTheTable()
    {
        await using Vm vm = await CreateAsync(1, [.. Enumerable.Range(0, 8).Select(i => GsiRoute.Msi((uint)(24 + i), MsiMessage.Fixed(0, new ApicVector((byte)(0x40 + i)))))]);
        var eventfds = new List<EventFd>();
        for (uint i = 0; i < 8; i++)
        {
            eventfds.Add(await kernel.CreateEventFdAsync());
            await vm.AssignIrqfdAsync(24 + i, eventfds[^1]);
        }

        await vm.SetGsiRoutingAsync([.. Enumerable.Range(0, 8).Select(i => GsiRoute.Msi((uint)(24 + i), MsiMessage.Fixed(0, new ApicVector((byte)(0x80 + i)))))]);

        for (int i = 0; i < 8; i++)
        {
            await eventfds[i].SignalAsync();
            (await vm.DrainPendingAsync()).Should().Be($"0x8{i}");
        }
    }

    [Fact]
    [Clause("kvm-irqfd/signal/wakes-a-halted-vcpu")]
    public async Task EachSignalWakesTheHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateVmAsync(2);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(24, MsiMessage.Fixed(0, Vectors.A)), GsiRoute.Msi(25, MsiMessage.Fixed(1, Vectors.B)));
        await using EventFd first = await kernel.CreateEventFdAsync();
        await using EventFd second = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(24, first);
        await vm.AssignIrqfdAsync(25, second);
        await vm.RunUntilHaltedAsync();

        for (int round = 1; round <= 3; round++)
        {
            foreach ((Vcpu vcpu, EventFd eventfd) in new[] { (vm.Vcpus[0], first), (vm.Vcpus[1], second) })
            {
                await vcpu.WaitUntilBlockedAsync();
                await eventfd.SignalAsync();
                await vcpu.ReadLogAsync(l => l.Vectors.Count() == round, $"interrupt {round}");
            }
        }

        (await vm.Vcpus[0].ReadLogAsync()).Vectors.Should().Equal(Vectors.A, Vectors.A, Vectors.A);
        (await vm.Vcpus[1].ReadLogAsync()).Vectors.Should().Equal(Vectors.B, Vectors.B, Vectors.B);
    }

    [Fact]
    [Clause("kvm-irqfd/signal/wakes-a-halted-vcpu")]
    [Clause("kvm-irqfd/signal/each-route-type")]
    public async Task PinAndPicRoutesWakeTheHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetRedirectionAsync(11, RedirectionEntry.Edge(Vectors.B));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(11, eventfd);
        kvm_pic_state pic = await vm.GetPicAsync();
        pic.imr = 0xff;
        await vm.SetPicAsync(pic);
        await vm.RunUntilHaltedAsync();

        for (int round = 1; round <= 3; round++)
        {
            await vcpu.WaitUntilBlockedAsync();
            await eventfd.SignalAsync();
            await vcpu.ReadLogAsync(l => l.Vectors.Count() == round, $"interrupt {round}");
        }

        (await vcpu.ReadLogAsync()).Vectors.Should().Equal(Vectors.B, Vectors.B, Vectors.B);
    }
}

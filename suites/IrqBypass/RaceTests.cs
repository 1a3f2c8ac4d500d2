// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>
/// Threads that get in each other's way at native speed. The kernel's warnings fail a test whatever it asserts; afterwards everything still works.
/// </summary>
public sealed class RaceTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private const int Pin = 10;
    private const ulong Rounds = 400;

    private sealed class Calls(Vm vm, Mapping memory)
    {
        private ulong _used = 64;

        public async Task<ulong[]> IoctlAsync(Ioctl request, byte[] argument)
        {
            ulong at = _used;
            _used += ((ulong)argument.Length + 63) / 64 * 64;
            await memory.WriteAsync(at, argument);
            return [(ulong)vm.Fd.Number, request.Number, memory.Address + at];
        }

        public Task<ulong[]> IrqfdAsync(EventFd eventfd, uint gsi, uint flags = 0, EventFd? resamplefd = null) =>
            IoctlAsync(KvmIoctl.KVM_IRQFD, Bytes(new kvm_irqfd { fd = (uint)eventfd.Number, gsi = gsi, flags = flags, resamplefd = (uint)(resamplefd?.Number ?? 0) }));

        public ulong[] Signal(EventFd eventfd) => [(ulong)eventfd.Number, memory.Address, 8];
    }

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    private static async Task<Calls> CallsAsync(Vm vm)
    {
        Mapping memory = await vm.Session.MapAnonymousAsync(1 << 16, "arguments");
        await memory.WriteUInt64Async(0, 1);
        return new Calls(vm, memory);
    }

    // A guest that takes and acknowledges whatever comes, until the fence.
    private static async Task RunGuestAsync(Vm vm)
    {
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            var handlers = new HandlerTable();
            foreach (ApicVector vector in new[] { Vectors.A, Vectors.B, Vectors.C, Vectors.D })
            {
                handlers.Set(vector, HandlerPolicy.CountOnly);
            }

            await vcpu.SetHandlersAsync(handlers);
            await vcpu.StartAsync(new GuestScript { GuestCommand.EnableApic(), GuestCommand.HaltUntilTaken(Vectors.Fence) });
            await vcpu.WaitUntilHaltingAsync();
        }
    }

    private static async Task EndGuestAsync(Vm vm)
    {
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vm.SignalMsiAsync(MsiMessage.Fixed(vcpu.Id, Vectors.Fence));
            await vcpu.FinishAsync();
        }
    }

    // What a VM must still do when a race is over.
    private static async Task ExpectStillWorksAsync(Vm vm, EventFd eventfd)
    {
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.TakeAsync();
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.Request).Should().Equal(Vectors.A);
    }

    private static void ExpectOnly(ProgramOutcome outcome, params Errno[] errors) =>
        outcome.Threads.SelectMany(t => t).SelectMany(s => s.Errnos.Keys).Distinct().Should().BeSubsetOf(errors.Select(e => (int)e), "of {0}", outcome);

    [Fact]
    [Clause("kvm-irqfd/race/assign-deassign-close")]
    public async Task AssignDeassignAndCloseMayRace()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.BootAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)));
        Calls calls = await CallsAsync(vm);
        await using EventFd keep = await kernel.CreateEventFdAsync();
        EventFd lost = await kernel.CreateEventFdAsync();
        // dup2 over the number closes what was there: the eventfd's last reference goes while others use the number.
        const ulong Dup2 = 33;

        var program = new AgentProgram("assign, deassign and close");
        program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(lost, Gsi)).Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(keep, Gsi + 1)).Loop(0, Rounds);
        program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(lost, Gsi, KvmConst.KVM_IRQFD_FLAG_DEASSIGN))
            .Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(keep, Gsi + 1, KvmConst.KVM_IRQFD_FLAG_DEASSIGN)).Loop(0, Rounds);
        program.Thread().Call(vm.Session.Numbers.Write, calls.Signal(lost)).Call(vm.Session.Numbers.Write, calls.Signal(keep)).Loop(0, Rounds * 4);
        program.Thread().Call((uint)Dup2, [(ulong)keep.Number, (ulong)lost.Number]).Call(vm.Session.Numbers.Close, [(ulong)lost.Number])
            .Call((uint)Dup2, [(ulong)keep.Number, (ulong)lost.Number]).Loop(0, Rounds / 2);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);

        outcome.End.Should().Be(ProgramEnd.Finished);
        ExpectOnly(outcome, Errno.EBUSY, Errno.EBADF, Errno.EAGAIN);
        await vm.DeassignIrqfdAsync(Gsi, keep);
        await vm.DeassignIrqfdAsync(Gsi + 1, keep);
        await using EventFd fresh = await kernel.CreateEventFdAsync();
        await ExpectStillWorksAsync(vm, fresh);
    }

    [Fact]
    [Clause("kvm-ioeventfd/race/assign-deassign")]
    public async Task IoeventfdsOfOneVmMayComeAndGoAtOnce()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        Calls calls = await CallsAsync(vm);

        var program = new AgentProgram("ioeventfds that come and go") { Deadline = TimeSpan.FromSeconds(40) };
        for (ulong i = 0; i < 3; i++)
        {
            var assign = new kvm_ioeventfd { addr = 0xd0000000 + (i * 8), len = 4, fd = eventfd.Number };
            program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IoctlAsync(KvmIoctl.KVM_IOEVENTFD, Bytes(assign)))
                .Call(vm.Session.Numbers.Ioctl, await calls.IoctlAsync(KvmIoctl.KVM_IOEVENTFD, Bytes(assign with { flags = KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN })))
                .Loop(0, Rounds / 2);
        }

        // One that is not there is looked for all the while, which waits for nobody.
        var absent = new kvm_ioeventfd { addr = 0xd0001000, len = 4, fd = eventfd.Number, flags = KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN };
        program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IoctlAsync(KvmIoctl.KVM_IOEVENTFD, Bytes(absent))).Loop(0, Rounds * 20);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);

        outcome.End.Should().Be(ProgramEnd.Finished);
        ExpectOnly(outcome, Errno.ENOENT);
        outcome.Threads.Take(3).SelectMany(t => t).Should().OnlyContain(s => s.Failures == 0);
        await vm.AssignIoeventfdAsync(new Ioeventfd(0xd0000000, 4), eventfd);
    }

    [Fact]
    [Clause("kvm-irqfd/route/type-changes")]
    [Clause("gsi-routing/set/synchronous")]
    [FixedBy("b4d37cdb77a0", "KVM: Don't clobber irqfd routing type when deassigning irqfd")]
    public async Task DeassignAndRoutingMayRace()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.MaskPicsAsync();
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.Edge(Vectors.C));
        await RunGuestAsync(vm);
        Calls calls = await CallsAsync(vm);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        ulong[][] tables =
        [
            await calls.IoctlAsync(KvmIoctl.KVM_SET_GSI_ROUTING, Vm.RoutingTable(0, [GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A))])),
            await calls.IoctlAsync(KvmIoctl.KVM_SET_GSI_ROUTING, Vm.RoutingTable(0, [GsiRoute.IoApic(Gsi, Pin)])),
            await calls.IoctlAsync(KvmIoctl.KVM_SET_GSI_ROUTING, Vm.RoutingTable(0, [])),
            await calls.IoctlAsync(KvmIoctl.KVM_SET_GSI_ROUTING, Vm.RoutingTable(0, [GsiRoute.Msi(Gsi, MsiMessage.X86(0xff, Vectors.B, ApicDeliveryMode.LowestPriority))])),
        ];

        var program = new AgentProgram("deassign against routing");
        ProgramThread routing = program.Thread();
        foreach (ulong[] table in tables)
        {
            routing.Call(vm.Session.Numbers.Ioctl, table, stopOnFailure: true);
        }

        routing.Loop(0, Rounds / 2);
        program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(eventfd, Gsi), stopOnFailure: true)
            .Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(eventfd, Gsi, KvmConst.KVM_IRQFD_FLAG_DEASSIGN), stopOnFailure: true).Loop(0, Rounds);
        program.Thread().Call(vm.Session.Numbers.Write, calls.Signal(eventfd)).Loop(0, Rounds * 4);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);

        outcome.End.Should().Be(ProgramEnd.Finished);
        ExpectOnly(outcome, Errno.EAGAIN);
        await EndGuestAsync(vm);
        // Both have returned for good: nothing arrives any more.
        (await vm.TakeAsync()).Should().Be("-");
        await eventfd.ReadAsync();
        await ExpectStillWorksAsync(vm, eventfd);
    }

    [Fact]
    [Clause("kvm-irqfd/resample/all-sharers-are-notified")]
    [FixedBy("d583fbd7066a", "KVM: irqfd: Make resampler_list an RCU list")]
    public async Task ResamplersOfOneGsiMayComeAndGoUnderAcknowledgements()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.MaskPicsAsync();
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.LevelTriggered(Vectors.B));
        await RunGuestAsync(vm);
        Calls calls = await CallsAsync(vm);
        EventFd[] eventfds = new EventFd[4];
        for (int i = 0; i < 4; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
        }

        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfds[3], resamplefd);
        var program = new AgentProgram("resamplers of one GSI");
        for (int i = 0; i < 2; i++)
        {
            program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(eventfds[i], Pin, KvmConst.KVM_IRQFD_FLAG_RESAMPLE, resamplefd), stopOnFailure: true)
                .Call(vm.Session.Numbers.Write, calls.Signal(eventfds[i]))
                .Call(vm.Session.Numbers.Ioctl, await calls.IrqfdAsync(eventfds[i], Pin, KvmConst.KVM_IRQFD_FLAG_DEASSIGN), stopOnFailure: true).Loop(0, Rounds / 2);
        }

        program.Thread().Call(vm.Session.Numbers.Write, calls.Signal(eventfds[3])).Loop(0, Rounds * 2);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);

        outcome.End.Should().Be(ProgramEnd.Finished);
        ExpectOnly(outcome, Errno.EAGAIN);
        await vm.DeassignIrqfdAsync(Pin, eventfds[3]);
        await EndGuestAsync(vm);
        (await vm.Vcpus[0].TakeAsync()).Should().BeOneOf("-", "0x52");
        (await vm.GetIoApicAsync()).Irr.Should().Be(0, "the last resampler is gone");
        await resamplefd.ReadAsync();
        await vm.AssignResampleIrqfdAsync(Pin, eventfds[0], resamplefd);
        await eventfds[0].SignalAsync();
        uint taken = BitConverter.ToUInt32(await vm.ReadMemoryAsync(GuestLayout.Taken(0, Vectors.B), 4));
        await vm.Vcpus[0].ExecuteAsync(GuestCommand.HaltUntilTaken(Vectors.B, taken + 1));
        (await resamplefd.ReadAsync()).Should().Be(1);
        await vm.DeassignIrqfdAsync(Pin, eventfds[0]);
        await ExpectStillWorksAsync(vm, eventfds[1]);
    }

    [Fact]
    [Clause("kvm-irqfd/close/vm-releases-its-irqfds")]
    public async Task VmMayGoWhileItsIrqfdsAreSignalled()
    {
        await using Vm survivor = await kernel.CreateVmAsync();
        await survivor.BootAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd pin = await kernel.CreateEventFdAsync();
        Calls calls = await CallsAsync(survivor);
        for (int round = 0; round < 5; round++)
        {
            Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 1 });
            await vm.EnableLocalApicsAsync();
            await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)), GsiRoute.IoApic(Pin, Pin));
            await vm.AssignIrqfdAsync(Gsi, eventfd);
            await vm.AssignResampleIrqfdAsync(Pin, pin, eventfd);
            var program = new AgentProgram("signals while the VM goes");
            program.Thread().Call(survivor.Session.Numbers.Write, calls.Signal(eventfd)).Call(survivor.Session.Numbers.Write, calls.Signal(pin)).Loop(0, Rounds * 2);
            Task<ProgramOutcome> signals = survivor.Session.Agent.RunProgramAsync(program);
            await vm.DisposeAsync();
            ExpectOnly(await signals, Errno.EAGAIN);
            await eventfd.ReadAsync();
            await pin.ReadAsync();
        }

        await ExpectStillWorksAsync(survivor, eventfd);
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/after-retarget")]
    public async Task RedirectionEntriesMayBeRewrittenUnderInterrupts()
    {
        await using Vm vm = await kernel.CreateVmAsync(2);
        await vm.MaskPicsAsync();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.SetHandlersAsync(new HandlerTable().Set(Vectors.B, HandlerPolicy.CountOnly).Set(Vectors.C, HandlerPolicy.CountOnly));
        }

        await vm.BootAsync();
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.LevelTriggered(Vectors.B));
        Calls calls = await CallsAsync(vm);
        await vm.Vcpus[0].StartAsync(new GuestScript { GuestCommand.HaltUntilTaken(Vectors.Fence) });
        GuestScript rewrite = new GuestScript().Add(GuestCommand.InterruptsOn).Label("again");
        foreach (RedirectionEntry entry in new[]
        {
            RedirectionEntry.LevelTriggered(Vectors.B, 1), RedirectionEntry.LevelTriggered(Vectors.C), RedirectionEntry.LevelTriggered(Vectors.B, 0xff),
            RedirectionEntry.Edge(Vectors.B), RedirectionEntry.LevelTriggered(Vectors.C, 1) with { IsMasked = true }, RedirectionEntry.LevelTriggered(Vectors.B),
        })
        {
            rewrite.AddRange(IoApicRegisters.Write(Pin, entry));
        }

        await vm.Vcpus[1].StartAsync(rewrite.Repeat("again", 30).Add(GuestCommand.InterruptsOff));
        var program = new AgentProgram("a line that rises and falls");
        program.Thread().Call(vm.Session.Numbers.Ioctl, await calls.IoctlAsync(KvmIoctl.KVM_IRQ_LINE, Bytes(new kvm_irq_level { irq = Pin, level = 1 })), stopOnFailure: true)
            .Call(vm.Session.Numbers.Ioctl, await calls.IoctlAsync(KvmIoctl.KVM_IRQ_LINE, Bytes(new kvm_irq_level { irq = Pin, level = 0 })), stopOnFailure: true).Loop(0, Rounds * 2);
        (await vm.Session.Agent.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);

        await vm.Vcpus[1].FinishAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vectors.Fence));
        await vm.Vcpus[0].FinishAsync();
        await vm.Vcpus[1].TakeAsync();
        // Whatever is left of remote IRR goes when the entry becomes edge-triggered; then the pin is as good as new.
        await vm.Vcpus[0].ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.Edge(Vectors.D)));
        await vm.Vcpus[0].TakeAsync();
        await vm.PulseAsync(Pin);
        (await vm.Vcpus[0].TakeAsync()).Should().Be("0x74");
    }
}

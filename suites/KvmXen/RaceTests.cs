// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>Threads of the kernel under test that change what others deliver through. Verdicts are counters, the kernel's log and a deadline.</summary>
public sealed class RaceTests(KernelUnderTest kernel)
{
    private const uint Port = 66;
    private const ulong Rounds = 150;

    /// <summary>Ioctls of a program, with their arguments in memory of the session.</summary>
    private sealed class Calls(XenDomain domain, Mapping arguments)
    {
        private ulong _next;

        public static async Task<Calls> CreateAsync(XenDomain domain) =>
            new(domain, await domain.Vm.Session.MapAnonymousAsync(0x10000, "arguments"));

        public async Task<ulong[]> IoctlAsync<T>(KernelFd fd, Ioctl request, T argument)
            where T : unmanaged
        {
            byte[] bytes = new byte[Marshal.SizeOf<T>()];
            MemoryMarshal.Write(bytes, argument);
            return await IoctlAsync(fd, request, bytes);
        }

        public async Task<ulong[]> IoctlAsync(KernelFd fd, Ioctl request, byte[] argument)
        {
            ulong at = _next;
            _next += ((ulong)argument.Length + 63) & ~63UL;
            await arguments.WriteAsync(at, argument);
            return [(ulong)fd.Number, request.Number, arguments.Address + at];
        }

        public Task<ulong[]> VmAsync(kvm_xen_hvm_attr attribute) => IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR, attribute);

        public Task<ulong[]> VcpuAsync(Vcpu vcpu, kvm_xen_vcpu_attr attribute) => IoctlAsync(vcpu.Fd, KvmX86Ioctl.KVM_XEN_VCPU_SET_ATTR, attribute);

        public Task<ulong[]> SharedInfoAsync(ulong gfn) => VmAsync(new kvm_xen_hvm_attr { type = KVM_XEN_ATTR_TYPE_SHARED_INFO, shared_info_gfn = gfn });

        public Task<ulong[]> SharedInfoHvaAsync(ulong hva) => VmAsync(new kvm_xen_hvm_attr { type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, shared_info_hva = hva });

        public Task<ulong[]> VcpuInfoAsync(Vcpu vcpu, ulong gpa) => VcpuAsync(vcpu, new kvm_xen_vcpu_attr { type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, gpa = gpa });

        public Task<ulong[]> SendAsync(uint port, uint vcpu = 0) => IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_EVTCHN_SEND,
            new kvm_irq_routing_xen_evtchn { port = port, vcpu = vcpu, priority = XenHvm.TwoLevel });

        public Task<ulong[]> SpareSlotAsync(bool present) => IoctlAsync(domain.Vm.Fd, KvmIoctl.KVM_SET_USER_MEMORY_REGION, new kvm_userspace_memory_region
        {
            slot = XenDomain.SpareSlot,
            guest_phys_addr = XenDomain.SpareGpa,
            memory_size = present ? 0x1000u : 0,
            userspace_addr = domain.Vm.Memory.Address + GuestLayout.Scratch,
        });

        public Task<ulong[]> TimerAsync(Vcpu vcpu, uint port, ulong expires) => VcpuAsync(vcpu, new kvm_xen_vcpu_attr
        {
            type = KVM_XEN_VCPU_ATTR_TYPE_TIMER, timer_port = port, timer_priority = XenHvm.TwoLevel, timer_expires_ns = expires,
        });
    }

    private static ProgramThread Ioctl(XenDomain domain, ProgramThread thread, ulong[] call) => thread.Call(domain.Vm.Session.Numbers.Ioctl, call);

    private static async Task<ProgramOutcome> RunAsync(XenDomain domain, AgentProgram program)
    {
        ProgramOutcome outcome = await domain.Vm.Session.Agent.RunProgramAsync(program);
        outcome.End.Should().NotBe(ProgramEnd.Deadline, $"no thread may hang: {outcome}");
        return outcome;
    }

    private static void OnlyErrors(ProgramOutcome outcome, int thread, int step, params Errno[] allowed) =>
        outcome.Threads[thread][step].Errnos.Keys.Select(e => (Errno)e).Should().BeSubsetOf(allowed);

    private static async Task DeliversAfterwardsAsync(XenDomain domain)
    {
        await domain.SharedInfo.FillAsync(0);
        await domain.VcpuInfo.ClearAsync();
        await domain.SetSharedInfoAsync();
        await domain.SetVcpuInfoAsync(0);

        // Whatever was kept for the vCPU is handed over before it is looked at.
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.ReadApic(0x20)));
        await domain.SharedInfo.FillAsync(0);
        await domain.VcpuInfo.ClearAsync();
        await domain.ReadLogAsync();
        (await domain.ObserveAsync(VcpuState.Halted, () => domain.Xen.SendAsync(Port))).Should().Equal(domain.Delivered(Port));
    }

    [Fact]
    [Clause("kvm-xen/robust/races")]
    public async Task SharedInfoThatComesAndGoesUnderSenders()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2 });
        Calls calls = await Calls.CreateAsync(domain);
        var program = new AgentProgram("shared_info against senders");
        ProgramThread juggler = program.Thread();
        Ioctl(domain, juggler, await calls.SharedInfoAsync(KVM_XEN_INVALID_GFN));
        Ioctl(domain, juggler, await calls.SharedInfoAsync(0x20));
        Ioctl(domain, juggler, await calls.SharedInfoAsync(0x24));
        Ioctl(domain, juggler, await calls.SharedInfoHvaAsync(0));
        Ioctl(domain, juggler, await calls.SharedInfoHvaAsync(domain.Vm.Memory.Address + 0x25000));
        juggler.Loop(0, Rounds).Stop();
        for (uint sender = 0; sender < 2; sender++)
        {
            ProgramThread thread = program.Thread();
            Ioctl(domain, thread, await calls.SendAsync(Port + sender, sender));
            Ioctl(domain, thread, await calls.SendAsync(130, sender));
            thread.Loop(0, 0);
        }

        ProgramOutcome outcome = await RunAsync(domain, program);

        for (int step = 0; step < 5; step++)
        {
            OnlyErrors(outcome, 0, step);
        }

        OnlyErrors(outcome, 1, 0, Errno.EINVAL);
        OnlyErrors(outcome, 2, 0, Errno.EINVAL);
        await DeliversAfterwardsAsync(domain);
    }

    [Fact]
    [Clause("kvm-xen/robust/races")]
    public async Task VcpuInfoThatComesAndGoesUnderSenders()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        Calls calls = await Calls.CreateAsync(domain);
        ulong pending = domain.SharedInfo.Hva + (ulong)domain.Layout.PendingOffset;
        var program = new AgentProgram("vcpu_info against senders");
        ProgramThread juggler = program.Thread();
        Ioctl(domain, juggler, await calls.VcpuInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA));
        Ioctl(domain, juggler, await calls.VcpuInfoAsync(domain.Vcpu, domain.VcpuInfoGpa(0)));
        Ioctl(domain, juggler, await calls.VcpuInfoAsync(domain.Vcpu, 0x38000));
        juggler.Loop(0, Rounds).Stop();
        ProgramThread sender = program.Thread();
        Ioctl(domain, sender, await calls.SendAsync(Port));
        sender.Store(pending + 8, 8, 0).Loop(0, 0);
        ProgramThread churn = program.Thread();
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: true));
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: false));
        churn.Loop(0, 0);

        ProgramOutcome outcome = await RunAsync(domain, program);

        for (int step = 0; step < 3; step++)
        {
            OnlyErrors(outcome, 0, step);
        }

        OnlyErrors(outcome, 1, 0);
        await DeliversAfterwardsAsync(domain);
    }

    [Theory]
    [InlineData(XenAbi.Bits64, UpcallPath.DomainVector, false)]
    [InlineData(XenAbi.Bits64, UpcallPath.VcpuVector, false)]
    [InlineData(XenAbi.Bits32, UpcallPath.DomainVector, false)]
    [InlineData(XenAbi.Bits64, UpcallPath.DomainVector, true)]
    [Clause("kvm-xen/robust/races")]
    [Clause("kvm-xen/evtchn/stale-translation")]
    public async Task NoEventIsLostWhileMemorySlotsChange(XenAbi abi, UpcallPath upcall, bool byIrqfd)
    {
        const uint Events = 120;
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Upcall = upcall });
        await domain.SetUpcallHandlerAsync(0, new HandlerPolicy
        {
            Log = false,
            Acknowledge = upcall == UpcallPath.DomainVector ? Acknowledgement.Never : Acknowledgement.AfterActions,
            Actions = [domain.UpcallAction(0), HandlerAction.Add(GuestLayout.Counter(0, 0))],
        });
        Calls calls = await Calls.CreateAsync(domain);
        ulong handled = domain.Vm.Memory.Address + GuestLayout.Counter(0, 0);
        var program = new AgentProgram("events against memory slots");
        ProgramThread sender = program.Thread();
        if (byIrqfd)
        {
            await domain.Vm.SetGsiRoutingAsync(GsiRoute.XenEventChannel(32, Port));
            EventFd eventfd = await kernel.CreateEventFdAsync();
            await domain.Vm.AssignIrqfdAsync(32, eventfd);
            Mapping one = await domain.Vm.Session.MapAnonymousAsync(0x1000, "one");
            await one.WriteUInt64Async(0, 1);
            sender.Call(domain.Vm.Session.Numbers.Write, [(ulong)eventfd.Number, one.Address, 8]);
        }
        else
        {
            Ioctl(domain, sender, await calls.SendAsync(Port));
        }

        // The last thing a handler does is to count: then the next event is sent. One that does not arrive stops all of it.
        sender.Await(handled, 8, MemoryCondition.NotEqual, 0).Store(handled, 8, 0).Loop(0, Events - 1).Stop();
        ProgramThread churn = program.Thread();
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: true));
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: false));
        churn.Loop(0, 0);
        await domain.HaltAsync();

        ProgramOutcome outcome = await RunAsync(domain, program);

        outcome.Threads[0][0].Runs.Should().Be(Events);
        outcome.Threads[0][0].Failures.Should().Be(0);
        await domain.FenceAsync();
        InterruptLog log = await domain.Vcpu.ReadLogAsync();
        log.Ports.Should().HaveCount((int)Events, "each event was seen once").And.OnlyContain(p => p == Port);
    }

    [Fact]
    [Clause("kvm-xen/robust/races")]
    [FixedBy("70eae03087a3", "KVM: x86/xen: Fix SRCU/RCU usage in readers of evtchn_ports")]
    [FixedBy("1c14faa5087d", "KVM: x86/xen: Simplify eventfd IOCTLs")]
    public async Task PortsThatComeAndGoUnderAGuestThatSends()
    {
        const ulong Sends = 100;
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2 });
        EventFd eventfd = await kernel.CreateEventFdAsync();
        Calls calls = await Calls.CreateAsync(domain);
        kvm_xen_hvm_attr bind = new()
        {
            type = KVM_XEN_ATTR_TYPE_EVTCHN, evtchn_send_port = 127, evtchn_type = 2, evtchn_deliver_port = 15, evtchn_deliver_priority = XenHvm.TwoLevel,
        };
        var program = new AgentProgram("bindings against a guest that sends");
        ProgramThread juggler = program.Thread();
        foreach (kvm_xen_hvm_attr attribute in new[]
        {
            bind,
            bind with { evtchn_flags = KVM_XEN_EVTCHN_UPDATE, evtchn_deliver_vcpu = 1 },
            bind with { evtchn_flags = KVM_XEN_EVTCHN_UPDATE },
            bind with { evtchn_flags = KVM_XEN_EVTCHN_DEASSIGN },
            bind with { evtchn_deliver_port = 0, evtchn_deliver_fd = eventfd.Number },
            bind with { evtchn_send_port = 128, evtchn_deliver_port = 16 },
            bind with { evtchn_flags = KVM_XEN_EVTCHN_RESET },
        })
        {
            Ioctl(domain, juggler, await calls.VmAsync(attribute));
        }

        juggler.Loop(0, 0);
        ProgramThread end = program.Thread();
        Mapping stop = await domain.Vm.Session.MapAnonymousAsync(0x1000, "stop");
        end.Await(stop.Address, 4, MemoryCondition.NotEqual, 0).Stop();
        await domain.WriteAsync(XenDomain.ArgumentsGpa, 127);
        Task<ProgramOutcome> running = RunAsync(domain, program);
        await domain.Vcpu.StartAsync(domain.Script()
            .Label("again")
            .Add(domain.Hypercall(XenHypercall.EventChannelOp, XenHypercall.EventChannelSend, XenDomain.ArgumentsGpa))
            .Repeat("again", Sends));

        // A send while nothing is bound comes to user space, as often as it happens.
        GuestExit exit = await domain.Vcpu.NextExitAsync();
        while (exit.Reason == KvmExit.KVM_EXIT_XEN)
        {
            exit.Run.xen_hcall_input.Should().Be(XenHypercall.EventChannelOp);
            await domain.Vcpu.ResumeWithAsync(exit, 0);
            exit = await domain.Vcpu.NextExitAsync();
        }

        exit.Reason.Should().Be(KvmExit.KVM_EXIT_IO, "the script is over");
        await stop.WriteUInt32Async(0, 1);
        ProgramOutcome outcome = await running;
        outcome.Threads[0][0].Failures.Should().Be(0, "the port is free in every round");
        outcome.Threads[0][3].Failures.Should().Be(0);
        outcome.Threads[0][6].Failures.Should().Be(0);
        await DeliversAfterwardsAsync(domain);
    }

    [Fact]
    [Clause("kvm-xen/robust/races")]
    [FixedBy("7a36d680658b", "KVM: x86/xen: fix recursive deadlock in timer injection")]
    public async Task TimersAreReadWhileTheyFireAndMemorySlotsChange()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        Calls calls = await Calls.CreateAsync(domain);
        ulong word = domain.SharedInfo.Hva + (ulong)domain.Layout.PendingOffset + 8;
        ulong[] read = await calls.IoctlAsync(domain.Vcpu.Fd, KvmX86Ioctl.KVM_XEN_VCPU_GET_ATTR, new kvm_xen_vcpu_attr { type = KVM_XEN_VCPU_ATTR_TYPE_TIMER });
        var program = new AgentProgram("timers against memory slots");
        ProgramThread timer = program.Thread();
        Ioctl(domain, timer, await calls.TimerAsync(domain.Vcpu, Port, 1));
        Ioctl(domain, timer, read);

        // Read means delivered: the bit is there, however it got there.
        timer.Await(word, 8, MemoryCondition.Equal, 4).Store(word, 8, 0).Loop(0, Rounds).Stop();
        ProgramThread churn = program.Thread();
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: true));
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: false));
        churn.Loop(0, 0);

        ProgramOutcome outcome = await RunAsync(domain, program);

        OnlyErrors(outcome, 0, 0);
        OnlyErrors(outcome, 0, 1);
        await DeliversAfterwardsAsync(domain);
    }

    [Fact]
    [Clause("kvm-xen/robust/races")]
    [FixedBy("bbe17c625d68", "KVM: x86/xen: Fix potential deadlock in kvm_xen_update_runstate_guest()")]
    public async Task RunstateAcrossPagesIsWrittenWhileMemorySlotsChange()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE);
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        XenDomain.Expect(await domain.Xen.TrySetRunstateUpdateFlagAsync(1), "RUNSTATE_UPDATE_FLAG");
        Calls calls = await Calls.CreateAsync(domain);
        var program = new AgentProgram("runstate against memory slots");
        ProgramThread writer = program.Thread();
        Ioctl(domain, writer, await calls.VcpuAsync(domain.Vcpu, new kvm_xen_vcpu_attr { type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, gpa = 0x52ff1 }));
        foreach (ulong state in new ulong[] { 1, 2, 0, 3 })
        {
            Ioctl(domain, writer, await calls.VcpuAsync(domain.Vcpu, new kvm_xen_vcpu_attr { type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, runstate_state = state }));
        }

        writer.Loop(0, Rounds).Stop();
        ProgramThread churn = program.Thread();
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: true));
        Ioctl(domain, churn, await calls.SpareSlotAsync(present: false));
        churn.Loop(0, 0);

        ProgramOutcome outcome = await RunAsync(domain, program);

        for (int step = 0; step < 5; step++)
        {
            OnlyErrors(outcome, 0, step);
        }

        XenRunstate seen = await domain.Xen.GetRunstateAsync(domain.Vcpu);
        XenRunstateArea.Parse(await domain.Vm.ReadMemoryAsync(0x52ff1, 0x30), domain.Layout).Should().Be(seen);
        seen.Sum.Should().Be(seen.EntryTime);
    }

    [Fact]
    [Clause("kvm-xen/robust/races")]
    [Clause("kvm-xen/poll/masked-wake")]
    public async Task NoWakeUpOfAPollerIsLost()
    {
        const uint Polls = 150;
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.SharedInfo.MaskAsync(Port);
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, (byte[])[.. BitConverter.GetBytes(0x72000UL), .. BitConverter.GetBytes(1UL), .. BitConverter.GetBytes(0UL)]);
        await domain.WriteAsync(0x72000, Port);
        Calls calls = await Calls.CreateAsync(domain);
        ulong word = domain.SharedInfoGpa + (ulong)domain.Layout.PendingOffset + 8;
        var program = new AgentProgram("events against a poller");
        ProgramThread sender = program.Thread();
        Ioctl(domain, sender, await calls.SendAsync(Port));
        sender.Await(domain.Vm.Memory.Address + word, 8, MemoryCondition.Equal, 0).Loop(0, Polls - 1).Stop();

        // The guest polls and consumes what it found; a poll that misses its event blocks for good.
        await domain.Vcpu.StartAsync(domain.Script()
            .Label("again")
            .Add(domain.Hypercall(XenHypercall.SchedOp, XenHypercall.SchedPoll, XenDomain.ArgumentsGpa), out int poll)
            .Add(GuestCommand.Store(word, 0, AccessWidth.Qword))
            .RepeatUntil("again", new GuestCondition(0x71000, Comparison.NotEqual, 0)));
        ProgramOutcome outcome = await RunAsync(domain, program);
        await domain.WriteAsync(0x71000, 1);
        await domain.Xen.SendAsync(Port);

        (await domain.Vcpu.FinishAsync())[poll].Runs.Should().BeGreaterThanOrEqualTo(Polls);
        outcome.Threads[0][0].Runs.Should().Be(Polls);
    }
}

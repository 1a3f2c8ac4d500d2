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
/// What a VMM does whose I/O APIC in user space sits behind an interrupt remapping unit: on an invalidation it takes the irqfd away, finds
/// the next event itself, translates it anew and gives it back to the kernel.
/// </summary>
public sealed class RemappingHandoverTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;

    private Task<Vm> CreateAsync() => kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.Split, Vcpus = 2 });

    [Fact]
    [Clause("remapping-handover/signal-lands-in-user-space")]
    [Clause("remapping-handover/reassign-delivers-what-waited")]
    public async Task EventAfterTheInvalidationIsUserSpacesToTranslate()
    {
        await using Vm vm = await CreateAsync();
        await vm.EnableLocalApicsAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        (await vm.PendingAsync()).Should().Be("- | -");
        (await eventfd.ReadAsync()).Should().Be(1, "user space finds it");
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(1, Vectors.B)));
        (await vm.SignalMsiAsync(MsiMessage.Fixed(1, Vectors.B))).Should().Be(1);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        (await vm.DrainPendingAsync()).Should().Be("- | 0x52");

        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.DrainPendingAsync()).Should().Be("- | 0x52", "nobody took it, so the assign delivered it");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("remapping-handover/none-lost-none-doubled")]
    [Clause("kvm-irqfd/route/nothing-is-lost-under-load")]
    [Clause("gsi-routing/set/atomic")]
    public async Task StormOfSignalsIsDeliveredOneByOne(bool reroute)
    {
        const ulong Signals = 400;
        const ulong Flag = GuestLayout.Scratch;
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        GsiRoute[][] tables = [[GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A))], [GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.B)), GsiRoute.Msi(30, MsiMessage.Fixed(1, Vectors.D))]];
        await vm.SetGsiRoutingAsync(tables[0]);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        HandlerPolicy answer = HandlerPolicy.CountOnly with { Actions = [HandlerAction.Add(GuestLayout.Counter(0, 0), 1, AccessWidth.Qword), HandlerAction.Store(Flag, 1, AccessWidth.Qword)] };
        await vcpu.SetHandlersAsync(new HandlerTable().Set(Vectors.A, answer).Set(Vectors.B, answer).Set(Vectors.Fence, HandlerPolicy.Default with { Notify = true }));
        await vcpu.StartAsync(new GuestScript { GuestCommand.EnableApic(), GuestCommand.HaltUntilLogged(1) });
        await vcpu.WaitUntilHaltingAsync();

        Mapping memory = await vm.Session.MapAnonymousAsync(8192, "arguments");
        await memory.WriteUInt64Async(0, 1);
        await memory.WriteAsync(64, Argument(eventfd, KvmConst.KVM_IRQFD_FLAG_DEASSIGN));
        await memory.WriteAsync(128, Argument(eventfd, 0));
        await memory.WriteAsync(1024, Vm.RoutingTable(0, tables[0]));
        await memory.WriteAsync(2048, Vm.RoutingTable(0, tables[1]));
        SystemCalls numbers = vm.Session.Numbers;
        ulong fd = (ulong)vm.Fd.Number, flag = vm.Memory.Address + Flag;

        // One signal at a time: the next is sent when the guest has taken the last, so a loss stops the program and a double shows in the count.
        var program = new AgentProgram(reroute ? "signals while the table is replaced" : "signals while the irqfd comes and goes");
        program.Thread().Store(flag, 8, 0).Call(numbers.Write, [(ulong)eventfd.Number, memory.Address, 8], stopOnFailure: true)
            .Await(flag, 8, MemoryCondition.Equal, 1).Loop(0, Signals - 1).Stop();
        if (reroute)
        {
            program.Thread().Call(numbers.Ioctl, [fd, KvmIoctl.KVM_SET_GSI_ROUTING.Number, memory.Address + 2048], stopOnFailure: true)
                .Call(numbers.Ioctl, [fd, KvmIoctl.KVM_SET_GSI_ROUTING.Number, memory.Address + 1024], stopOnFailure: true).Loop(0, 0);
        }
        else
        {
            program.Thread().Call(numbers.Ioctl, [fd, KvmIoctl.KVM_IRQFD.Number, memory.Address + 64], stopOnFailure: true)
                .Call(numbers.Ioctl, [fd, KvmIoctl.KVM_IRQFD.Number, memory.Address + 128], stopOnFailure: true).Loop(0, 0);
        }

        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vectors.Fence));
        await vcpu.FinishAsync();

        outcome.End.Should().Be(ProgramEnd.Stopped, "every signal was answered: {0}", outcome);
        (await vcpu.ReadControlAsync()).Counters[0].Should().Be(Signals);
        outcome.Threads[1][0].Runs.Should().BeGreaterThan(0, "the other thread took part");
    }

    private static byte[] Argument(EventFd eventfd, uint flags)
    {
        byte[] argument = new byte[32];
        BitConverter.TryWriteBytes(argument, eventfd.Number);
        BitConverter.TryWriteBytes(argument.AsSpan(4), Gsi);
        BitConverter.TryWriteBytes(argument.AsSpan(8), flags);
        return argument;
    }
}

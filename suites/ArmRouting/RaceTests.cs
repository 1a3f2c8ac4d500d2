// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>Signals while what they depend on changes. The kernel's own warnings fail a test; afterwards everything must still work.</summary>
public sealed class RaceTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private const int QueueCommands = 128;
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);

    [Fact]
    [Clause("arm-race/mapping-changes-under-signals")]
    [FixedBy("ad362fe07fec", "KVM: arm64: vgic-its: Avoid potential UAF in LPI translation cache")]
    public async Task MappingMayChangeUnderSignals()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.Vcpus[1].SetHandlerAsync(s_lpi, HandlerPolicy.CountOnly);

        // A small queue filled once; the guest goes round it, so that mappings come and go all the time.
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.WriteAsync(Gits.Cbaser, vm.Its.Queue | Gits.Valid);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        vm.Its.Next = 0;
        ItsCommand[] round =
        [
            ItsCommand.MapCollection(new CollectionId(1), 1), ItsCommand.Move(s_device, s_event, new CollectionId(1)), ItsCommand.DiscardEvent(s_device, s_event),
            ItsCommand.MapEvent(s_device, s_event, s_lpi, new CollectionId(1)), ItsCommand.Invalidate(s_device, s_event), ItsCommand.InvalidateAll(new CollectionId(1)),
            vm.Its.MapDevice(s_device), ItsCommand.MapEvent(s_device, s_event, s_lpi, new CollectionId(1)),
        ];
        for (int n = 0; n < QueueCommands / round.Length; n++)
        {
            await vm.WriteMemoryAsync(vm.Its.Queue + (ulong)(n * round.Length * ItsCommand.Size), round.SelectMany(c => c.Encode()).ToArray());
        }

        GuestScript changes = new GuestScript().Label("round");
        for (uint at = 32; at <= QueueCommands * ItsCommand.Size; at += 96)
        {
            changes.Add(GuestCommand.Store(vm.Its.Address + Gits.Cwriter, at % (QueueCommands * ItsCommand.Size), AccessWidth.Qword));
        }

        changes.Add(GuestCommand.Store(vm.Its.Address + Gits.Cwriter, 0, AccessWidth.Qword)).Repeat("round", 12);
        await vm.Vcpus[1].StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.SpinUntil(
            new GuestCondition(Arm64Layout.ScratchEnd - 8, Comparison.Equal, 1), interrupts: true)));
        await vm.Vcpus[0].StartAsync(changes);

        Mapping arguments = await vm.Session.MapAnonymousAsync(4096, "arguments");
        MsiMessage message = vm.Its.Message(s_device, s_event);
        await arguments.WriteAsync(0, Bytes(new kvm_msi { address_lo = (uint)message.Address, data = message.Data, flags = KvmConst.KVM_MSI_VALID_DEVID, devid = s_device.Value }));
        await arguments.WriteUInt64Async(64, 1);
        var program = new AgentProgram("signals while the mapping changes");
        program.Thread().Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_SIGNAL_MSI.Number, arguments.Address]).Loop(0, 1500);
        program.Thread().Call(vm.Session.Numbers.Write, [(ulong)eventfd.Number, arguments.Address + 64, 8]).Loop(0, 1500);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Finished);
        outcome.Threads[0][0].Failures.Should().Be(0, "a message is translated or it is not");

        await vm.Vcpus[0].FinishAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await vm.WriteMemoryAsync(Arm64Layout.ScratchEnd - 8, BitConverter.GetBytes(1u));
        await vm.Vcpus[1].FinishAsync();
        // What the last signals left is taken; then one more signal is one more interrupt.
        await vm.Vcpus[1].TakePendingAsync();
        await vm.Vcpus[1].SetHandlerAsync(s_lpi, HandlerPolicy.Default);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-race/route-changes-under-signals")]
    public async Task RouteMayChangeUnderSignals()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        var spi = new Spi(50);
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Gic.EnableAsync(spi);
        GsiRoute toLpi = GsiRoute.Msi(Gsi, vm.Its.Message(s_device, s_event)), toSpi = GsiRoute.Irqchip(Gsi, 0, spi.Pin);
        Mapping arguments = await vm.Session.MapAnonymousAsync(4096, "arguments");
        await arguments.WriteAsync(0, Vm.RoutingTable(0, [toLpi]));
        await arguments.WriteAsync(256, Vm.RoutingTable(0, [toSpi]));
        await arguments.WriteAsync(512, Vm.RoutingTable(0, []));
        await arguments.WriteUInt64Async(1024, 1);
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        ulong[] ioctl = [(ulong)vm.Fd.Number, KvmIoctl.KVM_SET_GSI_ROUTING.Number];
        var program = new AgentProgram("signals while the route changes");
        program.Thread().Call(vm.Session.Numbers.Ioctl, [.. ioctl, arguments.Address]).Call(vm.Session.Numbers.Ioctl, [.. ioctl, arguments.Address + 256])
            .Call(vm.Session.Numbers.Ioctl, [.. ioctl, arguments.Address + 512]).Loop(0, 100).Stop();
        program.Thread().Call(vm.Session.Numbers.Write, [(ulong)eventfd.Number, arguments.Address + 1024, 8]).Loop(0, 0);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
        outcome.Threads[0].Take(3).Sum(s => (long)s.Failures).Should().Be(0);

        await vm.Vcpus[0].TakePendingAsync();
        await vm.SetGsiRoutingAsync(toSpi);
        await vm.Vcpus[0].TakePendingAsync();
        await eventfd.SignalAsync();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(spi);
    }

    [Fact]
    [Clause("arm-race/target-changes-under-signals")]
    public async Task TargetMayChangeUnderSignals()
    {
        const uint Signals = 1000;
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        var spi = new Spi(50);
        await vm.Gic.EnableAsync(spi);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.SetHandlerAsync(spi, HandlerPolicy.CountOnly);
        }

        // vCPU 0 moves the SPI from one to the other; both take it.
        uint router = Gicd.Irouter + (spi.Value * 8);
        await vm.Vcpus[1].StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.SpinUntil(
            new GuestCondition(Arm64Layout.ScratchEnd - 8, Comparison.Equal, 1), interrupts: true)));
        await vm.Vcpus[0].StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Label("again")
            .Add(Arm64Command.StoreDistributor(router, 1, AccessWidth.Qword)).Add(Arm64Command.StoreDistributor(router, 0, AccessWidth.Qword)).Repeat("again", 400)
            .Add(GuestCommand.InterruptsOff));
        Mapping arguments = await vm.Session.MapAnonymousAsync(4096, "arguments");
        await arguments.WriteAsync(0, Bytes(new kvm_irq_level { irq = ArmIrqLine.Of(spi), level = 1 }));
        var program = new AgentProgram("edges while the target changes");
        program.Thread().Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IRQ_LINE.Number, arguments.Address]).Loop(0, Signals - 1);
        ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
        outcome.Threads[0][0].Failures.Should().Be(0);
        await vm.Vcpus[0].FinishAsync();
        await vm.WriteMemoryAsync(Arm64Layout.ScratchEnd - 8, BitConverter.GetBytes(1u));
        await vm.Vcpus[1].FinishAsync();
        await vm.Vcpus[1].TakePendingAsync();
        await vm.Vcpus[0].TakePendingAsync();
        uint taken = 0;
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            taken += BitConverter.ToUInt32(await vm.ReadMemoryAsync(vcpu.TakenAddress(spi), 4));
        }

        taken.Should().BeInRange(1, Signals);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.SetHandlerAsync(spi, HandlerPolicy.Default);
        }

        await vm.PulseAsync(spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(spi);
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-race/vms-with-pending-lpis-come-and-go")]
    public async Task VmsWithPendingLpisComeAndGo()
    {
        for (int n = 0; n < 5; n++)
        {
            await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
            for (uint e = 0; e < 4; e++)
            {
                await vm.Its.MapAsync(s_device, new EventId(e), new Lpi(8200 + e), vcpuId: e % 2);
                await vm.SignalMsiAsync(s_device, new EventId(e));
            }
        }
    }

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();
}

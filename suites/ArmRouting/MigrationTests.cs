// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>State read from one VM and written to a new one gives a guest the same interrupts.</summary>
public sealed class MigrationTests(KernelUnderTest kernel)
{
    // Few, because every register of every one is read and written.
    private const uint Irqs = 96;
    private static readonly DeviceId s_device = new(0x12);
    private static readonly DeviceId s_second = new(0x40);

    [Fact]
    [Clause("arm-migration/lpis")]
    public async Task MappedAndPendingLpisSurvive()
    {
        await using Vm old = await kernel.CreateItsVmAsync(vcpus: 2, name: "old vm", irqs: Irqs);
        await old.Its.MapAsync(s_device, new EventId(1), new Lpi(8200), vcpuId: 0);
        await old.Its.MapAsync(s_device, new EventId(30), new Lpi(8201), vcpuId: 1);
        await old.Its.MapAsync(s_second, new EventId(2), new Lpi(8300), vcpuId: 1);
        await old.Its.MapAsync(s_second, new EventId(3), new Lpi(8301), vcpuId: 0);
        await old.Gic.ConfigureAsync(new Lpi(8301), enabled: false);
        await old.Its.IssueAsync(ItsCommand.Invalidate(s_second, new EventId(3)));
        await old.SignalMsiAsync(s_device, new EventId(30));
        await old.SignalMsiAsync(s_second, new EventId(3));
        await old.Gic.SavePendingTablesAsync();
        await old.Its.SaveTablesAsync();
        GicState state = await GicState.ReadAsync(old);

        await using Vm vm = await kernel.CreateBlankItsVmAsync(vcpus: 2, irqs: Irqs);
        await state.WriteAsync(vm);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("what is pending there is disabled");
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal([new Lpi(8201)], "it was pending");
        (await vm.SignalMsiAsync(s_device, new EventId(1))).Should().Be(1);
        (await vm.SignalMsiAsync(s_second, new EventId(2))).Should().Be(1);
        (await vm.SignalMsiAsync(s_second, new EventId(4))).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8200));
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(new Lpi(8300));

        // The guest goes on using its queue where it was.
        vm.Its.Next = old.Its.Next;
        await vm.Gic.ConfigureAsync(new Lpi(8301));
        (await vm.Vcpus[0].TakePendingAsync(vm.Its.ByGuest(ItsCommand.Invalidate(s_second, new EventId(3))))).Should().Equal([new Lpi(8301)], "it was pending and is enabled now");
    }

    [Fact]
    [Clause("arm-migration/irqfd-routes")]
    public async Task RoutesAndIrqfdsWorkOnTheOtherSide()
    {
        await using Vm old = await kernel.CreateItsVmAsync(name: "old vm", irqs: Irqs);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await old.Its.MapAsync(s_device, new EventId(1), new Lpi(8200));
        await old.Its.SaveTablesAsync();
        await old.Gic.SavePendingTablesAsync();
        GicState state = await GicState.ReadAsync(old);

        await using Vm vm = await kernel.CreateBlankItsVmAsync(irqs: Irqs);
        // Routes may come before the tables do.
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(40, vm.Its.Message(s_device, new EventId(1))), GsiRoute.Irqchip(8, 0, 8));
        await vm.AssignIrqfdAsync(40, eventfd);
        await state.WriteAsync(vm);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(40, eventfd);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8200));
    }

    [Fact]
    [Clause("arm-migration/spis")]
    public async Task SpisSurviveWithLineLatchActiveAndRoute()
    {
        await using Vm old = await kernel.CreateItsVmAsync(vcpus: 2, name: "old vm", irqs: Irqs);
        Spi latched = new(40), line = new(50), routed = new(60), active = new(70), disabled = new(80);
        await old.Gic.EnableAsync(latched, priority: 0x40);
        await old.Gic.EnableAsync(line, edge: false, priority: 0x60);
        await old.Gic.EnableAsync(routed, vcpuId: 1, priority: 0x20);
        await old.Gic.EnableAsync(active);
        await old.PulseAsync(latched);
        await old.IrqLineAsync(line, true);
        await old.PulseAsync(routed);
        await old.PulseAsync(disabled);
        await old.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Isactiver, active), Gicd.Mask(active));
        await old.PulseAsync(active);
        GicState state = await GicState.ReadAsync(old);

        await using Vm vm = await kernel.CreateBlankItsVmAsync(vcpus: 2, irqs: Irqs);
        await state.WriteAsync(vm);
        (await GicState.ReadAsync(vm)).Should().BeEquivalentTo(state, "it reads as it was written");
        await vm.Vcpus[0].SetHandlerAsync(line, HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(GuestCommand.InterruptsOff));
        (await vm.Vcpus[0].TakenAsync()).Should().Equal([latched, line], "by priority, and the line is still high");
        await vm.IrqLineAsync(line, false);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(routed);
        await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Icactiver, active), Gicd.Mask(active));
        await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Isenabler, disabled), Gicd.Mask(disabled));
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo(new IntId[] { active, disabled });
    }

    [Fact]
    [Clause("arm-migration/cpu-interface")]
    public async Task CpuInterfaceSurvives()
    {
        await using Vm old = await kernel.CreateGicVmAsync(vcpus: 2);
        await old.Vcpus[1].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.EnableGic(priorityMask: 0xa8, splitEoi: true)).Add(Arm64Command.Write(IccRegister.Bpr1, 4)).Add(Arm64Command.Write(IccRegister.Igrpen0, 1)));
        (IccRegister Register, ulong Value)[] expected = [(IccRegister.Pmr, 0xa8), (IccRegister.Bpr1, 4), (IccRegister.Igrpen0, 1), (IccRegister.Igrpen1, 1)];
        foreach ((IccRegister register, ulong value) in expected)
        {
            (await old.Gic.ReadCpuRegisterAsync(1, register)).Should().Be(value, $"{register}");
        }

        ulong control = await old.Gic.ReadCpuRegisterAsync(1, IccRegister.Ctlr);
        (control & 2).Should().Be(2);
        (await old.Gic.ReadCpuRegisterAsync(0, IccRegister.Igrpen1)).Should().Be(0, "the other vCPU's are its own");

        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        foreach ((IccRegister register, ulong value) in expected)
        {
            await vm.Gic.WriteCpuRegisterAsync(1, register, value);
        }

        await vm.Gic.WriteCpuRegisterAsync(1, IccRegister.Ctlr, control);
        ScriptResults results = await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.Read(IccRegister.Pmr)).Add(Arm64Command.Read(IccRegister.Bpr1))
            .Add(Arm64Command.Read(IccRegister.Igrpen0)).Add(Arm64Command.Read(IccRegister.Igrpen1)).Add(Arm64Command.Read(IccRegister.Ctlr)));
        results.Select(r => r.Value).Should().Equal(0xa8, 4, 1, 1, control);
    }

    [Fact]
    [Clause("arm-migration/active-priorities")]
    public async Task ActivePriorityHoldsBackLowerOnes()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(new Spi(40), priority: 0x80);
        await vm.PulseAsync(new Spi(40));
        // Five bits of priority: bit n of AP1R0 is group n of 8.
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Ap1r0, 1u << (0x40 >> 3));
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ap1r0)).Should().Be(1u << (0x40 >> 3));
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(GuestCommand.InterruptsOff));
        (await vm.Vcpus[0].TakenAsync()).Should().BeEmpty();
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Ap1r0, 0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(40));
    }
}

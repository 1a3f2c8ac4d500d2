// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>KVM_GET_IRQCHIP and KVM_SET_IRQCHIP of the I/O APIC.</summary>
public sealed class IoApicStateTests(KernelUnderTest kernel)
{
    private const int Pin = 10;

    private async Task<Vm> CreateAsync(int vcpus = 1, bool boot = false)
    {
        if (boot)
        {
            await kernel.RequireInServiceAsync();
        }

        Vm vm = await kernel.CreateVmAsync(vcpus);
        await vm.MaskPicsAsync();
        if (boot)
        {
            await vm.BootAsync();
            await vm.Vcpus[0].LeaveInServiceAsync(Vectors.A, Vectors.B, Vectors.C, Vectors.D);
        }
        else
        {
            await vm.EnableLocalApicsAsync();
        }

        return vm;
    }

    [Theory]
    [InlineData(3u)]
    [InlineData(4u)]
    [InlineData(uint.MaxValue)]
    [Clause("kvm-ioapic/state/chip-id")]
    public async Task UnknownChipIsInvalid(uint chip)
    {
        await using Vm vm = await CreateAsync();
        byte[] argument = new byte[520];
        BitConverter.TryWriteBytes(argument, chip);

        (await vm.TryGetIrqchipAsync(chip)).Error.Should().Be(Errno.EINVAL);
        (await vm.TrySetIrqchipAsync(argument)).Should().Be(Errno.EINVAL);
    }

    [Theory]
    [InlineData(Irqchip.None)]
    [InlineData(Irqchip.Split)]
    [Clause("kvm-ioapic/state/needs-the-full-irqchip")]
    public async Task WithoutTheIoApicThereIsNoSuchDevice(Irqchip irqchip)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = irqchip });

        for (uint chip = 0; chip < 4; chip++)
        {
            byte[] argument = new byte[520];
            BitConverter.TryWriteBytes(argument, chip);
            (await vm.TryGetIrqchipAsync(chip)).Error.Should().Be(Errno.ENXIO);
            (await vm.TrySetIrqchipAsync(argument)).Should().Be(Errno.ENXIO);
        }
    }

    [Fact]
    [Clause("kvm-ioapic/state/chip-id")]
    public async Task UnreadableArgumentFaults()
    {
        await using Vm vm = await CreateAsync();

        (await vm.Session.IoctlAsync(vm.Fd, KvmX86Ioctl.KVM_GET_IRQCHIP, 8)).Error.Should().Be(Errno.EFAULT);
        (await vm.Session.IoctlAsync(vm.Fd, KvmX86Ioctl.KVM_SET_IRQCHIP, 8)).Error.Should().Be(Errno.EFAULT);
    }

    [Fact]
    [Clause("kvm-ioapic/state/round-trip")]
    public async Task WhatWasSetIsGot()
    {
        await using Vm vm = await CreateAsync();
        var state = new IoApicState { Select = 0x2f, Id = 0xa, BaseAddress = 0xfec00000, Irr = 0x00a5c3 };
        for (int pin = 0; pin < IoApicState.Pins; pin++)
        {
            state[pin] = new RedirectionEntry(0x1122334455667788ul * (ulong)(pin + 1)) with { IsMasked = true };
        }

        await vm.SetIoApicAsync(state);

        (await vm.GetIoApicAsync()).ToString().Should().Be(state.ToString());
    }

    [Fact]
    [Clause("kvm-ioapic/state/delivered-edges-are-not-pending")]
    public async Task DeliveredEdgeIsNotPendingAndAMaskedOneIs()
    {
        await using Vm vm = await CreateAsync();
        await vm.SetRedirectionAsync([(Pin, RedirectionEntry.Edge(Vectors.A)), (11, RedirectionEntry.Edge(Vectors.B) with { IsMasked = true }),
            (12, RedirectionEntry.LevelTriggered(Vectors.C))]);

        foreach (uint pin in new uint[] { Pin, 11, 12 })
        {
            await vm.IrqLineAsync(pin, true);
        }

        (await vm.GetIoApicAsync()).Irr.Should().Be((1u << 11) | (1u << 12));
    }

    [Fact]
    [Clause("kvm-ioapic/state/delivered-edges-are-not-pending")]
    public async Task EdgeMaskedAfterADeliveredOneIsPending()
    {
        await using Vm vm = await CreateAsync(boot: true);
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.Edge(Vectors.A));
        await vm.PulseAsync(Pin);
        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
        await vm.Vcpus[0].ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.Edge(Vectors.A) with { IsMasked = true }));

        await vm.IrqLineAsync(Pin, true);

        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin);
    }

    [Fact]
    [Clause("kvm-ioapic/state/delivered-edges-are-not-pending")]
    public async Task EveryDeliveredEdgeIsRemembered()
    {
        await using Vm vm = await CreateAsync();
        await vm.SetRedirectionAsync([.. Enumerable.Range(0, IoApicState.Pins).Select(p => (p, RedirectionEntry.Edge(Vectors.A)))]);

        for (uint pin = 0; pin < IoApicState.Pins; pin++)
        {
            await vm.IrqLineAsync(pin, true);
            (await vm.GetIoApicAsync()).Irr.Should().Be(0, "pin {0} was delivered", pin);
        }
    }

    [Fact]
    [Clause("kvm-ioapic/state/pending-is-delivered")]
    public async Task PendingPinsOfAStateAreDelivered()
    {
        await using Vm vm = await CreateAsync();
        IoApicState state = IoApicState.New();
        state[0] = RedirectionEntry.Edge(new ApicVector(0x40));
        state[7] = RedirectionEntry.Edge(new ApicVector(0x47)) with { IsMasked = true };
        state[8] = RedirectionEntry.Edge(new ApicVector(0x48));
        state[9] = RedirectionEntry.LevelTriggered(new ApicVector(0x49));
        state[10] = RedirectionEntry.Edge(new ApicVector(0x4a));
        state[23] = RedirectionEntry.Edge(new ApicVector(0x57));
        state.Irr = (1u << 0) | (1u << 7) | (1u << 8) | (1u << 9) | (1u << 23);

        await vm.SetIoApicAsync(state);

        (await vm.PendingAsync()).Should().Be("0x40 0x48 0x49 0x57");
        IoApicState after = await vm.GetIoApicAsync();
        after[9].RemoteIrr.Should().BeTrue();
        after.Irr.Should().Be((1u << 7) | (1u << 9), "a level is still up, a masked edge is still owed");
    }

    [Fact]
    [Clause("kvm-ioapic/state/replaces-pending")]
    public async Task StateReplacesWhatWasPending()
    {
        await using Vm vm = await CreateAsync(boot: true);
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true });
        await vm.IrqLineAsync(Pin, true);
        IoApicState state = await vm.GetIoApicAsync();
        state.Irr.Should().Be(1u << Pin);
        state.Irr = 0;

        await vm.SetIoApicAsync(state);

        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
        await vm.Vcpus[0].ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.LevelTriggered(Vectors.A)));
        (await vm.TakeAsync()).Should().Be("-");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-ioapic/state/replaces-pending")]
    public async Task StateForgetsWhichEdgesWereDelivered(bool level)
    {
        await using Vm vm = await CreateAsync();
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.Edge(Vectors.A));
        await vm.IrqLineAsync(Pin, true);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        IoApicState state = IoApicState.New();
        state[Pin] = RedirectionEntry.Edge(Vectors.A) with { Level = level, IsMasked = true };
        state.Irr = 1u << Pin;

        await vm.SetIoApicAsync(state);

        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << Pin, "this state's line is up, whatever the last one's was");
    }

    [Fact]
    [Clause("kvm-ioapic/state/remote-irr")]
    public async Task RestoredRemoteIrrHoldsThePinBackUntilTheAcknowledgement()
    {
        await using Vm vm = await CreateAsync(boot: true);
        Vcpu vcpu = vm.Vcpus[0];
        IoApicState state = IoApicState.New();
        state[Pin] = RedirectionEntry.LevelTriggered(Vectors.A) with { RemoteIrr = true };
        state.Irr = 1u << Pin;

        await vm.SetIoApicAsync(state);
        (await vm.PendingAsync()).Should().Be("-");
        await vcpu.UpdateLapicAsync(l =>
        {
            l.SetVector(LapicState.InService, Vectors.A);
            l.SetVector(LapicState.TriggerMode, Vectors.A);
        });
        await vcpu.AcknowledgeAsync();

        (await vm.TakeAsync()).Should().Be("0x41", "the line is up");
    }

    [Fact]
    [Clause("kvm-ioapic/state/remote-irr-of-an-edge")]
    public async Task RestoredRemoteIrrOfAnEdgeHoldsNothingBack()
    {
        await using Vm vm = await CreateAsync();
        IoApicState state = IoApicState.New();
        state[Pin] = RedirectionEntry.Edge(Vectors.A) with { RemoteIrr = true };

        await vm.SetIoApicAsync(state);
        await vm.IrqLineAsync(Pin, true);

        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-ioapic/state/new-vm")]
    [Clause("lapic-state/every-state-at-once")]
    [Clause("lapic-state/pending-is-taken")]
    [Clause("lapic-state/in-service-holds-back")]
    public async Task EveryStateAtOnceMovesToANewVm()
    {
        async Task<Vm> RunAsync()
        {
            Vm vm = await CreateAsync(boot: true);
            await vm.SetRedirectionAsync([
                (10, RedirectionEntry.LevelTriggered(Vectors.B)), (11, RedirectionEntry.LevelTriggered(Vectors.D)),
                (12, RedirectionEntry.Edge(Vectors.C) with { IsMasked = true }), (13, RedirectionEntry.Edge(Vectors.A))]);
            return vm;
        }

        await using Vm old = await RunAsync();
        await old.IrqLineAsync(10, true);
        (await old.TakeAsync()).Should().Be("0x52");
        await old.IrqLineAsync(11, true);
        await old.IrqLineAsync(12, true);
        await old.PulseAsync(13);
        IoApicState ioapic = await old.GetIoApicAsync();
        LapicState lapic = await old.Vcpus[0].ReadLapicAsync();

        await using Vm vm = await CreateAsync(boot: true);
        await vm.Vcpus[0].WriteLapicAsync(lapic);
        await vm.SetIoApicAsync(ioapic);

        foreach (Vm each in new[] { old, vm })
        {
            (await each.TakeAsync()).Should().Be("0x74", "its class is above the one in service");
            await each.IrqLineAsync(11, false);
            await each.Vcpus[0].AcknowledgeAsync();
            (await each.TakeAsync()).Should().Be("-", "0x52 is in service, 0x41 below it");
            await each.IrqLineAsync(10, false);
            await each.Vcpus[0].AcknowledgeAsync();
            (await each.TakeAsync()).Should().Be("0x41");
            await each.Vcpus[0].AcknowledgeAsync();
            IoApicState end = await each.GetIoApicAsync();
            end[10].RemoteIrr.Should().BeFalse();
            end[11].RemoteIrr.Should().BeFalse();
            end.Irr.Should().Be(1u << 12);
        }
    }
}

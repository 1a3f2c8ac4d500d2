// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>
/// The in-kernel PIT on GSI 0: the one user of acknowledgement and mask notifications besides irqfds. A tick is waited for, never for how long.
/// </summary>
public sealed class PitTests(KernelUnderTest kernel)
{
    private const ushort Counter0 = 0x40;
    private const ushort Control = 0x43;
    private static readonly ApicVector Nmi = new(2);
    private static readonly ApicVector Vector = Vectors.A;

    private async Task<Vm> CreateAsync(RedirectionEntry entry)
    {
        Vm vm = await kernel.CreateVmAsync();
        await vm.MaskPicsAsync();
        IoctlAnswer pit = await vm.Session.IoctlAsync(vm.Fd, KvmX86Ioctl.KVM_CREATE_PIT2, default(kvm_pit_config), "flags 0");
        pit.Error.Should().Be(Errno.None);
        await vm.BootAsync();
        // LINT0 as NMI: KVM delivers one with every tick that it injects, and a guest that waits for it knows the tick was.
        await vm.Vcpus[0].UpdateLapicAsync(l => l[LapicState.LvtLint0] = 0x400);
        await vm.SetRedirectionAsync(0, entry);
        return vm;
    }

    // Mode 2 is periodic, mode 0 fires once; the count is in 838 ns.
    private static GuestCommand[] Program(int mode, ushort count) =>
        [GuestCommand.Out(Control, (uint)(0x30 | (mode << 1))), GuestCommand.Out(Counter0, count & 0xffu), GuestCommand.Out(Counter0, (uint)count >> 8)];

    // The guest's own timer says when ticks of a count of 2400 would have come: ten of the PIT's periods later.
    private static GuestCommand[] TenPeriods =>
        [GuestCommand.WriteApic(LapicState.TimerDivide, 0xb), GuestCommand.WriteApic(LapicState.LvtTimer, Vectors.C.Value),
            GuestCommand.WriteApic(LapicState.TimerInitialCount, 20_000_000), GuestCommand.HaltUntilTaken(Vectors.C)];

    private static Task TakeAsync(Vcpu vcpu, ApicVector vector, uint times) => vcpu.ExecuteAsync(GuestCommand.HaltUntilTaken(vector, times));

    // A halt would never end when the NMI came just before it.
    private static Task TakeNmiAsync(Vcpu vcpu, uint times) =>
        vcpu.ExecuteAsync(GuestCommand.SpinUntil(new GuestCondition(vcpu.TakenAddress(Nmi), Comparison.AtLeast, times)));

    [Fact]
    [Clause("kvm-ioapic/pit/acknowledged-ticks")]
    public async Task TickFollowsTheAcknowledgementOfTheLast()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        Vcpu vcpu = vm.Vcpus[0];

        await vcpu.ExecuteAsync(Program(2, 2400));

        await TakeAsync(vcpu, Vector, 5);
    }

    [Fact]
    [Clause("kvm-ioapic/pit/unmask-restarts")]
    public async Task UnmaskingTheIoApicPinLetsTicksFlowAgain()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector) with { IsMasked = true });
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.ExecuteAsync(Program(2, 2400));
        // The one tick that nobody will acknowledge.
        await TakeNmiAsync(vcpu, 1);

        await vcpu.ExecuteAsync(IoApicRegisters.Write(0, RedirectionEntry.Edge(Vector)));

        await TakeAsync(vcpu, Vector, 3);
    }

    [Fact]
    [Clause("kvm-ioapic/pit/unmask-follows-the-route")]
    public async Task UnmaskingThePinThatItsGsiIsRoutedToLetsTicksFlowAgain()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked);
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetGsiRoutingAsync(GsiRoute.IoApic(0, 2));
        await vm.SetRedirectionAsync(2, RedirectionEntry.Edge(Vector) with { IsMasked = true });
        await vcpu.ExecuteAsync(Program(2, 2400));
        await TakeNmiAsync(vcpu, 1);

        await vcpu.ExecuteAsync(IoApicRegisters.Write(2, RedirectionEntry.Edge(Vector)));

        await TakeAsync(vcpu, Vector, 3);
    }

    [Theory]
    [InlineData(0, false)]
    [InlineData(5, true)]
    [Clause("kvm-ioapic/pit/only-unmasking-restarts")]
    public async Task OnlyUnmaskingItsOwnPinLetsATickPastTheAcknowledgement(int pin, bool masked)
    {
        await kernel.RequireInServiceAsync();
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.LeaveInServiceAsync(Vector);
        await vcpu.ExecuteAsync(Program(2, 2400));
        await TakeAsync(vcpu, Vector, 1);

        await vcpu.ExecuteAsync([
            .. IoApicRegisters.Write(pin, RedirectionEntry.Edge(Vector) with { IsMasked = masked }), .. IoApicRegisters.Write(pin, RedirectionEntry.Edge(Vector)),
            .. TenPeriods]);

        (await vcpu.ReadLapicAsync()).Vectors(LapicState.Request).Should().BeEmpty("the tick in service is not acknowledged yet");
        await vcpu.AcknowledgeAsync();
        await TakeAsync(vcpu, Vector, 2);
    }

    [Fact]
    [Clause("kvm-ioapic/pit/only-unmasking-restarts")]
    public async Task WritingItsMaskedEntryLetsNoTickPastTheAcknowledgement()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector) with { IsMasked = true });
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.ExecuteAsync(Program(2, 2400));
        await TakeNmiAsync(vcpu, 1);

        await vcpu.ExecuteAsync([.. IoApicRegisters.Write(0, RedirectionEntry.Edge(Vectors.B) with { IsMasked = true }), .. TenPeriods]);

        (await vcpu.ReadLogAsync()).Count(r => r.Kind == LogRecordKind.Nmi).Should().Be(1, "the one tick is not acknowledged");
    }

    [Fact]
    [Clause("kvm-ioapic/pit/unmask-restarts")]
    public async Task UnmaskingThePicPinLetsTicksFlowAgain()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked);
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.ExecuteAsync(Program(2, 2400));
        await TakeNmiAsync(vcpu, 1);

        await vcpu.ExecuteAsync(GuestCommand.Out(PicPort.MasterData, 0xfe));

        await TakeNmiAsync(vcpu, 2);
    }

    [Fact]
    [Clause("kvm-ioapic/pit/own-line-source")]
    public async Task TickDoesNotLowerALineThatIrqLineHolds()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vector) with { IsMasked = true });
        Vcpu vcpu = vm.Vcpus[0];
        await vm.IrqLineAsync(0, true);

        await vcpu.ExecuteAsync(Program(0, 2400));
        await TakeNmiAsync(vcpu, 1);

        (await vm.GetIoApicAsync()).Irr.Should().Be(1);
        await vm.IrqLineAsync(0, false);
        (await vm.GetIoApicAsync()).Irr.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-irqfd/resample/all-sharers-are-notified")]
    public async Task ResamplerOnThePitsGsiIsNotifiedBesideIt()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(0, eventfd, resamplefd);

        await vcpu.ExecuteAsync(Program(0, 2400));
        await TakeAsync(vcpu, Vector, 1);

        (await resamplefd.ReadAsync()).Should().Be(1);
        // A periodic tick follows the last one's acknowledgement only.
        await vcpu.ExecuteAsync(Program(2, 2400));
        await TakeAsync(vcpu, Vector, 4);
    }
}

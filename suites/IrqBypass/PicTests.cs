// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>The two 8259As, programmed by the guest as a PC's firmware would: vector bases 0x50 and 0x58, cascaded on pin 2.</summary>
public sealed class PicTests(KernelUnderTest kernel)
{
    private const byte Base = 0x50;

    private async Task<Vm> CreateAsync(byte masterMask = 0, byte slaveMask = 0, byte lastWord = 0x01)
    {
        Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vm.BootAsync();
        await vcpu.UpdateLapicAsync(l => l[LapicState.LvtLint0] = 0x700);
        var handlers = new HandlerTable();
        for (int pin = 0; pin < 16; pin++)
        {
            handlers.Set(Vector(pin), HandlerPolicy.Default with { Acknowledge = Acknowledgement.Never });
        }

        await vcpu.SetHandlersAsync(handlers);
        await vcpu.ExecuteAsync([.. Initialise(PicPort.MasterCommand, Base, 0x04, lastWord), .. Initialise(PicPort.SlaveCommand, Base + 8, 0x02, lastWord),
            GuestCommand.Out(PicPort.MasterData, masterMask), GuestCommand.Out(PicPort.SlaveData, slaveMask)]);
        return vm;
    }

    private static ApicVector Vector(int pin) => new((byte)(Base + pin));

    private static GuestCommand[] Initialise(ushort command, byte vectors, byte cascade, byte last) =>
    [
        GuestCommand.Out(command, 0x11), GuestCommand.Out((ushort)(command + 1), vectors),
        GuestCommand.Out((ushort)(command + 1), cascade), GuestCommand.Out((ushort)(command + 1), last),
    ];

    private static async Task<ulong> InAsync(Vm vm, ushort port) => (await vm.Vcpus[0].ExecuteAsync(GuestCommand.In(port)))[0].Value;

    private static Task OutAsync(Vm vm, ushort port, byte value) => vm.Vcpus[0].ExecuteAsync(GuestCommand.Out(port, value));

    private static Task EoiAsync(Vm vm, int pin) => pin < 8
        ? OutAsync(vm, PicPort.MasterCommand, 0x20)
        : vm.Vcpus[0].ExecuteAsync(GuestCommand.Out(PicPort.SlaveCommand, 0x20), GuestCommand.Out(PicPort.MasterCommand, 0x20));

    [Fact]
    [Clause("kvm-pic/deliver/vector")]
    [Clause("kvm-pic/deliver/cascade")]
    [Clause("kvm-pic/init/sequence")]
    public async Task EveryPinIsTakenAtItsVector()
    {
        await using Vm vm = await CreateAsync();
        foreach (int pin in Enumerable.Range(0, 16).Where(p => p != 2))
        {
            await vm.PulseAsync((uint)pin);
            (await vm.TakeAsync()).Should().Be(Vector(pin).ToString());
            (await vm.GetPicAsync()).isr.Should().Be((byte)(pin < 8 ? 1 << pin : 1 << 2));
            (await vm.GetPicAsync(slave: true)).isr.Should().Be((byte)(pin < 8 ? 0 : 1 << (pin - 8)));
            await EoiAsync(vm, pin);
        }
    }

    [Fact]
    [Clause("kvm-pic/deliver/priority")]
    public async Task LowestPinGoesFirstAndInterruptsHigherOnes()
    {
        await using Vm vm = await CreateAsync();
        await vm.PulseAsync(7);
        await vm.PulseAsync(4);
        await vm.PulseAsync(9);

        (await vm.TakeAsync()).Should().Be("0x59", "pin 9 comes through pin 2");
        (await vm.TakeAsync()).Should().Be("-");
        await vm.PulseAsync(1);
        (await vm.TakeAsync()).Should().Be("0x51", "pin 1 is above pin 2");
        await EoiAsync(vm, 1);
        await EoiAsync(vm, 9);
        (await vm.TakeAsync()).Should().Be("0x54");
        await EoiAsync(vm, 4);
        (await vm.TakeAsync()).Should().Be("0x57");
    }

    [Fact]
    [Clause("kvm-pic/deliver/mask")]
    public async Task MaskedRequestWaits()
    {
        await using Vm vm = await CreateAsync(masterMask: 0xff, slaveMask: 0xff);
        await vm.PulseAsync(3);
        await vm.PulseAsync(12);
        (await vm.TakeAsync()).Should().Be("-");

        await OutAsync(vm, PicPort.MasterData, 0xf7);
        (await vm.TakeAsync()).Should().Be("0x53");
        await EoiAsync(vm, 3);
        await OutAsync(vm, PicPort.MasterData, 0xfb);
        (await vm.TakeAsync()).Should().Be("-", "the second PIC still masks it");
        await OutAsync(vm, PicPort.SlaveData, 0xef);
        (await vm.TakeAsync()).Should().Be("0x5c");
        (await InAsync(vm, PicPort.MasterData)).Should().Be(0xfb);
        (await InAsync(vm, PicPort.SlaveData)).Should().Be(0xef);
    }

    [Fact]
    [Clause("kvm-pic/deliver/wakes-a-halted-vcpu")]
    public async Task RequestWakesTheHaltedVcpu()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.StartAsync(new GuestScript { GuestCommand.HaltUntilTaken(Vector(6)) });
        await vcpu.WaitUntilHaltingAsync();
        await vcpu.WaitUntilBlockedAsync();

        await vm.PulseAsync(6);

        await vcpu.FinishAsync();
    }

    [Theory]
    [InlineData(0x00000700u, true)]
    [InlineData(0x00010700u, false)]
    [InlineData(0x00000400u, false)]
    [InlineData(0x00000050u, false)]
    [Clause("kvm-pic/deliver/needs-lvt0")]
    public async Task LocalApicMustPassItOn(uint lint0, bool taken)
    {
        await using Vm vm = await CreateAsync();
        await vm.Vcpus[0].UpdateLapicAsync(l => l[LapicState.LvtLint0] = lint0);

        await vm.PulseAsync(6);

        (await vm.TakeAsync()).Should().Be(taken ? "0x56" : "-");
    }

    [Fact]
    [Clause("kvm-pic/trigger/edge")]
    public async Task EdgePinRequestsOncePerRise()
    {
        await using Vm vm = await CreateAsync();

        await vm.IrqLineAsync(5, true);
        (await vm.TakeAsync()).Should().Be("0x55");
        await EoiAsync(vm, 5);
        await vm.IrqLineAsync(5, true);
        (await vm.TakeAsync()).Should().Be("-");
        await vm.IrqLineAsync(5, false);
        await vm.IrqLineAsync(5, true);
        (await vm.TakeAsync()).Should().Be("0x55");
    }

    [Fact]
    [Clause("kvm-pic/trigger/level")]
    public async Task LevelPinRequestsWhileItsLineIsUp()
    {
        await using Vm vm = await CreateAsync();
        await OutAsync(vm, PicPort.MasterElcr, 0x20);
        await OutAsync(vm, PicPort.SlaveElcr, 0x02);

        foreach (int pin in new[] { 5, 9 })
        {
            await vm.IrqLineAsync((uint)pin, true);
            for (int round = 0; round < 2; round++)
            {
                (await vm.TakeAsync()).Should().Be(Vector(pin).ToString());
                await EoiAsync(vm, pin);
            }

            (await vm.TakeAsync()).Should().Be(Vector(pin).ToString());
            await vm.IrqLineAsync((uint)pin, false);
            await EoiAsync(vm, pin);
            (await vm.TakeAsync()).Should().Be("-");
        }
    }

    [Fact]
    [Clause("kvm-pic/trigger/elcr-mask")]
    public async Task SystemPinsStayEdgeTriggered()
    {
        await using Vm vm = await CreateAsync();
        await OutAsync(vm, PicPort.MasterElcr, 0xff);
        await OutAsync(vm, PicPort.SlaveElcr, 0xff);

        (await InAsync(vm, PicPort.MasterElcr)).Should().Be(0xf8);
        (await InAsync(vm, PicPort.SlaveElcr)).Should().Be(0xde);
    }

    [Fact]
    [Clause("kvm-pic/eoi/specific-and-not")]
    public async Task EoiClearsTheNamedOrTheHighest()
    {
        await using Vm vm = await CreateAsync();
        async Task ServeAsync()
        {
            kvm_pic_state pic = await vm.GetPicAsync();
            pic.isr = 0xb2;
            pic.priority_add = 0;
            await vm.SetPicAsync(pic);
        }

        foreach ((byte word, byte isr, byte priority) in new (byte, byte, byte)[]
        {
            (0x20, 0xb0, 0), (0x65, 0x92, 0), (0xa0, 0xb0, 2), (0xe7, 0x32, 0), (0xe4, 0xa2, 5), (0xc3, 0xb2, 4), (0x80, 0xb2, 0),
        })
        {
            await ServeAsync();
            await OutAsync(vm, PicPort.MasterCommand, word);
            kvm_pic_state pic = await vm.GetPicAsync();
            (pic.isr, pic.priority_add).Should().Be((isr, priority), "of word 0x{0:x2}", word);
        }

        (await vm.GetPicAsync()).rotate_on_auto_eoi.Should().Be(1);
        await OutAsync(vm, PicPort.MasterCommand, 0x00);
        (await vm.GetPicAsync()).rotate_on_auto_eoi.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-pic/eoi/automatic")]
    public async Task AutomaticEoiLeavesNothingInService()
    {
        await using Vm vm = await CreateAsync(lastWord: 0x03);

        await vm.PulseAsync(4);
        (await vm.TakeAsync()).Should().Be("0x54");
        (await vm.GetPicAsync()).isr.Should().Be(0);
        await vm.PulseAsync(12);
        (await vm.TakeAsync()).Should().Be("0x5c");
        ((await vm.GetPicAsync()).isr, (await vm.GetPicAsync(slave: true)).isr).Should().Be((0, 0));
    }

    [Fact]
    [Clause("kvm-pic/read/registers")]
    public async Task CommandPortReadsRequestsOrInServiceBits()
    {
        await using Vm vm = await CreateAsync();
        await vm.PulseAsync(4);
        (await vm.TakeAsync()).Should().Be("0x54");
        await vm.PulseAsync(6);

        (await InAsync(vm, PicPort.MasterCommand)).Should().Be(0x40);
        await OutAsync(vm, PicPort.MasterCommand, 0x0b);
        (await InAsync(vm, PicPort.MasterCommand)).Should().Be(0x10);
        await OutAsync(vm, PicPort.MasterCommand, 0x0a);
        (await InAsync(vm, PicPort.MasterCommand)).Should().Be(0x40);
        (await InAsync(vm, PicPort.SlaveCommand)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-irqfd/resample/pic-eoi")]
    public async Task AcknowledgementOfASlavesPinNotifiesItsResampler()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(12, eventfd, resamplefd);
        await eventfd.SignalAsync();
        (await vm.TakeAsync()).Should().Be("0x5c");
        (await resamplefd.ReadAsync()).Should().BeNull();

        await EoiAsync(vm, 12);

        (await resamplefd.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-pic/read/poll")]
    public async Task PollAcknowledgesTheHighestRequest()
    {
        await using Vm vm = await CreateAsync();
        await vm.PulseAsync(6);
        await vm.PulseAsync(3);

        foreach ((ulong pin, bool pending) in new[] { (3ul, true), (6ul, true), (7ul, false) })
        {
            await OutAsync(vm, PicPort.MasterCommand, 0x0c);
            (await InAsync(vm, PicPort.MasterCommand)).Should().BeOneOf(pending && kernel.Has("pic-poll-pending-bit") ? [pin | 0x80] : pending ? [pin, pin | 0x80] : [pin]);
        }

        (await vm.TakeAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-pic/init/clears")]
    public async Task InitialisationClearsMaskAndEdges()
    {
        await using Vm vm = await CreateAsync(masterMask: 0xff);
        await OutAsync(vm, PicPort.MasterElcr, 0x20);
        await vm.IrqLineAsync(4, true);
        await vm.IrqLineAsync(5, true);
        kvm_pic_state before = await vm.GetPicAsync();
        (before.irr, before.last_irr).Should().Be((0x30, 0x30));

        await OutAsync(vm, PicPort.MasterCommand, 0x11);

        kvm_pic_state pic = await vm.GetPicAsync();
        (pic.irr, pic.last_irr, pic.imr, pic.init_state, pic.init4).Should().Be((0x20, 0, 0, 1, 1), "only the level-triggered request stays");
    }

    [Fact]
    [Clause("kvm-pic/state/round-trip")]
    public async Task StateIsGotAsItWasSetAndARestoredRequestIsDelivered()
    {
        await using Vm vm = await CreateAsync(masterMask: 0xff, slaveMask: 0xff);
        var state = new kvm_pic_state
        {
            last_irr = 0x12, irr = 0x40, imr = 0xbf, isr = 0x80, priority_add = 0, irq_base = 0x60, read_reg_select = 1, poll = 0, special_mask = 1, init_state = 0,
            auto_eoi = 0, rotate_on_auto_eoi = 1, special_fully_nested_mode = 1, init4 = 1, elcr = 0x08, elcr_mask = 0xf8,
        };

        await vm.SetPicAsync(state);

        (await vm.GetPicAsync()).Should().Be(state);
        (await vm.GetPicAsync(slave: true)).imr.Should().Be(0xff, "the other PIC is another chip");
        (await vm.TakeAsync()).Should().Be("0x66");
    }

    [Fact]
    [Clause("kvm-pic/width")]
    public async Task OnlyByteAccessesCount()
    {
        await using Vm vm = await CreateAsync();

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(
            GuestCommand.Out(PicPort.MasterElcr, 0x2828, AccessWidth.Word), GuestCommand.In(PicPort.MasterElcr), GuestCommand.Out(PicPort.MasterElcr, 0x28),
            GuestCommand.In(PicPort.MasterElcr, AccessWidth.Word), GuestCommand.In(PicPort.MasterElcr));

        (results[1].Value, results[3].Value, results[4].Value).Should().Be((0, 0, 0x28));
    }
}

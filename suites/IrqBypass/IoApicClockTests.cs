// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>GSI 8: KVM_IRQ_LINE_STATUS tells user space whether the last tick of the clock has been acknowledged.</summary>
public sealed class IoApicClockTests(KernelUnderTest kernel)
{
    private const int Pin = 8;
    private static readonly ApicVector Vector = Vectors.B;

    // The second vCPU's id is not its position.
    private static readonly uint[] Ids = [0, 6];

    private async Task<Vm> CreateAsync(RedirectionEntry entry, int vcpus = 1, int pin = Pin)
    {
        await kernel.RequireInServiceAsync();
        Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = vcpus, VcpuIds = Ids });
        await vm.MaskPicsAsync();
        await vm.BootAsync();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.LeaveInServiceAsync(Vectors.A, Vectors.B, Vectors.C, Vectors.D);
        }

        await vm.SetRedirectionAsync(pin, entry);
        return vm;
    }

    // One tick, and what user space is told of it.
    private static async Task<int> TickAsync(Vm vm, uint pin = Pin)
    {
        int status = await vm.IrqLineStatusAsync(pin, true);
        await vm.IrqLineAsync(pin, false);
        return status;
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/coalesced-until-eoi")]
    [Clause("kvm-ioapic/rtc/irq-line-does-not-ask")]
    public async Task TickIsCoalescedUntilTheLastOneIsAcknowledged()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        Vcpu vcpu = vm.Vcpus[0];

        for (int round = 0; round < 2; round++)
        {
            (await TickAsync(vm)).Should().Be(1);
            (await TickAsync(vm)).Should().Be(0, "it is pending");
            (await vm.TakeAsync()).Should().Be("0x52");
            (await TickAsync(vm)).Should().Be(0, "it is in service");
            (await vm.PendingAsync()).Should().Be("-", "a coalesced tick delivers nothing");
            await vcpu.AcknowledgeAsync();
        }

        (await TickAsync(vm)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("0x52");
        await vm.PulseAsync(Pin);
        (await vm.PendingAsync()).Should().Be("0x52", "KVM_IRQ_LINE does not ask");
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/coalesced-until-eoi")]
    public async Task TickOfAnEntryThatTheVcpuKnowsAlreadyIsAcknowledged()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        Vcpu vcpu = vm.Vcpus[0];
        (await vm.TakeAsync()).Should().Be("-", "the vCPU runs once with the entry before there is a tick");

        (await TickAsync(vm)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("0x52");
        await vcpu.AcknowledgeAsync();

        (await TickAsync(vm)).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/irq-line-does-not-ask")]
    public async Task UnaskedTickIsNotTracked()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        await vm.PulseAsync(Pin);
        (await vm.TakeAsync()).Should().Be("0x52");

        (await TickAsync(vm)).Should().Be(1);
    }

    [Theory]
    [InlineData(7)]
    [InlineData(9)]
    [InlineData(0)]
    [Clause("kvm-ioapic/rtc/other-pins-do-not-track")]
    public async Task OtherPinsDeliverWhateverIsInService(int pin)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector), pin: pin);

        (await TickAsync(vm, (uint)pin)).Should().Be(1);
        (await TickAsync(vm, (uint)pin)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("0x52");
        (await TickAsync(vm, (uint)pin)).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/every-destination-must-acknowledge")]
    public async Task EveryDestinationMustAcknowledge()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector, 0xff), 2);
        (await TickAsync(vm)).Should().Be(2);
        (await vm.TakeAsync()).Should().Be("0x52 | 0x52");

        await vm.Vcpus[1].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(0, "vCPU 0 has not acknowledged");
        // Another one of the same vector on the processor that has acknowledged already does not count for the other.
        await vm.SignalMsiAsync(MsiMessage.Fixed(Ids[1], Vector));
        (await vm.Vcpus[1].TakeAsync()).Should().Be("0x52");
        await vm.Vcpus[1].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(0, "vCPU 0 still has not");
        await vm.Vcpus[0].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(2);
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/lowest-priority")]
    public async Task TickOfLowestPriorityIsOwedByItsOneTaker()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector, 0xff) with { DeliveryMode = ApicDeliveryMode.LowestPriority, Logical = true }, 2);

        for (int round = 0; round < 2; round++)
        {
            (await TickAsync(vm)).Should().Be(1);
            string taken = await vm.TakeAsync();
            taken.Should().BeOneOf("0x52 | -", "- | 0x52");
            (await TickAsync(vm)).Should().Be(0);
            await vm.Vcpus[taken[0] == '-' ? 1 : 0].AcknowledgeAsync();
        }
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/only-its-vector")]
    public async Task AcknowledgementOfAnotherVectorDoesNotCount()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        await vm.SetRedirectionAsync(9, RedirectionEntry.LevelTriggered(Vectors.D));
        (await TickAsync(vm)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("0x52");
        await vm.PulseAsync(9);
        (await vm.TakeAsync()).Should().Be("0x74");

        await vm.Vcpus[0].AcknowledgeAsync();
        (await vm.GetRedirectionAsync(9)).RemoteIrr.Should().BeFalse("that was pin 9's");
        (await TickAsync(vm)).Should().Be(0);
        await vm.Vcpus[0].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(1);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("kvm-ioapic/rtc/vector-rewritten")]
    public async Task TickIsAcknowledgedThoughItsEntryWasRewritten(bool destination)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector, (byte)Ids[1]), 2);
        (await TickAsync(vm)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("- | 0x52");

        RedirectionEntry rewritten = RedirectionEntry.Edge(Vectors.C, destination ? (byte)0 : (byte)Ids[1]);
        await vm.Vcpus[0].ExecuteAsync(IoApicRegisters.Write(Pin, rewritten));
        (await TickAsync(vm)).Should().Be(0);
        await vm.Vcpus[1].AcknowledgeAsync();

        (await TickAsync(vm)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be(destination ? "0x63 | -" : "- | 0x63");
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/coalesced-until-eoi")]
    public async Task TickWithoutATakerIsNotTracked()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector, 7));

        (await TickAsync(vm)).Should().Be(0);
        await vm.Vcpus[0].ExecuteAsync(IoApicRegisters.Write(Pin, RedirectionEntry.Edge(Vector)));
        (await TickAsync(vm)).Should().Be(1, "nobody owes an acknowledgement");
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/coalesced-until-eoi")]
    [Clause("kvm-ioapic/rtc/refused")]
    public async Task TickThatIsRefusedIsNotTracked()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector, 0xff) with { DeliveryMode = ApicDeliveryMode.LowestPriority, Logical = true });
        await vm.Vcpus[0].UpdateLapicAsync(l => l[LapicState.SpuriousVector] = 0xff);

        (await TickAsync(vm)).Should().Be(-1, "the only local APIC is disabled");
        (await TickAsync(vm)).Should().Be(-1);
        await vm.Vcpus[0].UpdateLapicAsync(l => l[LapicState.SpuriousVector] = LapicState.SoftwareEnable);
        (await TickAsync(vm)).Should().Be(1, "nobody owes an acknowledgement");
        (await TickAsync(vm)).Should().Be(0);
    }

    [Theory]
    [InlineData(LapicState.InService)]
    [InlineData(LapicState.Request)]
    [Clause("kvm-ioapic/rtc/restored")]
    public async Task RestoredLocalApicOwesTheAcknowledgement(int bank)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector), 2);

        await vm.Vcpus[0].UpdateLapicAsync(l => l.SetVector(bank, Vector));
        (await TickAsync(vm)).Should().Be(0, "local APIC after I/O APIC");
        await vm.SetIoApicAsync(await vm.GetIoApicAsync());
        (await TickAsync(vm)).Should().Be(0, "I/O APIC after local APIC");
        await vm.Vcpus[1].UpdateLapicAsync(l => l.SetVector(bank, Vector));
        await vm.Vcpus[0].UpdateLapicAsync(l => l.SetVector(bank, Vector, false));
        (await TickAsync(vm)).Should().Be(1, "the other processor is no destination");
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/restored")]
    public async Task RestoredTickIsAcknowledgedLikeAnyOther()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        await vm.Vcpus[0].UpdateLapicAsync(l => l.SetVector(LapicState.InService, Vector));
        (await TickAsync(vm)).Should().Be(0);

        await vm.Vcpus[0].AcknowledgeAsync();

        (await TickAsync(vm)).Should().Be(1);
        (await TickAsync(vm)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/restored")]
    public async Task EveryRestoredLocalApicCountsOnce()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector, 0xff), 2);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.UpdateLapicAsync(l => l.SetVector(LapicState.InService, Vector));
            await vcpu.UpdateLapicAsync(l => l.SetVector(LapicState.InService, Vector));
        }

        await vm.SetIoApicAsync(await vm.GetIoApicAsync());
        (await TickAsync(vm)).Should().Be(0);
        await vm.Vcpus[0].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(0);
        await vm.Vcpus[1].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(2);
    }

    [Fact]
    [Clause("kvm-ioapic/rtc/restored")]
    public async Task ClearedLocalApicOwesNothingAnyMore()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        (await TickAsync(vm)).Should().Be(1);
        (await TickAsync(vm)).Should().Be(0);

        await vm.Vcpus[0].UpdateLapicAsync(l => l.Registers.AsSpan(LapicState.Request, 0x80).Clear());

        (await TickAsync(vm)).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-ioapic/state/pending-is-delivered")]
    [Clause("kvm-ioapic/rtc/restored")]
    public async Task StateWithAPendingTickDeliversItAndOwesTheAcknowledgement()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vector));
        (await TickAsync(vm)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("0x52");
        IoApicState state = await vm.GetIoApicAsync();
        state.Irr = 1u << Pin;

        await vm.SetIoApicAsync(state);

        (await vm.PendingAsync()).Should().Be("0x52", "a restored request is not held back by what was tracked before");
        (await TickAsync(vm)).Should().Be(0);
        await vm.Vcpus[0].AcknowledgeAsync();
        (await vm.TakeAsync()).Should().Be("0x52");
        await vm.Vcpus[0].AcknowledgeAsync();
        (await TickAsync(vm)).Should().Be(1);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>What a line does at a pin of the I/O APIC, and where its entry sends it. The PICs are masked: only the I/O APIC answers.</summary>
public sealed class IoApicPinTests(KernelUnderTest kernel)
{
    private const int Pin = 10;

    private async Task<Vm> CreateAsync(RedirectionEntry entry, int vcpus = 1, bool boot = false)
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
            foreach (Vcpu vcpu in vm.Vcpus)
            {
                await vcpu.LeaveInServiceAsync(Vectors.A, Vectors.B, Vectors.C, Vectors.D);
            }
        }
        else
        {
            await vm.EnableLocalApicsAsync();
        }

        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.UpdateLapicAsync(l => l[LapicState.LogicalDestination] = (uint)(1 << vcpu.Index) << 24);
        }

        await vm.SetRedirectionAsync(Pin, entry);
        return vm;
    }

    private static Task WriteAsync(Vm vm, RedirectionEntry entry, int pin = Pin, int vcpu = 0) => vm.Vcpus[vcpu].ExecuteAsync(IoApicRegisters.Write(pin, entry));

    [Fact]
    [Clause("kvm-ioapic/pin/each-pin")]
    [Clause("kvm-ioapic/entry/vector")]
    public async Task EachPinSendsTheVectorOfItsEntry()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked);
        await vm.SetRedirectionAsync([.. Enumerable.Range(0, IoApicState.Pins).Select(p => (p, RedirectionEntry.Edge(new ApicVector((byte)(0x40 + (p * 5))))))]);

        for (int pin = 0; pin < IoApicState.Pins; pin++)
        {
            await vm.PulseAsync((uint)pin);
            (await vm.DrainPendingAsync()).Should().Be($"0x{0x40 + (pin * 5):x2}");
        }
    }

    [Fact]
    [Clause("kvm-ioapic/entry/vector")]
    public async Task EveryVectorCanBeSent()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked);
        for (int vector = 0x10; vector < 0x100; vector += IoApicState.Pins)
        {
            int count = Math.Min(IoApicState.Pins, 0x100 - vector);
            await vm.SetRedirectionAsync([.. Enumerable.Range(0, count).Select(p => (p, RedirectionEntry.Edge(new ApicVector((byte)(vector + p)))))]);
            for (uint pin = 0; pin < count; pin++)
            {
                await vm.PulseAsync(pin);
            }

            (await vm.DrainPendingAsync()).Should().Be(string.Join(" ", Enumerable.Range(vector, count).Select(v => $"0x{v:x2}")));
        }
    }

    [Fact]
    [Clause("kvm-ioapic/pin/edge")]
    public async Task EdgePinDeliversOncePerRise()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A));

        await vm.IrqLineAsync(Pin, true);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        await vm.IrqLineAsync(Pin, true);
        (await vm.DrainPendingAsync()).Should().Be("-");
        await vm.IrqLineAsync(Pin, false);
        (await vm.DrainPendingAsync()).Should().Be("-", "a fall delivers nothing");
        await vm.IrqLineAsync(Pin, true);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse("an edge-triggered entry has none");
    }

    [Fact]
    [Clause("kvm-ioapic/pin/edge-while-masked-is-lost")]
    public async Task EdgeWhileMaskedIsNotDeliveredByUnmasking()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A) with { IsMasked = true }, boot: true);
        await vm.IrqLineAsync(Pin, true);

        await WriteAsync(vm, RedirectionEntry.Edge(Vectors.A));

        (await vm.TakeAsync()).Should().Be("-");
        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(0, "that edge still counts as pending");
        await vm.IrqLineAsync(Pin, false);
        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(1);
        (await vm.TakeAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-ioapic/pin/level")]
    [Clause("kvm-ioapic/pin/level-lowered-before-eoi")]
    public async Task LevelPinDeliversAgainUntilItsLineFalls()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), boot: true);
        Vcpu vcpu = vm.Vcpus[0];
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse();

        await vm.IrqLineAsync(Pin, true);
        (await vm.GetRedirectionAsync(Pin)).Should().Be(RedirectionEntry.LevelTriggered(Vectors.A) with { RemoteIrr = true });
        for (int round = 0; round < 3; round++)
        {
            (await vm.TakeAsync()).Should().Be("0x41");
            (await vm.TakeAsync()).Should().Be("-", "it is in service");
            await vcpu.AcknowledgeAsync();
            (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeTrue("it was delivered again");
        }

        (await vm.TakeAsync()).Should().Be("0x41");
        await vm.IrqLineAsync(Pin, false);
        await vcpu.AcknowledgeAsync();
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse();
        (await vm.TakeAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-ioapic/pin/level-unmask-delivers")]
    [Clause("kvm-ioapic/pin/masked")]
    public async Task UnmaskingALevelPinDeliversItsRaisedLine()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true }, boot: true);
        await vm.SetRedirectionAsync(11, RedirectionEntry.LevelTriggered(Vectors.B) with { IsMasked = true });
        await vm.IrqLineAsync(Pin, true);
        (await vm.TakeAsync()).Should().Be("-");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse();

        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.B), pin: 11);
        (await vm.TakeAsync()).Should().Be("-", "that pin's line is down");
        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.C) with { IsMasked = true });
        (await vm.TakeAsync()).Should().Be("-", "it is still masked");
        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.C));
        (await vm.TakeAsync()).Should().Be("0x63");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeTrue();
    }

    [Fact]
    [Clause("kvm-ioapic/pin/level-lowered-while-masked")]
    public async Task LineThatFellWhileMaskedDeliversNothing()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true }, boot: true);
        await vm.PulseAsync(Pin);

        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A));

        (await vm.TakeAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-ioapic/pin/unmask-waits-for-remote-irr")]
    [Clause("kvm-ioapic/eoi/masked")]
    public async Task UnmaskingWaitsForTheAcknowledgement()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), boot: true);
        Vcpu vcpu = vm.Vcpus[0];
        await vm.IrqLineAsync(Pin, true);
        (await vm.TakeAsync()).Should().Be("0x41");

        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true });
        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A));
        (await vm.PendingAsync()).Should().Be("-", "remote IRR is set");
        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true });
        await vcpu.AcknowledgeAsync();
        (await vm.TakeAsync()).Should().Be("-", "it is masked");
        (await vm.GetRedirectionAsync(Pin)).RemoteIrr.Should().BeFalse();
        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A));
        (await vm.TakeAsync()).Should().Be("0x41");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-ioapic/pin/polarity-is-ignored")]
    public async Task PolarityIsKeptAndIgnored(bool level)
    {
        RedirectionEntry entry = RedirectionEntry.Edge(Vectors.A) with { ActiveLow = true, Level = level };
        await using Vm vm = await CreateAsync(entry);

        (await vm.IrqLineStatusAsync(Pin, false)).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("-", "not asserted is not active");
        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("0x41");
        (await vm.GetRedirectionAsync(Pin)).Should().Be(entry with { RemoteIrr = level });
    }

    [Fact]
    [Clause("kvm-ioapic/pin/two-pins-one-vector")]
    [Clause("kvm-ioapic/eoi/broadcast")]
    [Clause("kvm-ioapic/eoi/other-vectors")]
    public async Task PinsWithOneVectorAreAcknowledgedTogether()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), boot: true);
        await vm.SetRedirectionAsync([(0, RedirectionEntry.LevelTriggered(Vectors.A)), (23, RedirectionEntry.LevelTriggered(Vectors.A)), (11, RedirectionEntry.LevelTriggered(Vectors.B))]);
        foreach (uint pin in new uint[] { 0, Pin, 11, 23 })
        {
            await vm.IrqLineAsync(pin, true);
        }

        (await vm.TakeAsync()).Should().Be("0x52");
        foreach (uint pin in new uint[] { 0, Pin, 11, 23 })
        {
            await vm.IrqLineAsync(pin, false);
        }

        // 0x52 goes first; the lower class waits until then.
        await vm.Vcpus[0].AcknowledgeAsync();
        (await RemoteIrrAsync(vm)).Should().Equal(0, Pin, 23);
        (await vm.TakeAsync()).Should().Be("0x41");
        await vm.Vcpus[0].AcknowledgeAsync();
        (await RemoteIrrAsync(vm)).Should().BeEmpty();
    }

    [Theory]
    [InlineData(0, "0x41 | - | -")]
    [InlineData(1, "- | 0x41 | -")]
    [InlineData(2, "- | - | 0x41")]
    [InlineData(3, "- | - | -")]
    [InlineData(0xff, "0x41 | 0x41 | 0x41")]
    [Clause("kvm-ioapic/entry/physical-destination")]
    [Clause("kvm-ioapic/entry/fixed")]
    public async Task PhysicalDestinationIsAnApicId(byte destination, string pending)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A, destination), 3);

        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(pending.Count(c => c == 'x'));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Theory]
    [InlineData(0x01, "0x41 | - | -")]
    [InlineData(0x04, "- | - | 0x41")]
    [InlineData(0x06, "- | 0x41 | 0x41")]
    [InlineData(0x07, "0x41 | 0x41 | 0x41")]
    [InlineData(0x08, "- | - | -")]
    [Clause("kvm-ioapic/entry/logical-destination")]
    [Clause("kvm-ioapic/entry/fixed")]
    public async Task LogicalDestinationIsASet(byte destination, string pending)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A, destination) with { Logical = true }, 3);

        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(pending.Count(c => c == 'x'));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Theory]
    [InlineData(0x40, "- | 0x40 | -")]
    [InlineData(0x41, "- | - | 0x41")]
    [InlineData(0x42, "0x42 | - | -")]
    [Clause("kvm-ioapic/entry/lowest-priority")]
    public async Task LowestPriorityGoesToOneOfTheSet(byte vector, string pending)
    {
        KvmSystem kvm = await kernel.OpenKvmAsync();
        string hashing = (await kvm.Session.ReadFileAsync("/sys/module/kvm/parameters/vector_hashing") ?? "absent").Trim();
        Skipping.UnlessCapability(hashing == "Y", "vector hashing", $"kvm.vector_hashing = {hashing}");
        await using Vm vm = await CreateAsync(
            RedirectionEntry.Edge(new ApicVector(vector), 0x07) with { Logical = true, DeliveryMode = ApicDeliveryMode.LowestPriority }, 3);

        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(1);

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Fact]
    [Clause("kvm-ioapic/entry/nmi")]
    public async Task NmiIgnoresTheVector()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A, 1) with { DeliveryMode = ApicDeliveryMode.Nmi }, 2);

        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(1);

        (await vm.Vcpus[0].GetEventsAsync()).nmi_pending.Should().Be(0);
        (await vm.Vcpus[1].GetEventsAsync()).nmi_pending.Should().Be(1);
        (await vm.PendingAsync()).Should().Be("- | -");
    }

    [Fact]
    [Clause("kvm-ioapic/entry/init")]
    public async Task InitMakesTheDestinationWaitForAStartup()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A, 1) with { DeliveryMode = ApicDeliveryMode.Init }, 2);

        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(1);

        (await vm.Vcpus[1].GetMpStateAsync()).Should().Be(KvmConst.KVM_MP_STATE_INIT_RECEIVED);
    }

    [Theory]
    [InlineData(ApicDeliveryMode.Smi, 1)]
    [InlineData(ApicDeliveryMode.ExtInt, 0)]
    [Clause("kvm-ioapic/entry/extint")]
    public async Task SmiIsPendingAndExtIntIsNot(ApicDeliveryMode mode, int status)
    {
        if (mode == ApicDeliveryMode.Smi)
        {
            await kernel.RequireAsync(KvmCap.X86Smm);
        }

        await using Vm vm = await CreateAsync(RedirectionEntry.Edge(Vectors.A) with { DeliveryMode = mode });

        (await vm.IrqLineStatusAsync(Pin, true)).Should().Be(status);

        (await vm.Vcpus[0].GetEventsAsync()).smi_pending.Should().Be((byte)status);
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-ioapic/entry/trigger-mode")]
    public async Task TriggerModeIsWhatTheTmrShows()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A));

        await vm.IrqLineAsync(Pin, true);
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().Equal(Vectors.A);
        await vm.IrqLineAsync(Pin, false);
        await vm.SetRedirectionAsync(Pin, RedirectionEntry.Edge(Vectors.A));
        await vm.IrqLineAsync(Pin, true);
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().BeEmpty();
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/edge-leaves-remote-irr")]
    public async Task AcknowledgingAnEdgeOfTheVectorLeavesRemoteIrr()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), boot: true);
        await vm.SetRedirectionAsync(11, RedirectionEntry.LevelTriggered(Vectors.A) with { RemoteIrr = true });

        // The message clears the vector's trigger mode in the local APIC: what is acknowledged is an edge.
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vectors.A));
        (await vm.TakeAsync()).Should().Be("0x41");
        await vm.Vcpus[0].AcknowledgeAsync();

        (await RemoteIrrAsync(vm)).Should().Equal(11);
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/directed")]
    public async Task SuppressedBroadcastLeavesRemoteIrr()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), boot: true);
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.UpdateLapicAsync(l => l[LapicState.SpuriousVector] |= LapicState.SuppressEoiBroadcast);
        await vm.IrqLineAsync(Pin, true);
        (await vm.TakeAsync()).Should().Be("0x41");

        await vcpu.AcknowledgeAsync();

        (await RemoteIrrAsync(vm)).Should().Equal(Pin);
        (await vm.TakeAsync()).Should().Be("-");
    }

    public static TheoryData<string, string> Destinations { get; } = new()
    {
        { "physical", "0x41 | -" },
        { "broadcast", "0x41 | 0x41" },
        { "logical", "0x41 | -" },
        { "logical set", "0x41 | 0x41" },
        { "lowest priority", "0x41" },
    };

    private static RedirectionEntry EntryOf(string destination) => destination switch
    {
        "physical" => RedirectionEntry.LevelTriggered(Vectors.A),
        "broadcast" => RedirectionEntry.LevelTriggered(Vectors.A, 0xff),
        "logical" => RedirectionEntry.LevelTriggered(Vectors.A, 1) with { Logical = true },
        "logical set" => RedirectionEntry.LevelTriggered(Vectors.A, 3) with { Logical = true },
        _ => RedirectionEntry.LevelTriggered(Vectors.A, 3) with { Logical = true, DeliveryMode = ApicDeliveryMode.LowestPriority },
    };

    // The entry is written while both vCPUs have run without it: by the guest on the other vCPU, half by half, or by user space.
    [Theory]
    [MemberData(nameof(Destinations))]
    [Clause("kvm-ioapic/eoi/each-destination-mode")]
    [Clause("kvm-ioapic/eoi/entry-written-after-the-vcpu-ran")]
    public async Task EntryWrittenByTheGuestIsAcknowledgedFromTheFirstInterruptOn(string destination, string taken)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked, 2, boot: true);
        await WriteAsync(vm, EntryOf(destination), vcpu: 1);

        await ExpectAcknowledgedAsync(vm, taken);
    }

    [Theory]
    [MemberData(nameof(Destinations))]
    [Clause("kvm-ioapic/eoi/each-destination-mode")]
    [Clause("kvm-ioapic/eoi/entry-written-after-the-vcpu-ran")]
    public async Task EntryWrittenByUserSpaceIsAcknowledgedFromTheFirstInterruptOn(string destination, string taken)
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked, 2, boot: true);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.ExecuteAsync(GuestCommand.Nop);
        }

        await vm.SetRedirectionAsync(Pin, EntryOf(destination));

        await ExpectAcknowledgedAsync(vm, taken);
    }

    private static async Task ExpectAcknowledgedAsync(Vm vm, string taken)
    {
        await vm.IrqLineAsync(Pin, true);
        await vm.IrqLineAsync(Pin, false);
        (await RemoteIrrAsync(vm)).Should().Equal(Pin);

        string pending = await vm.TakeAsync();
        pending.Split(" | ").Count(p => p == "0x41").Should().Be(taken.Split(" | ").Count(p => p == "0x41"));
        if (taken.Contains('|', StringComparison.Ordinal))
        {
            pending.Should().Be(taken);
        }

        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.AcknowledgeAsync();
        }

        (await RemoteIrrAsync(vm)).Should().BeEmpty();
        (await vm.TakeAsync()).Should().Be("- | -");
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/after-retarget")]
    public async Task InterruptInServiceIsAcknowledgedThoughItsEntryNamesAnotherProcessor()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), 2, boot: true);
        await vm.IrqLineAsync(Pin, true);
        (await vm.TakeAsync()).Should().Be("0x41 | -");

        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A, 1), vcpu: 1);
        (await vm.TakeAsync()).Should().Be("- | -", "it is in service elsewhere");
        await vm.Vcpus[0].AcknowledgeAsync();

        (await vm.TakeAsync()).Should().Be("- | 0x41", "the line is still up, and now the other processor's");
        await vm.IrqLineAsync(Pin, false);
        await vm.Vcpus[1].AcknowledgeAsync();
        (await RemoteIrrAsync(vm)).Should().BeEmpty();
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/after-retarget")]
    public async Task PendingInterruptIsAcknowledgedThoughItsEntryNamesAnotherProcessor()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A), 2, boot: true);
        await vm.PulseAsync(Pin);
        await WriteAsync(vm, RedirectionEntry.LevelTriggered(Vectors.A, 1), vcpu: 1);

        (await vm.TakeAsync()).Should().Be("0x41 | -");
        await vm.Vcpus[0].AcknowledgeAsync();

        (await RemoteIrrAsync(vm)).Should().BeEmpty();
    }

    [Fact]
    [Clause("kvm-ioapic/pin/storm")]
    [Clause("kvm-ioapic/pin/storm-bound")]
    public async Task LineThatNeverFallsKeepsBeingDelivered()
    {
        const uint Bound = 10_000, Before = 200;
        await kernel.RequireInServiceAsync();
        await using Vm vm = await CreateAsync(RedirectionEntry.LevelTriggered(Vectors.A));
        // Ten thousand interrupts take seconds where each exit is emulated.
        vm.Session.EventPatience = TimeSpan.FromSeconds(50);
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.BootAsync(x2apic: true);

        // Some deliveries that do not count, because the line falls after them.
        await vcpu.SetHandlersAsync(new HandlerTable().Set(Vectors.A, HandlerPolicy.CountOnly with { ReturnMasked = true }));
        await vm.IrqLineAsync(Pin, true);
        for (uint times = 1; times <= Before; times++)
        {
            await vcpu.ExecuteAsync(GuestCommand.HaltUntilTaken(Vectors.A, times));
        }

        await vm.IrqLineAsync(Pin, false);
        await vcpu.TakeAsync();
        uint before = await TakenAsync(vm);

        // The interrupted code gets no further until the kernel holds the next delivery back.
        await vcpu.SetHandlersAsync(new HandlerTable().Set(Vectors.A, HandlerPolicy.CountOnly));
        await vm.IrqLineAsync(Pin, true);
        await vcpu.ExecuteAsync(GuestCommand.InterruptsOn, GuestCommand.InterruptsOff);
        uint storm = await TakenAsync(vm) - before;
        await vcpu.ExecuteAsync(GuestCommand.HaltUntilTaken(Vectors.A, before + storm + 5));
        storm.Should().BeInRange(Bound - 10, Bound + 10);

        await vm.IrqLineAsync(Pin, false);
        await vcpu.TakeAsync();
        (await RemoteIrrAsync(vm)).Should().BeEmpty();
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-ioapic/eoi/each-pin")]
    public async Task EachPinSeesItsAcknowledgement()
    {
        await using Vm vm = await CreateAsync(RedirectionEntry.Masked, boot: true);
        for (int pin = 0; pin < IoApicState.Pins; pin++)
        {
            await vm.SetRedirectionAsync(pin, RedirectionEntry.LevelTriggered(Vectors.A));
            await vm.IrqLineAsync((uint)pin, true);
            (await vm.TakeAsync()).Should().Be("0x41");
            await vm.IrqLineAsync((uint)pin, false);
            (await RemoteIrrAsync(vm)).Should().Equal(pin);

            await vm.Vcpus[0].AcknowledgeAsync();

            (await RemoteIrrAsync(vm)).Should().BeEmpty();
            await vm.SetRedirectionAsync(pin, RedirectionEntry.Masked);
        }
    }

    private static async Task<uint> TakenAsync(Vm vm) => BitConverter.ToUInt32(await vm.ReadMemoryAsync(GuestLayout.Taken(0, Vectors.A.Value), 4));

    private static async Task<IEnumerable<int>> RemoteIrrAsync(Vm vm)
    {
        IoApicState state = await vm.GetIoApicAsync();
        return [.. Enumerable.Range(0, IoApicState.Pins).Where(p => state[p].RemoteIrr)];
    }
}

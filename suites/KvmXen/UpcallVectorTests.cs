// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>The domain-wide callback vector, as the guest takes it.</summary>
public sealed class UpcallVectorTests(KernelUnderTest kernel)
{
    public static TheoryData<XenAbi, VcpuState> Circumstances { get; } = new()
    {
        { XenAbi.Bits64, VcpuState.Halted },
        { XenAbi.Bits64, VcpuState.Running },
        { XenAbi.Bits64, VcpuState.NotYetRun },
        { XenAbi.Bits32, VcpuState.Halted },
        { XenAbi.Bits32, VcpuState.Running },
        { XenAbi.Bits32, VcpuState.NotYetRun },
    };

    [Theory]
    [MemberData(nameof(Circumstances))]
    [Clause("kvm-xen/upcall/domain-vector/delivers-once")]
    [Clause("kvm-xen/upcall/wakes")]
    public async Task SentEventInterruptsOnce(XenAbi abi, VcpuState state)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });

        IReadOnlyList<string> log = await domain.ObserveAsync(state, () => domain.Xen.SendAsync(66));

        log.Should().Equal(domain.Delivered(66));
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty("the guest has cleared it");
        XenVcpuInfoState after = await domain.VcpuInfo.ReadAsync();
        (after.UpcallPending, after.Selector).Should().Be((0, 0UL));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/upcall/domain-vector/delivers-once")]
    public async Task EachOfSeveralEventsInterrupts(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        uint last = domain.Layout.Ports - 1;
        await domain.HaltAsync();
        foreach (uint port in new uint[] { 1, 1, 31, 32, last })
        {
            await domain.Xen.SendAsync(port);
            await domain.Vcpu.WaitForNotifyAsync();
        }

        (await domain.FenceAsync()).Should().Equal(
            [.. domain.Upcalled(1), .. domain.Upcalled(1), .. domain.Upcalled(31), .. domain.Upcalled(32), .. domain.Delivered(last)]);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/upcall/coalesce")]
    public async Task EventsBeforeTheGuestLooksAreOneUpcall(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.NotYetRun, async () =>
        {
            foreach (uint port in new uint[] { 5, 7, 5, 300, 1000 })
            {
                await domain.Xen.SendAsync(port);
            }
        });

        log.Should().Equal(domain.Delivered(5, 7, 300, 1000));
    }

    [Theory]
    [InlineData(0x10)]
    [InlineData(0x1f)]
    [InlineData(0x20)]
    [InlineData(0xf3)]
    [InlineData(0xff)]
    [Clause("kvm-xen/upcall/domain-vector/vector")]
    public async Task VectorIsTheOneThatWasSet(byte value)
    {
        var vector = new ApicVector(value);
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Upcall = UpcallPath.None });
        await domain.Xen.SetUpcallVectorAsync(vector);
        await domain.SetUpcallHandlerAsync(0, new HandlerPolicy
        {
            Acknowledge = Acknowledgement.Never,
            Notify = true,
            BelowThirtyTwo = true,
            Actions = [domain.UpcallAction(0)],
        }, vector);

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.Halted, () => domain.Xen.SendAsync(3));

        log.Should().Equal($"taken {vector}", "upcall pending 1 mask 0 selector 0x1", "port 3 pending (word 0x8)", $"taken {XenDomain.Fence}");
    }

    [Theory]
    [InlineData(VcpuState.Halted)]
    [InlineData(VcpuState.Running)]
    [Clause("kvm-xen/evtchn/masked")]
    public async Task MaskedEventDoesNotInterrupt(VcpuState state)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.SharedInfo.MaskAsync(66);

        (await domain.ObserveNothingAsync(state, () => domain.Xen.SendAsync(66))).Should().Equal(XenDomain.NothingDelivered);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(66u);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/already-pending")]
    public async Task PendingEventDoesNotInterruptAgain()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.SharedInfo.SetPendingAsync(66);

        (await domain.ObserveNothingAsync(VcpuState.Halted, () => domain.Xen.SendAsync(66))).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/vcpu")]
    public async Task EventInterruptsItsVcpuAndNoOther()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 3, VcpuIds = [0, 5, 1] });
        for (int vcpu = 0; vcpu < 3; vcpu++)
        {
            await domain.HaltAsync(vcpu);
        }

        await domain.Xen.SendAsync(66, 5);
        await domain.Vcpus[1].WaitForNotifyAsync();
        await domain.Xen.SendAsync(130, 1);
        await domain.Vcpus[2].WaitForNotifyAsync();

        (await domain.FenceAsync(1)).Should().Equal(domain.Delivered(66));
        (await domain.FenceAsync(2)).Should().Equal(domain.Delivered(130));
        (await domain.FenceAsync(0)).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/without-vector")]
    public async Task WithoutAVectorUserSpaceInterruptsTheGuest()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Upcall = UpcallPath.None });

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.Halted, async () =>
        {
            await domain.Xen.SendAsync(66);
            (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(1);

            // As a VMM does whose guest asked for a GSI or INTx; here an MSI with the handler's vector stands for it.
            await domain.Vm.SignalMsiAsync(MsiMessage.Fixed(domain.Vcpu.Id, XenDomain.Upcall));
        });

        log.Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/upcall/without-vector")]
    public async Task WithoutAVectorTheKernelDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Upcall = UpcallPath.None });

        (await domain.ObserveNothingAsync(VcpuState.Halted, () => domain.Xen.SendAsync(66))).Should().Equal(XenDomain.NothingDelivered);
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(1);
    }

    [Fact]
    [Clause("kvm-xen/upcall/disable")]
    public async Task VectorDisabledBeforeTheGuestTookItIsNotTaken()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);

        IReadOnlyList<string> log = await domain.ObserveNothingAsync(VcpuState.NotYetRun, async () =>
        {
            await domain.Xen.SendAsync(66);
            await domain.Xen.SetUpcallVectorAsync(new ApicVector(0));
        });

        log.Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/flag-is-the-line")]
    public async Task FlagThatUserSpaceSetInterrupts()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.NotYetRun, () => domain.VcpuInfo.SetUpcallPendingAsync(1));

        log.Should().Equal($"taken {XenDomain.Upcall}", "upcall pending 1 mask 0 selector 0x0", $"taken {XenDomain.Fence}");
    }

    [Theory]
    [InlineData(VcpuState.Halted, UpcallPath.DomainVector)]
    [InlineData(VcpuState.Running, UpcallPath.DomainVector)]
    [InlineData(VcpuState.NotYetRun, UpcallPath.DomainVector)]
    [InlineData(VcpuState.Halted, UpcallPath.VcpuVector)]
    [Clause("kvm-xen/upcall/flag-is-the-line")]
    [Clause("kvm-xen/evtchn/upcall-mask-is-the-guests")]
    public async Task EventInterruptsWhateverTheUpcallMaskSays(VcpuState state, UpcallPath path)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Upcall = path });
        await domain.VcpuInfo.SetUpcallMaskAsync(1);

        IReadOnlyList<string> log = await domain.ObserveAsync(state, () => domain.Xen.SendAsync(66));

        log.Should().Equal(domain.Delivered(66).Select(l => l.Replace("mask 0", "mask 1", StringComparison.Ordinal)));
    }

    [Fact]
    [Clause("kvm-xen/upcall/flag-is-the-line")]
    public async Task UpcallComesAgainWhileTheFlagIsSet()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.SetUpcallHandlerAsync(0, new HandlerPolicy { Acknowledge = Acknowledgement.Never, ReturnMasked = true });
        await domain.Xen.SendAsync(66);

        GuestScript script = domain.Script();
        for (int round = 0; round < 3; round++)
        {
            script.Add(GuestCommand.InterruptsOn).Add(GuestCommand.Nop);
        }

        script.Add(GuestCommand.LookAtEventChannels(domain.VcpuInfoGpa(0), domain.SharedInfoGpa)).Add(domain.HaltUntilFence());
        await domain.Vcpu.StartAsync(script);
        await domain.Vcpu.WaitUntilHaltingAsync();

        (await domain.FenceAsync()).Should().Equal(
            $"taken {XenDomain.Upcall}",
            $"taken {XenDomain.Upcall}",
            $"taken {XenDomain.Upcall}",
            "upcall pending 1 mask 0 selector 0x2",
            "port 66 pending (word 0x4)",
            $"taken {XenDomain.Fence}");
    }

    [Fact]
    [Clause("kvm-xen/upcall/interrupts-off")]
    public async Task UpcallWaitsUntilInterruptsAreOn()
    {
        const ulong Flag = 0x71000;
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.StartAsync(domain.Script()
            .Add(GuestCommand.Notify)
            .Add(GuestCommand.SpinUntil(new GuestCondition(Flag, Comparison.NotEqual, 0), interrupts: false))
            .Add(GuestCommand.Mark(1))
            .Add(GuestCommand.InterruptsOn)
            .Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitForNotifyAsync();
        await domain.Xen.SendAsync(66);
        await domain.WriteAsync(Flag, 1);
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(["mark 0x1 0x0", .. domain.Delivered(66)]);
    }

    [Fact]
    [Clause("kvm-xen/upcall/needs-vcpu-info")]
    public async Task VcpuInfoThatIsOffInterruptsNoMore()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.VcpuInfo.SetUpcallPendingAsync(1);
        XenDomain.Expect(await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA), "VCPU_INFO off");

        (await domain.ObserveNothingAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/needs-vcpu-info")]
    public async Task HaltedVcpuWithoutVcpuInfoSleeps()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { WithoutVcpuInfo = true });
        await domain.HaltAsync();
        string file = $"/proc/self/task/{domain.Vcpu.ThreadId}/schedstat";
        string? before, after = await domain.Vm.Session.ReadFileAsync(file);

        // A wake-up or two are nobody's fault; a thread that only looks asleep never stops.
        int rounds = 0;
        do
        {
            before = after;
            for (int call = 0; call < 10; call++)
            {
                await domain.SharedInfo.ReadAsync();
            }

            after = await domain.Vm.Session.ReadFileAsync(file);
        }
        while (after != before && ++rounds < 20);
        after.Should().Be(before, "a sleeping thread neither runs nor waits for a processor");
        (await domain.FenceAsync()).Should().Equal(XenDomain.NothingDelivered);
    }

    // Memory that moves under the cached translations

    [Theory]
    [InlineData(XenAbi.Bits64, VcpuState.Halted)]
    [InlineData(XenAbi.Bits64, VcpuState.Running)]
    [InlineData(XenAbi.Bits32, VcpuState.Halted)]
    [InlineData(XenAbi.Bits32, VcpuState.Running)]
    [Clause("kvm-xen/upcall/stale-translation")]
    public async Task EventAfterAMemslotChangeInterruptsOnce(XenAbi abi, VcpuState state)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });

        IReadOnlyList<string> log = await domain.ObserveAsync(state, async () =>
        {
            await domain.MakeTranslationsStaleAsync();
            await domain.Xen.SendAsync(66);
        });

        log.Should().Equal(domain.Delivered(66));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-xen/upcall/stale-translation")]
    public async Task EventAfterVcpuInfoWasDroppedInterruptsOnce(bool byHva)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { ByHva = byHva });

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.Halted, async () =>
        {
            await domain.VcpuInfo.DropAsync();
            await domain.Xen.SendAsync(66);
        });

        log.Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/upcall/stale-translation")]
    [FixedBy("0985dba842ea", "KVM: x86/xen: Fix kvm_xen_has_interrupt() sleeping in kvm_vcpu_block()")]
    public async Task VcpuSleepsAndWakesAfterItsVcpuInfoWasDropped()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await domain.VcpuInfo.DropAsync();
        await domain.HaltAsync();

        await domain.Xen.SendAsync(66);
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/upcall/flag-is-the-line")]
    [Clause("kvm-xen/upcall/stale-translation")]
    [FixedBy("0985dba842ea", "KVM: x86/xen: Fix kvm_xen_has_interrupt() sleeping in kvm_vcpu_block()")]
    public async Task SleepingVcpuThatIsMadeToLookFindsItsFlagWhereItIsNow()
    {
        const uint TaskPriority = 0x80;
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.StartAsync(domain.Script()
            .Add(GuestCommand.WriteApic(TaskPriority, 0x60))
            .Add(GuestCommand.HaltUntilTaken(XenDomain.Upcall))
            .Add(GuestCommand.WriteApic(TaskPriority, 0))
            .Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitUntilHaltingAsync();
        await domain.Vcpu.WaitUntilBlockedAsync();
        await domain.MakeTranslationsStaleAsync();
        await domain.VcpuInfo.SetUpcallPendingAsync(1);

        // The fence is beneath the vCPU's priority: it makes the sleeper look, and is no reason to wake up.
        await domain.Vm.SignalMsiAsync(MsiMessage.Fixed(domain.Vcpu.Id, XenDomain.Fence));
        await domain.Vcpu.FinishAsync();

        (await domain.ReadLogAsync()).Should().Equal($"taken {XenDomain.Upcall}", "upcall pending 1 mask 0 selector 0x0", $"taken {XenDomain.Fence}");
    }

    [Fact]
    [Clause("kvm-xen/upcall/absent-vcpu-info")]
    public async Task VcpuRunsOnWithoutItsVcpuInfoAndIsToldOnceItIsBack()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { VcpuInfoApart = true });
        await domain.RemoveVcpuInfoSlotAsync();
        await domain.Xen.SendAsync(66);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(GuestCommand.Nop));
        (await domain.ReadLogAsync()).Should().BeEmpty();
        await domain.AddVcpuInfoSlotAsync();

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask);

        log.Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/upcall/deferred")]
    public async Task EventBeforeVcpuInfoIsSetInterruptsOnceItIs()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { WithoutVcpuInfo = true });
        await domain.Xen.SendAsync(66);
        await domain.Xen.SendAsync(300);
        await domain.SetVcpuInfoAsync(0);

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask);

        log.Should().Equal(domain.Delivered(66, 300));
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class DistributorRegisterTests(KernelUnderTest kernel)
{
    private const ulong Identification = 0x4b00_043b;
    private static readonly Spi s_spi = new(41);

    [Fact]
    [Clause("arm-gicd/reset-values")]
    public async Task RegistersHaveTheirResetValues()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(irqs: 96);
        (uint Offset, ulong Value)[] expected =
        [
            (Gicd.Ctlr, Gicd.CtlrAffinityRouting | Gicd.CtlrDisableSecurity), (Gicd.Typer, 2 | (9 << 19)), (Gicd.Typer2, 0), (Gicd.Statusr, 0xffff_ffff),
            (Gicd.Igroupr + 4, 0xffff_ffff), (Gicd.Igroupr + 8, 0xffff_ffff), (Gicd.Isenabler + 4, 0), (Gicd.Icenabler + 4, 0), (Gicd.Ispendr + 4, 0), (Gicd.Icpendr + 4, 0),
            (Gicd.Isactiver + 4, 0), (Gicd.Icactiver + 4, 0), (Gicd.Ipriorityr + 32, 0), (Gicd.Icfgr + 8, 0xaaaa_aaaa), (Gicd.Icfgr + 20, 0xaaaa_aaaa), (Gicd.Irouter + (41 * 8), 0),
            (Gicd.Itargetsr + 40, 0), (Gicd.Igrpmodr + 4, 0), (Gicd.Pidr2, 0x3b), (Gicd.Pidr2 + 4, 0), (0x0014, 0), (0xc100, 0),
            // Private interrupts belong to the redistributors, and there are none from 96 on.
            (Gicd.Igroupr, 0), (Gicd.Isenabler, 0), (Gicd.Icfgr, 0), (Gicd.Igroupr + 12, 0), (Gicd.Icfgr + 24, 0),
        ];
        var script = new GuestScript();
        foreach ((uint offset, ulong _) in expected)
        {
            script.Add(Arm64Command.LoadDistributor(offset));
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        results.Select((r, n) => (expected[n].Offset, r.Value)).Should().Equal(expected.Select(e => (e.Offset, e.Value)));
    }

    [Fact]
    [Clause("arm-gicd/typer-with-an-its")]
    public async Task TyperTellsOfLpisWithAnIts()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Gic.ReadDistributorAsync(Gicd.Typer)).Should().Be(7u | (1u << 17) | (15u << 19));
    }

    [Fact]
    [Clause("arm-gicd/iidr")]
    public async Task RevisionOfTheImplementationIsSettable()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint iidr = await vm.Gic.ReadDistributorAsync(Gicd.Iidr);
        (iidr & 0xff00_0fff).Should().Be((uint)(Identification & 0xff00_0fff));
        uint revision = iidr >> 12 & 0xf;
        revision.Should().BeGreaterThanOrEqualTo(2);
        (await vm.Gic.TryWriteDistributorAsync(Gicd.Iidr, iidr)).Should().Be(Errno.None);
        (await vm.Gic.TryWriteDistributorAsync(Gicd.Iidr, (iidr & ~0xf000u) | 0x2000)).Should().Be(Errno.None);
        uint second = (iidr & ~0xf000u) | 0x2000, read = await vm.Gic.ReadDistributorAsync(Gicd.Iidr);
        read.Should().BeOneOf(kernel.Has("vgic-iidr-settable") ? [second] : [second, iidr]);
        bool settable = read != iidr;
        // Revision 2 has neither GICR_CTLR.CES nor .IR.
        if (revision > 2 && settable)
        {
            (await vm.Gic.ReadRedistributorAsync(0, Gicr.Ctlr)).Should().Be(0);
            (await vm.Gic.TryWriteDistributorAsync(Gicd.Iidr, iidr)).Should().Be(Errno.None);
            (await vm.Gic.ReadRedistributorAsync(0, Gicr.Ctlr)).Should().Be(Gicr.CtlrCesIr);
        }

        uint[] unknown = settable ? [(iidr & ~0xf000u) | 0xf000, iidr & ~0xf000u] : [];
        foreach (uint wrong in new[] { iidr ^ 1, iidr ^ 0x0100_0000, iidr ^ 0x0001_0000 }.Concat(unknown))
        {
            (await vm.Gic.TryWriteDistributorAsync(Gicd.Iidr, wrong)).Should().Be(Errno.EINVAL, $"0x{wrong:x}");
        }

        (await vm.Gic.ReadDistributorAsync(Gicd.Iidr)).Should().Be(iidr);
    }

    [Fact]
    [Clause("arm-gicd/iidr-newest")]
    public async Task RevisionIsTheNewestUnlessAnotherIsChosen()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint iidr = await vm.Gic.ReadDistributorAsync(Gicd.Iidr), newer = iidr + 0x1000;
        (newer >> 12 & 0xf).Should().NotBe(0);
        (await vm.Gic.TryWriteDistributorAsync(Gicd.Iidr, newer)).Should().BeOneOf(kernel.Has("vgic-iidr-settable") ? [Errno.EINVAL] : [Errno.EINVAL, Errno.None]);
        (await vm.Gic.ReadDistributorAsync(Gicd.Iidr)).Should().Be(iidr, "there is no newer one");
    }

    [Fact]
    [Clause("arm-gicd/misaligned")]
    public async Task MisalignedRegisterIsNone()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.WriteDistributorAsync(Gicd.Ipriorityr + 40, 0x8090_a0b0);
        foreach (uint offset in new uint[] { 41, 42, 43 })
        {
            (await vm.Gic.ReadDistributorAsync(Gicd.Ipriorityr + offset)).Should().Be(0, $"GICD_IPRIORITYR + {offset}");
            await vm.Gic.WriteDistributorAsync(Gicd.Ipriorityr + offset, uint.MaxValue);
        }

        (await vm.Gic.ReadDistributorAsync(Gicd.Ipriorityr + 40)).Should().Be(0x8090_a0b0);
        (await vm.Gic.ReadDistributorAsync(Gicd.Ipriorityr + 44)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-gicd/read-only")]
    public async Task GuestCannotWriteIdentification()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        var script = new GuestScript();
        foreach (uint offset in new[] { Gicd.Typer, Gicd.Iidr, Gicd.Typer2, Gicd.Pidr2, Gicd.Statusr })
        {
            script.Add(Arm64Command.LoadDistributor(offset)).Add(Arm64Command.StoreDistributor(offset, 0x5a5a_5a5a)).Add(Arm64Command.LoadDistributor(offset));
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        results.Where(r => r.Index % 3 == 2).Select(r => r.Value).Should().Equal(results.Where(r => r.Index % 3 == 0).Select(r => r.Value));
    }

    [Fact]
    [Clause("arm-gicd/typer2-of-user-space")]
    public async Task UnchangedTyper2IsAccepted()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint typer2 = await vm.Gic.ReadDistributorAsync(Gicd.Typer2);
        (await vm.Gic.TryWriteDistributorAsync(Gicd.Typer2, typer2)).Should().Be(Errno.None);
        (await vm.Gic.TryWriteDistributorAsync(Gicd.Typer2, typer2 ^ 1)).Should().BeOneOf(Errno.EINVAL, Errno.EBUSY);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/ctlr/forwards")]
    public async Task NothingIsForwardedWhileTheDistributorIsDisabled(bool byGuest)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi, vcpuId: 1);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(GuestCommand.InterruptsOff));
        (await vm.Vcpus[1].TakenAsync()).Should().BeEmpty();
        if (byGuest)
        {
            await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Ctlr, Gicd.CtlrEnableGroup1)));
        }
        else
        {
            await vm.Gic.EnableDistributorAsync();
        }

        // KVM looks at what is pending already when it is touched again, not when the distributor is enabled.
        await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Isenabler, s_spi), Gicd.Mask(s_spi));
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_spi);
        ((await vm.Gic.ReadDistributorAsync(Gicd.Ctlr)) & 2).Should().Be(2);
    }

    [Fact]
    [Clause("arm-gicd/ctlr/forwards")]
    public async Task DisablingTheDistributorHoldsBackWhatIsPending()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Ctlr, 0)));
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)).Add(GuestCommand.InterruptsOff));
        (await vm.Vcpus[0].TakenAsync()).Should().BeEmpty();
        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Ctlr, Gicd.CtlrEnableGroup1))
            .Add(Arm64Command.StoreDistributor(Gicd.Isenabler + 4, 1u << 9)));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }


    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/enable/set-and-clear")]
    public async Task EnableBitsAreSetAndCleared(bool byGuest)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint set = Gicd.Isenabler + 4, clear = Gicd.Icenabler + 4;
        ulong[] seen = await AccessAsync(vm, byGuest, (set, 0x8000_0201u), (set, 0x2u), (clear, 0x0000_0200u), (clear, 0u));
        seen.Should().Equal(0x8000_0201, 0x8000_0203, 0x8000_0003, 0x8000_0003);
        (await vm.Gic.ReadDistributorAsync(set)).Should().Be(0x8000_0003);
        (await vm.Gic.ReadDistributorAsync(set + 4)).Should().Be(0, "the next 32 interrupts are others");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/active/set-and-clear")]
    public async Task ActiveBitsAreSetAndCleared(bool byGuest)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint set = Gicd.Isactiver + 4, clear = Gicd.Icactiver + 4;
        ulong[] seen = await AccessAsync(vm, byGuest, (set, 0x8000_0201u), (set, 0x2u), (clear, 0x0000_0200u), (clear, 0u));
        seen.Should().Equal(0x8000_0201, 0x8000_0203, 0x8000_0003, 0x8000_0003);
    }

    [Fact]
    [Clause("arm-pending/guest-sets-and-clears")]
    public async Task PendingBitsAreSetAndClearedByTheGuest()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint set = Gicd.Ispendr + 4, clear = Gicd.Icpendr + 4;
        ulong[] seen = await AccessAsync(vm, byGuest: true, (set, 0x8000_0201u), (set, 0x2u), (clear, 0x0000_0200u), (clear, 0u));
        seen.Should().Equal(0x8000_0201, 0x8000_0203, 0x8000_0003, 0x8000_0003);
        (await vm.Gic.ReadDistributorAsync(set)).Should().Be(0x8000_0003);
        (await vm.Gic.ReadDistributorAsync(set + 4)).Should().Be(0, "the next 32 interrupts are others");
    }

    [Fact]
    [Clause("arm-pending/user-space-write-replaces")]
    public async Task PendingBitsAreAsUserSpaceWroteThem()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint set = Gicd.Ispendr + 4;
        (await AccessAsync(vm, byGuest: false, (set, 0x8000_0201u), (set, 0x8000_0002u), (set, 0u))).Should().Equal(0x8000_0201, 0x8000_0002, 0);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/group/plain")]
    public async Task GroupBitsAreAsWritten(bool byGuest)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint group = Gicd.Igroupr + 4;
        (await AccessAsync(vm, byGuest, (group, 0x8000_0201u), (group, 0x2u))).Should().Equal(0x8000_0201, 0x2);
        (await vm.Gic.ReadDistributorAsync(group + 4)).Should().Be(uint.MaxValue);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/configuration/upper-bit-counts")]
    public async Task OnlyTheUpperConfigurationBitCounts(bool byGuest)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint icfgr = Gicd.Icfgr + 8;
        (await AccessAsync(vm, byGuest, (icfgr, 0u), (icfgr, 0x8000_0002u), (icfgr, 0x5555_5555u), (icfgr, 0xffff_0000u))).Should().Equal(0, 0x8000_0002, 0, 0xaaaa_0000);
        (await vm.Gic.ReadDistributorAsync(icfgr + 4)).Should().Be(0xaaaa_aaaa);
    }

    [Fact]
    [Clause("arm-gicd/enable/delivers-what-was-pending")]
    public async Task EnablingDeliversWhatWasPending()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.RouteAsync(s_spi, 1);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[1].HaltUntilTakenAsync(s_spi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Isenabler + 4, 1u << 9)));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/enable/disabled-is-not-taken")]
    public async Task DisabledInterruptIsNotTaken()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.StoreDistributor(Gicd.Icenabler + 4, 1u << 9), Arm64Command.LeaveAndReturn)).Should().BeEmpty();
        (await vm.Gic.ReadDistributorAsync(Gicd.Ispendr + 4)).Should().Be(1u << 9, "it stays pending");
        (await vm.Vcpus[0].TakePendingAsync(Arm64Command.StoreDistributor(Gicd.Isenabler + 4, 1u << 9))).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/active/not-taken-again")]
    public async Task ActiveInterruptIsNotTakenUntilDeactivated()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.Gic.WriteDistributorAsync(Gicd.Isactiver + 4, 1u << 9);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Gic.ReadDistributorAsync(Gicd.Isactiver + 4)).Should().Be(1u << 9);
        await vm.Gic.WriteDistributorAsync(Gicd.Icactiver + 4, 1u << 9);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/active/while-handled")]
    public async Task InterruptIsActiveFromAcknowledgeToDeactivation()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true))
            .Add(GuestCommand.InterruptsOn).Add(Arm64Command.HaltUntilTaken(s_spi)).Add(GuestCommand.InterruptsOff)
            .Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 4)).Add(Arm64Command.LoadDistributor(Gicd.Ispendr + 4))
            .Add(Arm64Command.Deactivate(s_spi))
            .Add(Arm64Command.LoadDistributor(Gicd.Icactiver + 4)));
        results.Skip(4).Where(r => r.Index != 6).Select(r => r.Value).Should().Equal(1u << 9, 0, 0);
    }

    [Fact]
    [Clause("arm-gicd/active/while-handled")]
    public async Task EdgeDuringHandlingIsTakenAfterwards()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(GuestCommand.InterruptsOn)
            .Add(Arm64Command.HaltUntilTaken(s_spi)).Add(GuestCommand.InterruptsOff));
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_spi);
        (await vm.Gic.ReadDistributorAsync(Gicd.Ispendr + 4)).Should().Be(1u << 9);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LeaveAndReturn).Add(Arm64Command.Deactivate(s_spi)));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/active/deactivated-among-many")]
    public async Task ActiveInterruptIsDeactivatedHoweverManyArePending()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi, priority: 0xe0);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.HaltUntilTaken(s_spi, quiet: true)));
        // More than there are list registers, of higher priority.
        Spi[] others = [.. Enumerable.Range(64, 20).Select(n => new Spi((uint)n))];
        foreach (Spi other in others)
        {
            await vm.Gic.EnableAsync(other, priority: 0x40);
            await vm.PulseAsync(other);
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LeaveAndReturn).Add(Arm64Command.Deactivate(s_spi))
            .Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 4)));
        results[2].Value.Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo([s_spi, .. others.Select(o => (IntId)o)]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/active/stays-active-among-many")]
    public async Task InterruptsStayActiveHoweverManyAre(bool splitEoi)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        // More than there are list registers.
        await vm.Gic.WriteDistributorAsync(Gicd.Isactiver + 8, uint.MaxValue);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: splitEoi)).Add(Arm64Command.LeaveAndReturn).Add(Arm64Command.LeaveAndReturn));
        (await vm.Gic.ReadDistributorAsync(Gicd.Isactiver + 8)).Should().Be(uint.MaxValue);

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreDistributor(Gicd.Icactiver + 8, 0x8000_0001)).Add(Arm64Command.LeaveAndReturn)
            .Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 8)));
        results[2].Value.Should().Be(0x7fff_fffe);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/active/written-is-active")]
    public async Task GuestDeactivatesWhatWasMadeActive(bool byGuest)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        if (!byGuest)
        {
            await vm.Gic.WriteDistributorAsync(Gicd.Isactiver + 4, 1u << 9);
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true))
            .Add(Arm64Command.StoreDistributor(Gicd.Isactiver + 4, byGuest ? 1u << 9 : 0))
            .Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 4))
            .Add(Arm64Command.Deactivate(s_spi))
            .Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 4)));
        results[2].Value.Should().Be(1u << 9);
        results[4].Value.Should().Be(0);
    }

    [Fact]
    [Clause("arm-gicd/active/of-a-running-vcpu")]
    public async Task ClearedActiveBitOfARunningVcpuStaysCleared()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi, vcpuId: 1);
        await vm.PulseAsync(s_spi);
        // The second vCPU holds it active and runs on, without an exit, until the first is through.
        ulong flag = vm.Vcpus[1].Area + GuestProtocol.ControlCounters;
        await vm.Vcpus[1].StartAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.HaltUntilTaken(s_spi, quiet: true))
            .Add(GuestCommand.Notify).Add(GuestCommand.SpinUntil(new GuestCondition(flag, Comparison.AtLeast, 1))));
        await vm.Vcpus[1].WaitForNotifyAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 4))
            .Add(Arm64Command.StoreDistributor(Gicd.Icactiver + 4, 1u << 9)).Add(GuestCommand.Store(flag, 1)));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_spi);
        results[0].Value.Should().Be(1u << 9);
        (await vm.Gic.ReadDistributorAsync(Gicd.Isactiver + 4)).Should().Be(0);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-gicd/active/deactivated-by-another-vcpu")]
    public async Task ActiveInterruptIsDeactivatedByAnotherVcpu(bool running)
    {
        kernel.RequireChange("arm-dir-of-any-vcpu");
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        ulong flag = vm.Vcpus[0].Area + GuestProtocol.ControlCounters;
        await vm.Vcpus[0].StartAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.HaltUntilTaken(s_spi, quiet: true))
            .Add(running ? GuestCommand.Notify : GuestCommand.Ask()).Add(GuestCommand.SpinUntil(new GuestCondition(flag, Comparison.AtLeast, 1))));
        if (running)
        {
            await vm.Vcpus[0].WaitForNotifyAsync();
        }
        else
        {
            await vm.Vcpus[0].NextExitAsync();
        }

        await vm.Vcpus[1].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.Deactivate(s_spi)).Add(GuestCommand.Store(flag, 1)));
        if (!running)
        {
            await vm.Vcpus[0].ResumeAsync();
        }

        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_spi);
        (await vm.Gic.ReadDistributorAsync(Gicd.Isactiver + 4)).Should().Be(0);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/irouter/affinity")]
    public async Task SpiGoesToTheVcpuOfItsAffinity()
    {
        // The third is the second of the next affinity.
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 3, VcpuIds = [0, 1, kernel.Has("arm-vcpu-by-id") ? 17u : 2u] });
        await vm.Gic.EnableAsync(s_spi);
        foreach (Vcpu target in vm.Vcpus.Reverse())
        {
            await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.StoreDistributor(Gicd.Irouter + (41 * 8), Vgic.Affinity(target.Id), AccessWidth.Qword)));
            await vm.PulseAsync(s_spi);
            foreach (Vcpu vcpu in vm.Vcpus)
            {
                (await vcpu.TakePendingAsync()).Should().Equal(vcpu == target ? [s_spi] : Array.Empty<IntId>(), $"{vcpu}, routed to {target}");
            }
        }
    }

    [Fact]
    [Clause("arm-gicd/irouter/affinity")]
    public async Task SpiGoesToTheFirstVcpuUntilItIsRouted()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Isenabler, s_spi), Gicd.Mask(s_spi));
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/active/stays-with-its-vcpu")]
    public async Task ActiveInterruptIsDeactivatedByTheVcpuThatTookItThoughItsRouteMoved()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(splitEoi: true)).Add(Arm64Command.HaltUntilTaken(s_spi, quiet: true)));
        await vm.Gic.RouteAsync(s_spi, 1);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LeaveAndReturn).Add(Arm64Command.Deactivate(s_spi))
            .Add(Arm64Command.LoadDistributor(Gicd.Isactiver + 4)));
        results[2].Value.Should().Be(0);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal([s_spi], "the next goes where the route is");
    }

    [Fact]
    [Clause("arm-gicd/irouter/bits")]
    public async Task RouterKeepsThreeLevelsOfAffinity()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        uint router = Gicd.Irouter + (41 * 8);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreDistributor(router, 0xffff_ffff_ff12_3456, AccessWidth.Qword))
            .Add(Arm64Command.LoadDistributor(router, AccessWidth.Qword))
            .Add(Arm64Command.StoreDistributor(router + 4, 0xff))
            .Add(Arm64Command.LoadDistributor(router))
            .Add(Arm64Command.LoadDistributor(router + 4))
            .Add(Arm64Command.LoadDistributor(router + 8, AccessWidth.Qword)));
        new[] { results[1].Value, results[3].Value, results[4].Value, results[5].Value }.Should().Equal(0x12_3456ul, 0x12_3456ul, 0ul, 0ul);
    }

    [Fact]
    [Clause("arm-gicd/irouter/nobody")]
    public async Task SpiForNobodyWaits()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi);
        await vm.Gic.WriteDistributorAsync(Gicd.Irouter + (41 * 8), 7);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.Vcpus[1].TakePendingAsync()).Should().BeEmpty();
        await vm.Gic.RouteAsync(s_spi, 1);
        await vm.Gic.WriteDistributorAsync(Gicd.Bit(Gicd.Isenabler, s_spi), Gicd.Mask(s_spi));
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    [Clause("arm-gicd/irouter/pending-moves")]
    public async Task PendingSpiMovesWithItsRoute(int from, int to)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi, vcpuId: (uint)from);
        await vm.PulseAsync(s_spi);
        await vm.Gic.RouteAsync(s_spi, (uint)to);
        // Queued for the first, it goes over when that comes out of the guest, and wakes the other.
        await vm.Vcpus[to].HaltUntilTakenAsync(s_spi);
        (await vm.Vcpus[from].TakePendingAsync(Arm64Command.LeaveAndReturn)).Should().BeEmpty();
        await vm.Vcpus[to].FinishAsync();
        (await vm.Vcpus[to].TakenAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-gicd/group/fiq")]
    public async Task GroupZeroComesAsFiq()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.Gic.WriteDistributorAsync(Gicd.Igroupr + 4, ~(1u << 9));
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic(group0: true)).Add(GuestCommand.InterruptsOn)
            .Add(Arm64Command.HaltUntilTaken(s_spi, quiet: true)).Add(GuestCommand.InterruptsOff));
        (await vm.Vcpus[0].ReadLogAsync()).Select(r => (r.Kind, r.IntId)).Should().Equal((LogRecordKind.Fiq, (IntId)s_spi));
    }

    [Theory]
    [InlineData(AccessWidth.Byte)]
    [InlineData(AccessWidth.Word)]
    [InlineData(AccessWidth.Qword)]
    [Clause("arm-gicd/access-width")]
    public async Task OtherWidthsReadZeroAndWriteNothing(AccessWidth width)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.LoadDistributor(Gicd.Igroupr + 8, width))
            .Add(Arm64Command.StoreDistributor(Gicd.Isenabler + 8, ulong.MaxValue, width))
            .Add(Arm64Command.LoadDistributor(Gicd.Isenabler + 8)));
        results[0].Value.Should().Be(0);
        results[2].Value.Should().Be(0);
    }

    /// <summary>Writes each and reads it back at once.</summary>
    private static async Task<ulong[]> AccessAsync(Vm vm, bool byGuest, params (uint Offset, uint Value)[] writes)
    {
        if (byGuest)
        {
            var script = new GuestScript();
            foreach ((uint offset, uint value) in writes)
            {
                script.Add(Arm64Command.StoreDistributor(offset, value)).Add(Arm64Command.LoadDistributor(offset));
            }

            return [.. (await vm.Vcpus[0].ExecuteAsync(script)).Where(r => r.Index % 2 == 1).Select(r => r.Value)];
        }

        var seen = new List<ulong>();
        foreach ((uint offset, uint value) in writes)
        {
            await vm.Gic.WriteDistributorAsync(offset, value);
            seen.Add(await vm.Gic.ReadDistributorAsync(offset));
        }

        return [.. seen];
    }
}

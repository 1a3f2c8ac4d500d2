// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>The per-vCPU timer, as an attribute and by hypercalls.</summary>
public sealed class TimerTests(KernelUnderTest kernel)
{
    private const uint Port = 66;
    private const ulong Millisecond = 1_000_000;
    private const ulong Hour = 3600 * 1000 * Millisecond;
    private const ulong EndOfMemory = GuestLayout.Memory;

    // KVM tells the time to user space and to its timers by two clocks that are a few microseconds apart.
    private const ulong Slack = Millisecond;

    private static ulong Invalid(XenDomain domain) => domain.Layout.Abi == XenAbi.Bits64 ? unchecked((ulong)-22L) : unchecked((uint)-22);

    private static ulong Fault(XenDomain domain) => domain.Layout.Abi == XenAbi.Bits64 ? unchecked((ulong)-14L) : unchecked((uint)-14);

    private static async Task<ulong> NowAsync(XenDomain domain) => (await domain.Vm.GetClockAsync()).Clock;

    private static async Task ArmAsync(XenDomain domain, uint port, ulong expires, int vcpu = 0) =>
        XenDomain.Expect(await domain.Xen.TrySetTimerAsync(domain.Vcpus[vcpu], new XenTimer(port, XenHvm.TwoLevel, expires)), "TIMER");

    private static Task<XenTimer> TimerAsync(XenDomain domain, int vcpu = 0) => domain.Xen.GetTimerAsync(domain.Vcpus[vcpu]);

    private Task<XenDomain> CreateAsync(XenAbi abi = XenAbi.Bits64, int vcpus = 1) =>
        XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Vcpus = vcpus });

    private static GuestCommand SetTimerOp(XenDomain domain, ulong expires) => domain.Layout.Abi == XenAbi.Bits64
        ? domain.Hypercall(XenHypercall.SetTimerOp, expires, 0xffffffff)
        : domain.Hypercall(XenHypercall.SetTimerOp, (uint)expires, expires >> 32);

    private static GuestCommand Singleshot(XenDomain domain, ulong vcpu = 0, ulong argument = XenDomain.ArgumentsGpa) =>
        domain.Hypercall(XenHypercall.VcpuOp, XenHypercall.VcpuSetSingleshotTimer, vcpu, argument);

    private static GuestCommand StopSingleshot(XenDomain domain, ulong vcpu = 0) =>
        domain.Hypercall(XenHypercall.VcpuOp, XenHypercall.VcpuStopSingleshotTimer, vcpu, 0);

    private static Task WriteSingleshotAsync(XenDomain domain, ulong expires, ulong at = XenDomain.ArgumentsGpa) =>
        domain.WriteAsync(at, (uint)expires, (uint)(expires >> 32), 0);

    private static async Task<ulong> RunAsync(XenDomain domain, GuestCommand command) => (await domain.Vcpu.ExecuteAsync(domain.Script().Add(command)))[^1].Value;

    // Firing

    [Theory]
    [InlineData(XenAbi.Bits64, VcpuState.NotYetRun, UpcallPath.DomainVector)]
    [InlineData(XenAbi.Bits32, VcpuState.NotYetRun, UpcallPath.DomainVector)]
    [InlineData(XenAbi.Bits64, VcpuState.NotYetRun, UpcallPath.VcpuVector)]
    [Clause("kvm-xen/timer/fires")]
    public async Task TimerWakesTheHaltedVcpuOnceAndNotEarly(XenAbi abi, VcpuState state, UpcallPath upcall)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Upcall = upcall });
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        ulong expires = await NowAsync(domain) + (50 * Millisecond);
        await ArmAsync(domain, Port, expires);

        IReadOnlyList<string> log = await domain.ObserveAsync(state, () => Task.CompletedTask);

        log.Should().Equal(domain.Delivered(Port));
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, 0), "it is no longer armed");

        // When the guest took it, by its own clock: by the time that anybody else looks an early timer is late.
        ulong taken = (await domain.Vcpu.ReadLogAsync())[0].Timestamp;
        PvclockTime clock = (await domain.VcpuInfo.ReadAsync()).Time;
        (clock.IsExact ? clock.At(taken) : await NowAsync(domain)).Should().BeGreaterThan(expires - Slack);
    }

    [Fact]
    [Clause("kvm-xen/timer/fires")]
    public async Task TimerInterruptsTheRunningVcpu()
    {
        XenDomain domain = await CreateAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await ArmAsync(domain, Port, await NowAsync(domain) + (50 * Millisecond));

        (await domain.ObserveAsync(VcpuState.Running, () => Task.CompletedTask)).Should().Equal(domain.Delivered(Port));
    }

    [Fact]
    [Clause("kvm-xen/timer/per-vcpu")]
    public async Task EachVcpusTimerInterruptsThatVcpu()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 3, VcpuIds = [0, 2, 1] });
        for (int vcpu = 0; vcpu < 3; vcpu++)
        {
            await ArmAsync(domain, 70 + (uint)vcpu, await NowAsync(domain) + (20 * Millisecond), vcpu);
            await domain.HaltAsync(vcpu);
        }

        for (int vcpu = 0; vcpu < 3; vcpu++)
        {
            await domain.Vcpus[vcpu].WaitForNotifyAsync();
            (await domain.FenceAsync(vcpu)).Should().Equal(domain.Delivered(70 + (uint)vcpu));
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/past")]
    public async Task TimerInThePastFiresAtOnce(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);

        await ArmAsync(domain, Port, 1);

        (await domain.SharedInfo.PendingAsync()).Should().Equal([Port], "the call itself delivered");
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, 0));
        (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(domain.Delivered(Port));
    }

    [Fact]
    [Clause("kvm-xen/timer/past")]
    public async Task TimerIsMeasuredByKvmclockBeforeTheVcpuRan()
    {
        XenDomain domain = await CreateAsync();
        await domain.Vm.SetClockAsync(Hour);

        await ArmAsync(domain, Port, Hour - Millisecond);

        (await domain.SharedInfo.PendingAsync()).Should().Equal([Port], "the time has passed on the VM's clock");
    }

    [Fact]
    [Clause("kvm-xen/timer/fires")]
    public async Task MaskedTimerSetsPendingWithoutUpcall()
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.MaskAsync(Port);

        await ArmAsync(domain, Port, 1);

        (await domain.SharedInfo.PendingAsync()).Should().Equal(Port);
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);
        (await TimerAsync(domain)).ExpiresNs.Should().Be(0);
    }

    // Reading back

    [Fact]
    [Clause("kvm-xen/timer/reads-back")]
    public async Task ArmedTimerReadsBackAndGoesOn()
    {
        XenDomain domain = await CreateAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        ulong expires = await NowAsync(domain) + Hour;
        await ArmAsync(domain, 9, expires);
        (await TimerAsync(domain)).Should().Be(new XenTimer(9, XenHvm.TwoLevel, expires));
        (await TimerAsync(domain)).Should().Be(new XenTimer(9, XenHvm.TwoLevel, expires));

        await ArmAsync(domain, Port, await NowAsync(domain) + (50 * Millisecond));
        await TimerAsync(domain);

        (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(domain.Delivered(Port));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/read-delivers")]
    [FixedBy("7a36d680658b", "KVM: x86/xen: fix recursive deadlock in timer injection")]
    public async Task ReadingATimerThatCouldNotDeliverDelivers(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await domain.MakeTranslationsStaleAsync();
        await ArmAsync(domain, Port, 1);
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty("the translation is stale, and the timer may not wait for a new one");

        XenTimer timer = await TimerAsync(domain);

        timer.Should().Be(new XenTimer(Port, XenHvm.TwoLevel, 0));
        (await domain.SharedInfo.PendingAsync()).Should().Equal(Port);

        // Delivered means forgotten: clearing the port and running the vCPU does not bring it back.
        await domain.SharedInfo.SetPendingAsync(Port, false);
        await domain.VcpuInfo.ClearAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.ReadApic(0x20)));
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [Clause("kvm-xen/timer/stale-translation")]
    public async Task TimerThatCouldNotDeliverDeliversOnceTheVcpuRuns(int vcpu)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2, VcpuIds = [3, 5] });
        await domain.MakeTranslationsStaleAsync();
        await ArmAsync(domain, Port, 1, vcpu);

        (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask, vcpu)).Should().Equal(domain.Delivered(Port));
        (await TimerAsync(domain, vcpu)).ExpiresNs.Should().Be(0);
        (await domain.VcpuInfos[1 - vcpu].ReadAsync()).UpcallPending.Should().Be(0, "it is the other one's timer");
    }

    [Theory]
    [InlineData(XenAbi.Bits64, VcpuState.Halted)]
    [InlineData(XenAbi.Bits64, VcpuState.Running)]
    [InlineData(XenAbi.Bits32, VcpuState.Halted)]
    [Clause("kvm-xen/timer/stale-translation")]
    public async Task TimerThatFiresAfterAMemslotChangeInterruptsOnce(XenAbi abi, VcpuState state)
    {
        XenDomain domain = await CreateAsync(abi);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        // The time has to be enough for the vCPU to sleep and the slots to change before it fires, on however slow a machine.
        for (ulong ahead = 100 * Millisecond; ; ahead *= 2)
        {
            ulong expires = await NowAsync(domain) + ahead;
            await ArmAsync(domain, Port, expires);
            await (state == VcpuState.Halted ? domain.HaltAsync() : domain.SpinAsync());
            await domain.MakeTranslationsStaleAsync();
            if (await NowAsync(domain) < expires - Slack)
            {
                break;
            }

            await domain.Vcpu.WaitForNotifyAsync();
            await domain.FenceAsync();
        }

        await domain.Vcpu.WaitForNotifyAsync();
        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
        (await TimerAsync(domain)).ExpiresNs.Should().Be(0);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/stale-translation")]
    public async Task TimerThatCouldNotDeliverDeliversBeforeTheVcpusNextInstruction(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await domain.MakeTranslationsStaleAsync();
        await ArmAsync(domain, Port, 1);
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty("the translation is stale, and the timer may not wait for a new one");

        ulong seen = await RunAsync(domain, GuestCommand.Load(domain.SharedInfoGpa + (ulong)domain.Layout.PendingOffset + (Port / 8), AccessWidth.Byte));

        seen.Should().Be(1u << (int)(Port % 8), "the guest does not run past it");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-xen/timer/stop")]
    [Clause("kvm-xen/timer/rearm")]
    public async Task TimerThatCouldNotDeliverIsForgottenWhenItIsSetAnew(bool armed)
    {
        XenDomain domain = await CreateAsync();
        await domain.MakeTranslationsStaleAsync();
        await ArmAsync(domain, Port, 1);
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty("the translation is stale, and the timer may not wait for a new one");
        ulong expires = armed ? await NowAsync(domain) + Hour : 0;

        await ArmAsync(domain, Port, expires);

        (await domain.ObserveNothingAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(XenDomain.NothingDelivered);
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, expires));
    }

    // Hypercalls

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/set-timer-op")]
    public async Task SetTimerOpArmsAndStops(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await ArmAsync(domain, Port, 0);

        // Both halves of the time matter: the upper one is the second argument of a 32-bit guest.
        await domain.Vm.SetClockAsync(0x2_1000_0000);
        ulong expires = 0x3_2000_0000 + Hour;
        (await RunAsync(domain, SetTimerOp(domain, expires))).Should().Be(0);
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, expires));

        (await RunAsync(domain, SetTimerOp(domain, 0))).Should().Be(0);
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, 0), "0 stops it");
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/set-timer-op")]
    public async Task SetTimerOpInThePastInterruptsAtOnce(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await ArmAsync(domain, Port, 0);
        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(SetTimerOp(domain, 1)).Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/singleshot")]
    public async Task SingleshotTimerArmsAndStops(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await ArmAsync(domain, Port, 0);
        await domain.Vm.SetClockAsync(0x2_1000_0000);
        ulong expires = 0x3_2000_0000 + Hour;
        await WriteSingleshotAsync(domain, expires);

        (await RunAsync(domain, Singleshot(domain))).Should().Be(0);
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, expires));

        (await RunAsync(domain, StopSingleshot(domain))).Should().Be(0);
        (await TimerAsync(domain)).Should().Be(new XenTimer(Port, XenHvm.TwoLevel, 0));
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("kvm-xen/timer/singleshot")]
    public async Task SingleshotTimerFires()
    {
        XenDomain domain = await CreateAsync();
        await ArmAsync(domain, Port, 0);
        await WriteSingleshotAsync(domain, await NowAsync(domain) + (30 * Millisecond));
        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(Singleshot(domain)).Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitForNotifyAsync();

        (await domain.FenceAsync()).Should().Equal(domain.Delivered(Port));
    }

    [Fact]
    [Clause("kvm-xen/timer/needs-vcpu-id")]
    public async Task SingleshotTimerNeedsAXenVcpuId()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { WithoutXenVcpuIds = true });
        await ArmAsync(domain, Port, 0);
        await WriteSingleshotAsync(domain, await NowAsync(domain) + Hour);
        uint id = (await domain.Xen.GetAsync(domain.Vcpu, KvmXenConst.KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID)).vcpu_id;

        if (id == uint.MaxValue)
        {
            await domain.CallToUserSpaceAsync(0, XenHypercall.VcpuOp, XenHypercall.VcpuSetSingleshotTimer, 0, XenDomain.ArgumentsGpa);
            await domain.CallToUserSpaceAsync(0, XenHypercall.VcpuOp, XenHypercall.VcpuStopSingleshotTimer, 0, 0);
            (await TimerAsync(domain)).ExpiresNs.Should().Be(0);
        }
        else
        {
            (await RunAsync(domain, StopSingleshot(domain, id))).Should().Be(0, $"its id is {id}");
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/own-vcpu")]
    public async Task SingleshotTimerOfAnotherVcpuIsRefused(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        XenDomain.Expect(await domain.Xen.TrySetVcpuIdAsync(domain.Vcpu, 9), "VCPU_ID");
        ulong expires = await NowAsync(domain) + Hour;
        await ArmAsync(domain, Port, expires);
        await WriteSingleshotAsync(domain, expires + Hour);

        foreach (ulong other in new ulong[] { 0, 8, 10, 0xffffffff })
        {
            (await RunAsync(domain, Singleshot(domain, other))).Should().Be(Invalid(domain), $"vCPU {other} is not the one that asks");
            (await RunAsync(domain, StopSingleshot(domain, other))).Should().Be(Invalid(domain), $"vCPU {other} is not the one that asks");
        }

        (await TimerAsync(domain)).ExpiresNs.Should().Be(expires, "a refusal changes nothing");
        (await RunAsync(domain, Singleshot(domain, 9))).Should().Be(0);
        (await TimerAsync(domain)).ExpiresNs.Should().Be(expires + Hour);
        (await RunAsync(domain, StopSingleshot(domain, 9))).Should().Be(0);
        (await TimerAsync(domain)).ExpiresNs.Should().Be(0);
    }

    [Theory]
    [InlineData(XenAbi.Bits64, 16)]
    [InlineData(XenAbi.Bits32, 12)]
    [Clause("kvm-xen/timer/singleshot-argument")]
    public async Task SingleshotArgumentHasTheSizeOfTheGuestsWidth(XenAbi abi, int size)
    {
        XenDomain domain = await CreateAsync(abi);
        ulong expires = await NowAsync(domain) + Hour;
        await ArmAsync(domain, Port, expires);
        ulong fits = EndOfMemory - (ulong)size;
        await WriteSingleshotAsync(domain, expires + Hour, fits);
        await WriteSingleshotAsync(domain, expires + Hour, EndOfMemory - 12);

        (await RunAsync(domain, Singleshot(domain, argument: fits + 4))).Should().Be(Fault(domain), "four bytes are beyond the end of memory");
        (await RunAsync(domain, Singleshot(domain, argument: 0x7ffff000))).Should().Be(Fault(domain), "it is not in memory");
        (await TimerAsync(domain)).ExpiresNs.Should().Be(expires, "a refusal changes nothing");

        await WriteSingleshotAsync(domain, expires + (2 * Hour), fits);
        (await RunAsync(domain, Singleshot(domain, argument: fits))).Should().Be(0, $"all {size} bytes are in memory");
        (await TimerAsync(domain)).ExpiresNs.Should().Be(expires + (2 * Hour));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/timer/needs-port")]
    public async Task WithoutAPortTimerHypercallsGoToUserSpace(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await WriteSingleshotAsync(domain, Hour);

        await domain.CallToUserSpaceAsync(0, XenHypercall.SetTimerOp, 1);
        await domain.CallToUserSpaceAsync(0, XenHypercall.VcpuOp, XenHypercall.VcpuSetSingleshotTimer, 0, XenDomain.ArgumentsGpa);
        await domain.CallToUserSpaceAsync(0, XenHypercall.VcpuOp, XenHypercall.VcpuStopSingleshotTimer, 0, 0);

        await ArmAsync(domain, Port, 0);
        (await RunAsync(domain, StopSingleshot(domain))).Should().Be(0);
        await ArmAsync(domain, 0, 0);
        await domain.CallToUserSpaceAsync(0, XenHypercall.SetTimerOp, 1);
    }

    // The overflow workaround

    public static TheoryData<XenAbi, ulong, bool> FarTimes { get; } = new()
    {
        { XenAbi.Bits64, 1UL << 63, true },
        { XenAbi.Bits64, ulong.MaxValue, true },
        { XenAbi.Bits64, (1UL << 50) + (1UL << 42), true },
        { XenAbi.Bits64, 1UL << 62, true },
        { XenAbi.Bits64, (1UL << 50) - (1UL << 20), false },
        { XenAbi.Bits64, 1UL << 49, false },
        { XenAbi.Bits32, 1UL << 63, true },
        { XenAbi.Bits32, (1UL << 50) + (1UL << 42), true },
        { XenAbi.Bits32, (1UL << 50) - (1UL << 20), false },
    };

    [Theory]
    [MemberData(nameof(FarTimes))]
    [Clause("kvm-xen/timer/overflow")]
    public async Task SetTimerOpFarAheadMeansATenthOfASecond(XenAbi abi, ulong expires, bool replaced)
    {
        XenDomain domain = await CreateAsync(abi);
        await ArmAsync(domain, Port, 0);
        ulong before = await NowAsync(domain);

        // The guest looks at once, and says when: from outside, on a slow machine, a tenth of a second is soon over.
        ScriptResults results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(SetTimerOp(domain, expires), out int call)
            .Add(GuestCommand.Load(domain.SharedInfoGpa + (ulong)domain.Layout.PendingOffset + (Port / 8), AccessWidth.Byte), out int pending));

        results[call].Value.Should().Be(0);
        PvclockTime clock = (await domain.VcpuInfo.ReadAsync()).Time;
        ulong looked = clock.IsExact ? clock.At(results[pending].Timestamp) : await NowAsync(domain);
        if (results[pending].Value != 0)
        {
            looked.Should().BeGreaterThan(before + (100 * Millisecond) - Slack, "it has fired already");
        }

        ulong seen = (await TimerAsync(domain)).ExpiresNs;
        ulong after = await NowAsync(domain);
        if (!replaced)
        {
            seen.Should().Be(expires);
        }
        else if (seen != 0)
        {
            // Zero: so much time went by that it has fired.
            seen.Should().BeInRange(before + (100 * Millisecond) - Slack, after + (100 * Millisecond) + Slack);
        }
        else
        {
            after.Should().BeGreaterThan(before + (100 * Millisecond) - Slack);
        }
    }

    [Fact]
    [Clause("kvm-xen/timer/overflow")]
    public async Task FarTimesOfOtherKindsStand()
    {
        XenDomain domain = await CreateAsync();
        await ArmAsync(domain, Port, 1UL << 62);
        (await TimerAsync(domain)).ExpiresNs.Should().Be(1UL << 62);

        await WriteSingleshotAsync(domain, 1UL << 61);
        (await RunAsync(domain, Singleshot(domain))).Should().Be(0);
        (await TimerAsync(domain)).ExpiresNs.Should().Be(1UL << 61);

        // Times are compared by their difference from now: for them the last one is long past.
        await WriteSingleshotAsync(domain, ulong.MaxValue);
        (await RunAsync(domain, Singleshot(domain))).Should().Be(0);
        (await TimerAsync(domain)).ExpiresNs.Should().Be(0);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(Port);
    }

    // Changing and stopping

    [Fact]
    [Clause("kvm-xen/timer/rearm")]
    [FixedBy("af735db31285", "KVM: x86/xen: Initialize Xen timer only once")]
    public async Task RearmedTimerFiresOnceAtItsNewTime()
    {
        XenDomain domain = await CreateAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await ArmAsync(domain, Port, await NowAsync(domain) + Hour);
        ulong expires = await NowAsync(domain) + (40 * Millisecond);
        await ArmAsync(domain, Port, expires);

        IReadOnlyList<string> log = await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask);

        (await NowAsync(domain)).Should().BeGreaterThan(expires - Slack);
        log.Should().Equal(domain.Delivered(Port));
    }

    [Fact]
    [Clause("kvm-xen/timer/rearm")]
    public async Task TimerCanBeArmedAgainAfterItFired()
    {
        XenDomain domain = await CreateAsync();
        for (int round = 0; round < 3; round++)
        {
            await ArmAsync(domain, Port, 1);
            (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(domain.Delivered(Port));
        }
    }

    [Fact]
    [Clause("kvm-xen/timer/port-change")]
    [FixedBy("c03689913635", "KVM: x86/xen: Stop Xen timer before changing IRQ")]
    public async Task TimerSetToAnotherPortRaisesThatOneOnly()
    {
        XenDomain domain = await CreateAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await ArmAsync(domain, Port, await NowAsync(domain) + (60 * Millisecond));
        await ArmAsync(domain, 130, await NowAsync(domain) + (80 * Millisecond));

        (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(domain.Delivered(130));
        (await TimerAsync(domain)).Should().Be(new XenTimer(130, XenHvm.TwoLevel, 0));
    }

    [Fact]
    [Clause("kvm-xen/timer/stop")]
    [Clause("kvm-xen/timer/rearm")]
    public async Task StoppedAndPostponedTimersDoNotFire()
    {
        const int Ways = 7;
        XenDomain domain = await CreateAsync(vcpus: Ways + 1);
        for (int vcpu = 0; vcpu < Ways; vcpu++)
        {
            await ArmAsync(domain, 0, 0, vcpu);
            await domain.Vcpus[vcpu].ExecuteAsync(domain.Script(vcpu).Add(GuestCommand.Nop));
        }

        // The time has to be enough to stop them all before one fires, on however slow a machine.
        ulong expires = 0;
        for (ulong ahead = 200 * Millisecond; ; ahead *= 2)
        {
            expires = await NowAsync(domain) + ahead;
            for (int vcpu = 0; vcpu < Ways; vcpu++)
            {
                await ArmAsync(domain, 70 + (uint)vcpu, expires, vcpu);
            }

            await ArmAsync(domain, 0, 0, 0);
            await ArmAsync(domain, 71, 0, 1);
            await ArmAsync(domain, 72, expires + Hour, 2);
            await domain.Vcpus[3].ExecuteAsync(domain.Script(3).Add(SetTimerOp(domain, 0)));
            await domain.Vcpus[4].ExecuteAsync(domain.Script(4).Add(SetTimerOp(domain, expires + Hour)));
            await domain.Vcpus[5].ExecuteAsync(domain.Script(5).Add(StopSingleshot(domain, 5)));
            await domain.Vcpus[6].ExecuteAsync(domain.Script(6).Add(SetTimerOp(domain, 1)));
            (await domain.SharedInfo.PendingAsync()).Should().Contain(76u, "that time is past");
            await domain.SharedInfo.SetPendingAsync(76, false);
            if (await NowAsync(domain) < expires - (10 * Millisecond))
            {
                break;
            }

            await domain.SharedInfo.FillAsync(0);
        }

        // Timers fire in the order of their expiry: when a later one has fired, these would have.
        await ArmAsync(domain, Port, expires + (20 * Millisecond), Ways);
        (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask, Ways)).Should().Equal(domain.Delivered(Port));
        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
        (await TimerAsync(domain, 0)).Should().Be(new XenTimer(0, XenHvm.TwoLevel, 0));
        (await TimerAsync(domain, 1)).Should().Be(new XenTimer(71, XenHvm.TwoLevel, 0));
        (await TimerAsync(domain, 2)).Should().Be(new XenTimer(72, XenHvm.TwoLevel, expires + Hour));
        (await TimerAsync(domain, 4)).Should().Be(new XenTimer(74, XenHvm.TwoLevel, expires + Hour));
    }

    [Fact]
    [Clause("kvm-xen/timer/closed-while-armed")]
    public async Task VmsCloseWhileTheirTimersRun()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        for (int round = 0; round < 6; round++)
        {
            await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
            await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
            for (uint id = 0; id < 2; id++)
            {
                Vcpu vcpu = await vm.CreateVcpuAsync(id);
                ulong now = (await vm.GetClockAsync()).Clock;
                XenDomain.Expect(await vm.Xen.TrySetTimerAsync(vcpu, new XenTimer(Port, XenHvm.TwoLevel, now + ((20 + id) * Millisecond))), "TIMER");
            }
        }

        // A timer that outlived its vCPU breaks the kernel when it fires, within what this takes.
        XenDomain domain = await CreateAsync();
        await ArmAsync(domain, Port, await NowAsync(domain) + (50 * Millisecond));
        (await domain.ObserveAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(domain.Delivered(Port));
    }
}

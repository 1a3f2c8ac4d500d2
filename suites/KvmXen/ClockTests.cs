// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>shared_info's wall clock and the vCPUs' pvclocks.</summary>
public sealed class ClockTests(KernelUnderTest kernel)
{
    private const decimal Second = 1_000_000_000m;

    private async Task<XenDomain> CreateAsync(XenAbi abi, bool byHva = false)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Abi = abi, ByHva = byHva });
        await domain.Xen.SetLongModeAsync(abi == XenAbi.Bits64);
        return domain;
    }

    private static byte[] Poison { get; } = [.. Enumerable.Range(0, XenSharedInfo.Size).Select(i => (byte)((i * 7) ^ 0x5a))];

    private static byte[] Without(byte[] page, XenLayout layout)
    {
        byte[] rest = (byte[])page.Clone();
        rest.AsSpan(layout.WallClock, 12).Clear();
        rest.AsSpan(layout.WallClockSecondsHigh, 4).Clear();
        return rest;
    }

    [Theory]
    [InlineData(XenAbi.Bits64, false)]
    [InlineData(XenAbi.Bits64, true)]
    [InlineData(XenAbi.Bits32, false)]
    [InlineData(XenAbi.Bits32, true)]
    [Clause("kvm-xen/clock/wall-clock")]
    [Clause("kvm-xen/clock/wall-clock-exact")]
    public async Task SettingSharedInfoWritesTheWallClockAndNothingElse(XenAbi abi, bool byHva)
    {
        XenDomain domain = await CreateAsync(abi, byHva);
        await domain.SharedInfo.WriteAsync(Poison);
        KvmClock clock = await domain.Vm.GetClockAsync();
        ulong realtime = await RealtimeAsync(domain.Vm.Session);

        await domain.SetSharedInfoAsync();

        XenSharedInfoPage page = await domain.SharedInfo.ReadAsync();
        Without(page.Bytes, domain.Layout).Should().Equal(Without(Poison, domain.Layout));
        XenWallClock wall = page.WallClock;
        wall.TotalNanoseconds.Should().BeInRange(realtime - (decimal)clock.Clock - Second, realtime - (decimal)clock.Clock + Second);
        wall.Nanoseconds.Should().BeLessThan(1_000_000_000);
        wall.Nanoseconds.Should().NotBe(BitConverter.ToUInt32(Poison, domain.Layout.WallClock + 8));
    }

    [Theory]
    [InlineData(0u, 2u)]
    [InlineData(1u, 4u)]
    [InlineData(2u, 4u)]
    [InlineData(5u, 8u)]
    [InlineData(6u, 8u)]
    [InlineData(0xfffffffeu, 0u)]
    [Clause("kvm-xen/clock/wall-clock-version")]
    public async Task VersionBecomesTheNextEvenNumber(uint old, uint next)
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);
        byte[] page = new byte[XenSharedInfo.Size];
        BinaryPrimitives.WriteUInt32LittleEndian(page.AsSpan(domain.Layout.WallClock), old);
        await domain.SharedInfo.WriteAsync(page);

        await domain.SetSharedInfoAsync();

        (await domain.SharedInfo.ReadAsync()).WallClock.Version.Should().Be(next);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/clock/wall-clock")]
    public async Task LongModeMovesTheWallClockOfASetSharedInfo(XenAbi to)
    {
        XenDomain domain = await CreateAsync(to == XenAbi.Bits64 ? XenAbi.Bits32 : XenAbi.Bits64);
        await domain.SetSharedInfoAsync();
        await domain.SharedInfo.WriteAsync(Poison);
        XenLayout layout = XenLayout.Of(to);

        await domain.Xen.SetLongModeAsync(to == XenAbi.Bits64);

        var page = new XenSharedInfoPage((await domain.SharedInfo.ReadAsync()).Bytes, layout);
        Without(page.Bytes, layout).Should().Equal(Without(Poison, layout));
        page.WallClock.Version.Should().NotBe(BitConverter.ToUInt32(Poison, layout.WallClock));
        page.WallClock.Seconds.Should().BeGreaterThan(1_600_000_000);
    }

    [Fact]
    [Clause("kvm-xen/clock/wall-clock")]
    public async Task LongModeWithoutSharedInfoWritesNothing()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits32);
        await domain.SetSharedInfoAsync();
        XenDomain.Expect(await domain.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN), "SHARED_INFO off");
        await domain.SharedInfo.WriteAsync(Poison);

        await domain.Xen.SetLongModeAsync(true);

        (await domain.SharedInfo.ReadAsync()).Bytes.Should().Equal(Poison);
    }

    [Fact]
    [Clause("kvm-xen/clock/wall-clock")]
    public async Task LongModeWithoutMemoryBehindSharedInfoFails()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true });
        await domain.SetSharedInfoAsync();
        await domain.RemoveSharedInfoSlotAsync();

        (await domain.Xen.TrySetLongModeAsync(1)).Should().Be(Errno.EFAULT);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/clock/wall-clock")]
    public async Task LongModeAfterAMemslotChangeWritesTheWallClock(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await domain.SetSharedInfoAsync();
        await domain.SharedInfo.FillAsync(0);
        await domain.MakeTranslationsStaleAsync();

        await domain.Xen.SetLongModeAsync(abi == XenAbi.Bits64);

        (await domain.SharedInfo.ReadAsync()).WallClock.Version.Should().Be(2);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/clock/wall-clock-high")]
    public async Task SecondsHaveAllTheirBits(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);

        // A guest clock an hour ahead of real time is zero before 1970: minus 3600 seconds, in 64 bits of nanoseconds.
        ulong realtime = await RealtimeAsync(domain.Vm.Session);
        await domain.Vm.SetClockAsync(realtime + 3_600_000_000_000);

        await domain.SetSharedInfoAsync();

        const ulong Wrapped = ulong.MaxValue / 1_000_000_000;
        (await domain.SharedInfo.ReadAsync()).WallClock.Seconds.Should().BeInRange(Wrapped - 3610, Wrapped - 3590);
    }

    // pvclocks

    private static async Task<PvclockTime> TimeInfoAsync(XenDomain domain, int vcpu = 0) =>
        PvclockTime.Parse(await domain.Vm.ReadMemoryAsync(XenDomain.TimeInfoGpa(vcpu), PvclockTime.Size));

    private static async Task SetTimeInfoAsync(XenDomain domain, int vcpu = 0) =>
        XenDomain.Expect(await domain.Xen.TrySetTimeInfoAsync(domain.Vcpus[vcpu], XenDomain.TimeInfoGpa(vcpu)), "VCPU_TIME_INFO");

    [Theory]
    [InlineData(XenAbi.Bits64, false)]
    [InlineData(XenAbi.Bits64, true)]
    [InlineData(XenAbi.Bits32, false)]
    [Clause("kvm-xen/clock/pvclock")]
    public async Task BothPvclocksTellKvmclocksTime(XenAbi abi, bool byHva)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, ByHva = byHva, Upcall = UpcallPath.None });
        byte[] info = Poison[..XenVcpuInfo.Size];
        await domain.VcpuInfo.WriteAsync(info);
        await domain.Vm.WriteMemoryAsync(XenDomain.TimeInfoGpa(0) - 32, Poison.AsMemory(0, 96));
        await SetTimeInfoAsync(domain);
        ulong before = (await domain.Vm.GetClockAsync()).Clock;

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Timestamp));

        ulong after = (await domain.Vm.GetClockAsync()).Clock;
        XenVcpuInfoState state = await domain.VcpuInfo.ReadAsync();
        PvclockTime inTimeInfo = await TimeInfoAsync(domain);
        foreach (PvclockTime time in new[] { state.Time, inTimeInfo })
        {
            (time.Version % 2).Should().Be(0, "nobody is writing it");
            time.Multiplier.Should().NotBe(0);
            ((decimal)(time.IsExact ? time.At(results[^1].Value) : time.SystemTime)).Should().BeInRange(before - (Second / 100), after + (Second / 100));
        }

        (state.Time.Multiplier, state.Time.Shift).Should().Be((inTimeInfo.Multiplier, inTimeInfo.Shift));
        state.Bytes[..XenVcpuInfo.TimeOffset].Should().Equal(info[..XenVcpuInfo.TimeOffset], "the clock is behind what else there is");
        (await domain.Vm.ReadMemoryAsync(XenDomain.TimeInfoGpa(0) - 32, 32)).Should().Equal(Poison[..32]);
        (await domain.Vm.ReadMemoryAsync(XenDomain.TimeInfoGpa(0) + 32, 32)).Should().Equal(Poison[64..96]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-xen/clock/pvclock-requested")]
    public async Task SettingVcpuInfoLaterHasItsClockFilled(bool byHva)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { ByHva = byHva, WithoutVcpuInfo = true });
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await domain.SetVcpuInfoAsync(0);

        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        (await domain.VcpuInfo.ReadAsync()).Time.Version.Should().NotBe(0);
    }

    [Fact]
    [Clause("kvm-xen/clock/pvclock-requested")]
    public async Task SettingTimeInfoLaterHasItFilled()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await SetTimeInfoAsync(domain);

        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        (await TimeInfoAsync(domain)).Version.Should().NotBe(0);
    }

    [Fact]
    [Clause("kvm-xen/clock/shared-info-renews")]
    public async Task SettingSharedInfoRenewsThePvclocksOfOldKernels()
    {
        // A vCPU that moves to another processor has its time written anew as well.
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vm.Session.StayOnProcessorAsync(await domain.Vm.Session.FirstProcessorAsync());
        await SetTimeInfoAsync(domain);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        PvclockTime before = await TimeInfoAsync(domain);

        await domain.SetSharedInfoAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        PvclockTime after = await TimeInfoAsync(domain);
        if (kernel.Has("xen-shared-info-leaves-pvclocks"))
        {
            // Others may still have it written anew, so that its version says nothing.
            (after.Version % 2, after.Multiplier, after.Shift).Should().Be((0, before.Multiplier, before.Shift));
        }
        else
        {
            after.Version.Should().NotBe(before.Version);
        }
    }

    [Fact]
    [Clause("kvm-xen/clock/pvclock")]
    public async Task DisabledPvclockIsNotWritten()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await SetTimeInfoAsync(domain);
        XenDomain.Expect(await domain.Xen.TrySetTimeInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA), "VCPU_TIME_INFO off");
        XenDomain.Expect(await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA), "VCPU_INFO off");

        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        (await TimeInfoAsync(domain)).Should().Be(default(PvclockTime));
        (await domain.VcpuInfo.ReadAsync()).Bytes.Should().OnlyContain(b => b == 0);
    }

    [Fact]
    [Clause("kvm-xen/clock/tsc-unstable")]
    public async Task TscUnstableClearsTheStableFlag()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE);
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with
        {
            Flags = XenDomainOptions.Default.Flags | KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE,
        });
        await SetTimeInfoAsync(domain);

        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        ((await domain.VcpuInfo.ReadAsync()).Time.Flags & PvclockTime.TscStable).Should().Be(0);
        ((await TimeInfoAsync(domain)).Flags & PvclockTime.TscStable).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/clock/tsc-unstable")]
    public async Task TscUnstableTakesEffectOnAVcpuThatHasRun()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE);
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        bool stable = ((await domain.VcpuInfo.ReadAsync()).Time.Flags & PvclockTime.TscStable) != 0;
        Skipping.UnlessHardware(stable, "a stable TSC", "PVCLOCK_TSC_STABLE_BIT is clear without PVCLOCK_TSC_UNSTABLE, too");

        await domain.Xen.ConfigureAsync(XenDomainOptions.Default.Flags | KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        ((await domain.VcpuInfo.ReadAsync()).Time.Flags & PvclockTime.TscStable).Should().Be(0);

        await domain.Xen.ConfigureAsync(XenDomainOptions.Default.Flags);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        ((await domain.VcpuInfo.ReadAsync()).Time.Flags & PvclockTime.TscStable).Should().Be(PvclockTime.TscStable);
    }

    [Theory]
    [InlineData(0x40000000u)]
    [InlineData(0x40000100u)]
    [Clause("kvm-xen/clock/cpuid")]
    [FixedBy("a2b00f85d783", "KVM: x86: Update Xen TSC leaves during CPUID emulation")]
    public async Task XenLeavesTellTheClocksParameters(uint first)
    {
        const uint HasIndex = 1, Stale = 0x5a5a5a5a;
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        kernel.RequireChange("xen-cpuid-tsc");

        // The fourth leaf is the last one there is; what user space gave for its registers is overwritten, and nothing else.
        await domain.SetHypervisorCpuidAsync("with Xen",
            new kvm_cpuid_entry2 { function = first, eax = first + 3, ebx = 0x566e6558, ecx = 0x65584d4d, edx = 0x4d4d566e },
            new kvm_cpuid_entry2 { function = first + 1, eax = 0x00040011, ebx = Stale, ecx = Stale, edx = Stale },
            new kvm_cpuid_entry2 { function = first + 3, index = 0, flags = HasIndex, eax = Stale, ebx = Stale, ecx = Stale, edx = Stale },
            new kvm_cpuid_entry2 { function = first + 3, index = 1, flags = HasIndex, eax = Stale, ebx = Stale, ecx = Stale, edx = Stale },
            new kvm_cpuid_entry2 { function = first + 3, index = 2, flags = HasIndex, eax = Stale, ebx = Stale, ecx = Stale, edx = Stale });

        ScriptResults results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.Cpuid(first + 3, 0), out int flags)
            .Add(GuestCommand.Cpuid(first + 3, 1), out int scale)
            .Add(GuestCommand.Cpuid(first + 3, 2), out int frequency));

        PvclockTime time = (await domain.VcpuInfo.ReadAsync()).Time;
        results[flags].Cpuid.Should().Be((Stale, Stale, Stale, Stale));
        if (kernel.Has("xen-cpuid-left-alone"))
        {
            results[scale].Cpuid.Should().Be((Stale, Stale, Stale, Stale), "user space tells it");
            results[frequency].Cpuid.Should().Be((Stale, Stale, Stale, Stale), "user space tells it");
            return;
        }

        results[scale].Cpuid.Should().Be((Stale, Stale, time.Multiplier, unchecked((uint)time.Shift)), "it is how vcpu_info's clock scales the TSC");

        // A second has so many TSC ticks that the clock's own parameters make 10^9 ns of them.
        (uint kilohertz, uint ebx, uint ecx, uint edx) = results[frequency].Cpuid;
        (ebx, ecx, edx).Should().Be((Stale, Stale, Stale));
        decimal scaled = time.Shift < 0 ? kilohertz * 1000m / (1L << -time.Shift) : kilohertz * 1000m * (1L << time.Shift);
        (scaled * time.Multiplier / (1L << 32)).Should().BeInRange(0.999m * Second, 1.001m * Second);
    }

    private static async Task<ulong> RealtimeAsync(KernelSession session)
    {
        Wire.CallResult call = await session.Agent.CallAsync(new Wire.SystemCall(session.Numbers.ClockGettime, "clock_gettime(CLOCK_REALTIME)").Arg(0).Out(16));
        return (BinaryPrimitives.ReadUInt64LittleEndian(call.Buffers[0]) * 1_000_000_000) + BinaryPrimitives.ReadUInt64LittleEndian(call.Buffers[0].AsSpan(8));
    }
}

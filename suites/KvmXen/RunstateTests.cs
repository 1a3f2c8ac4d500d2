// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>What a vCPU did with its time: RUNSTATE_CURRENT, _DATA, _ADJUST, and the copy in guest memory.</summary>
public sealed class RunstateTests(KernelUnderTest kernel)
{
    private const ushort Current = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT;
    private const ushort Data = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA;
    private const ushort Adjust = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST;
    private const ulong NoState = ulong.MaxValue;
    private const ulong Page = 0x52000;

    // A second of guest clock, so that there is a past to put times into.
    private const ulong Clock = 1_000_000_000;

    private static readonly XenRunstate Sample = Sum(XenRunstate.BlockedState, 0x1111, 0x222222, 0x3333, 0x44444);

    private static XenRunstate Sum(ulong state, ulong running, ulong runnable, ulong blocked, ulong offline) =>
        new(state, running + runnable + blocked + offline, running, runnable, blocked, offline);

    /// <summary>Without a hypercall MSR the kernel itself accounts nothing: only what a test does changes anything.</summary>
    private async Task<XenDomain> CreateQuietAsync(XenAbi abi = XenAbi.Bits64)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE | KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Abi = abi, VcpuInfoApart = true });
        await domain.Xen.SetLongModeAsync(abi == XenAbi.Bits64);
        await domain.Vm.SetClockAsync(Clock);
        return domain;
    }

    /// <summary>The thread that makes this domain's calls shares its processor with a vCPU that never leaves it.</summary>
    private async Task<XenDomain> CreateBesideARivalAsync()
    {
        XenDomain domain = await CreateQuietAsync();
        XenDomain rival = await XenDomain.CreateAsync(kernel);
        int processor = await domain.Vm.Session.FirstProcessorAsync();
        await rival.Vm.Session.StayOnProcessorAsync(processor);
        await domain.Vm.Session.StayOnProcessorAsync(processor);
        await rival.SpinAsync();
        return domain;
    }

    private async Task<XenDomain> CreateAccountingAsync()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE | KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG);
        return await XenDomain.CreateAsync(kernel);
    }

    private static Task<Errno> TrySetAsync(XenDomain domain, ushort type, XenRunstate runstate) =>
        domain.Xen.TrySetRunstateAsync(domain.Vcpu, type, runstate);

    private static async Task SetAsync(XenDomain domain, ushort type, XenRunstate runstate) =>
        XenDomain.Expect(await TrySetAsync(domain, type, runstate), $"runstate type {type}");

    private static Task<XenRunstate> GetAsync(XenDomain domain) => domain.Xen.GetRunstateAsync(domain.Vcpu);

    private static async Task PlaceAsync(XenDomain domain, ulong gpa) =>
        XenDomain.Expect(await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, gpa), $"RUNSTATE_ADDR 0x{gpa:x}");

    private static async Task<XenRunstate> CopyAsync(XenDomain domain, ulong gpa) =>
        XenRunstateArea.Parse(await domain.Vm.ReadMemoryAsync(gpa, domain.Layout.RunstateSize), domain.Layout);

    // DATA

    [Theory]
    [InlineData(XenRunstate.RunningState)]
    [InlineData(XenRunstate.RunnableState)]
    [InlineData(XenRunstate.BlockedState)]
    [InlineData(XenRunstate.OfflineState)]
    [Clause("kvm-xen/runstate/data")]
    public async Task DataReadsBackAsItWasSet(ulong state)
    {
        XenDomain domain = await CreateQuietAsync();
        XenRunstate wanted = Sample with { State = state };

        await SetAsync(domain, Data, wanted);

        (await GetAsync(domain)).Should().Be(wanted);
        (await domain.Xen.GetAsync(domain.Vcpu, Current)).runstate_state.Should().Be(state);
    }

    [Fact]
    [Clause("kvm-xen/runstate/data-refused")]
    public async Task ImpossibleDataIsRefused()
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        ulong future = (await domain.Vm.GetClockAsync()).Clock + 3_600_000_000_000;
        (string Why, XenRunstate Runstate)[] impossible =
        [
            ("the state is 4", Sample with { State = 4 }),
            ("the state is -1", Sample with { State = NoState }),
            ("the state is 1 << 32", Sample with { State = 1UL << 32 }),
            ("the entry time is one more than the sum", Sample with { EntryTime = Sample.EntryTime + 1 }),
            ("the entry time is one less than the sum", Sample with { EntryTime = Sample.EntryTime - 1 }),
            ("running is not in the sum", Sample with { EntryTime = Sample.EntryTime - Sample.Running }),
            ("runnable is not in the sum", Sample with { EntryTime = Sample.EntryTime - Sample.Runnable }),
            ("blocked is not in the sum", Sample with { EntryTime = Sample.EntryTime - Sample.Blocked }),
            ("offline is not in the sum", Sample with { EntryTime = Sample.EntryTime - Sample.Offline }),
            ("the entry time is in the future", Sum(1, future, 0, 0, 0)),
        ];

        foreach ((string why, XenRunstate runstate) in impossible)
        {
            (await TrySetAsync(domain, Data, runstate)).Should().Be(Errno.EINVAL, why);
        }

        (await GetAsync(domain)).Should().Be(Sample, "a refusal changes nothing");
        ulong past = (await domain.Vm.GetClockAsync()).Clock;
        (await TrySetAsync(domain, Data, Sum(1, 0, 0, past, 0))).Should().Be(Errno.None, "the entry time is just past");
    }

    // ADJUST

    [Fact]
    [Clause("kvm-xen/runstate/adjust")]
    public async Task AdjustmentAddsToEachTime()
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);

        await SetAsync(domain, Adjust, Sum(NoState, 0x10, 0x200, 0x3000, 0x5a));
        (await GetAsync(domain)).Should().Be(Sum(Sample.State, 0x1121, 0x222422, 0x6333, 0x4449e));

        // Deltas may be negative.
        await SetAsync(domain, Adjust, Sum(NoState, unchecked(0UL - 0x10), unchecked(0UL - 0x200), unchecked(0UL - 0x3000), unchecked(0UL - 0x5a)));
        (await GetAsync(domain)).Should().Be(Sample);
    }

    [Theory]
    [InlineData(XenRunstate.RunningState)]
    [InlineData(XenRunstate.RunnableState)]
    [InlineData(XenRunstate.BlockedState)]
    [InlineData(XenRunstate.OfflineState)]
    [Clause("kvm-xen/runstate/adjust")]
    public async Task AdjustmentWithAStateEntersIt(ulong state)
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        ulong before = (await domain.Vm.GetClockAsync()).Clock;

        await SetAsync(domain, Adjust, Sum(state, 0x10, 0x200, 0x3000, 0x5a));

        XenRunstate after = await GetAsync(domain);
        after.State.Should().Be(state);
        after.EntryTime.Should().BeInRange(before, (await domain.Vm.GetClockAsync()).Clock);
        after.Should().Be(Sum(state, 0x1121, 0x222422, after.EntryTime - 0x1121 - 0x222422 - 0x4449e, 0x4449e), "it was blocked until now");
    }

    [Fact]
    [Clause("kvm-xen/runstate/adjust-refused")]
    public async Task ImpossibleAdjustmentIsRefused()
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        XenRunstate delta = Sum(NoState, 0x10, 0x200, 0x3000, 0x5a);
        ulong future = (await domain.Vm.GetClockAsync()).Clock + 3_600_000_000_000;
        (string Why, XenRunstate Runstate)[] impossible =
        [
            ("the state is 4", delta with { State = 4 }),
            ("the state is -2", delta with { State = NoState - 1 }),
            ("the state is 0xffffffff", delta with { State = uint.MaxValue }),
            ("the sum is one more", delta with { EntryTime = delta.EntryTime + 1 }),
            ("the sum is one less", delta with { EntryTime = delta.EntryTime - 1 }),
            ("running is not in the sum", delta with { EntryTime = delta.EntryTime - delta.Running }),
            ("runnable is not in the sum", delta with { EntryTime = delta.EntryTime - delta.Runnable }),
            ("blocked is not in the sum", delta with { EntryTime = delta.EntryTime - delta.Blocked }),
            ("offline is not in the sum", delta with { EntryTime = delta.EntryTime - delta.Offline }),
            ("the result is in the future", Sum(NoState, future, 0, 0, 0)),
            ("the result is in the future with the entry time it has", Sum(NoState, future - Sample.EntryTime, 0, 0, 0)),
        ];

        foreach ((string why, XenRunstate runstate) in impossible)
        {
            (await TrySetAsync(domain, Adjust, runstate)).Should().Be(Errno.EINVAL, why);
        }

        (await GetAsync(domain)).Should().Be(Sample, "a refusal changes nothing");
    }

    [Fact]
    [Clause("kvm-xen/runstate/adjust-refused")]
    public async Task AdjustmentUpToNowIsAcceptedAndBeyondItNot()
    {
        XenDomain domain = await CreateQuietAsync();
        XenRunstate start = Sum(XenRunstate.BlockedState, 0, 0, Clock / 2, 0);
        await SetAsync(domain, Data, start);
        ulong now = (await domain.Vm.GetClockAsync()).Clock;

        (await TrySetAsync(domain, Adjust, Sum(NoState, 0, now - start.EntryTime, 0, 0))).Should().Be(Errno.None);
        (await TrySetAsync(domain, Adjust, Sum(NoState, 0, Clock * 60, 0, 0))).Should().Be(Errno.EINVAL);
        (await GetAsync(domain)).EntryTime.Should().Be(now);
    }

    // CURRENT

    [Theory]
    [InlineData(XenRunstate.RunnableState, XenRunstate.BlockedState)]
    [InlineData(XenRunstate.BlockedState, XenRunstate.OfflineState)]
    [InlineData(XenRunstate.OfflineState, XenRunstate.RunnableState)]
    [InlineData(XenRunstate.BlockedState, XenRunstate.RunningState)]
    [Clause("kvm-xen/runstate/current")]
    public async Task TimeGoesToTheStateThatEnds(ulong from, ulong to)
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample with { State = from });
        ulong before = (await domain.Vm.GetClockAsync()).Clock;

        await SetAsync(domain, Current, new XenRunstate { State = to });

        ulong after = (await domain.Vm.GetClockAsync()).Clock;
        XenRunstate seen = await GetAsync(domain);
        seen.State.Should().Be(to);
        seen.EntryTime.Should().BeInRange(before, after);
        ulong spent = seen.EntryTime - Sample.EntryTime;
        seen.Should().Be(new XenRunstate(to, seen.EntryTime, Sample.Running,
            Sample.Runnable + (from == XenRunstate.RunnableState ? spent : 0),
            Sample.Blocked + (from == XenRunstate.BlockedState ? spent : 0),
            Sample.Offline + (from == XenRunstate.OfflineState ? spent : 0)));
    }

    [Fact]
    [Clause("kvm-xen/runstate/current")]
    [Clause("kvm-xen/runstate/steal")]
    public async Task TimeAsRunningIsSplitWithWaiting()
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample with { State = XenRunstate.RunningState });

        await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.BlockedState });

        XenRunstate seen = await GetAsync(domain);
        seen.Sum.Should().Be(seen.EntryTime);
        (seen.Blocked, seen.Offline).Should().Be((Sample.Blocked, Sample.Offline));
        seen.Runnable.Should().BeGreaterThanOrEqualTo(Sample.Runnable);
        seen.Running.Should().BeGreaterThan(Sample.Running, "most of the time since it was not spent waiting for a processor");
    }

    [Fact]
    [Clause("kvm-xen/runstate/steal")]
    public async Task WaitingIsCountedOnceAndOnlySinceTheDataWasSet()
    {
        XenDomain domain = await CreateBesideARivalAsync();
        ulong before = await WaitedAsync(domain);
        await SetAsync(domain, Data, Sample with { State = XenRunstate.RunningState });
        await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.BlockedState });
        (await GetAsync(domain)).Runnable.Should().BeLessThanOrEqualTo(Sample.Runnable + (await WaitedAsync(domain) - before), "more than the thread waited meanwhile cannot be stolen");

        for (int round = 0; round < 20; round++)
        {
            await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.RunningState });
            await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.BlockedState });
        }

        (await GetAsync(domain)).Runnable.Should().BeLessThanOrEqualTo(Sample.Runnable + (await WaitedAsync(domain) - before), "more than the thread waited meanwhile cannot be stolen");
    }

    [Fact]
    [Clause("kvm-xen/runstate/steal")]
    public async Task WaitingWhileRunningIsRunnableTime()
    {
        XenDomain domain = await CreateBesideARivalAsync();
        await SetAsync(domain, Data, Sample with { State = XenRunstate.RunningState });
        ulong before = await WaitedAsync(domain);
        ulong waited = 0;
        for (int call = 0; call < 100 && waited == 0; call++)
        {
            waited = await WaitedAsync(domain) - before;
        }

        waited.Should().BePositive("a hundred calls beside a vCPU that never leaves its processor had to wait");
        await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.BlockedState });

        (await GetAsync(domain)).Runnable.Should().BeGreaterThanOrEqualTo(Sample.Runnable + waited);
    }

    /// <summary>How long the thread that makes a test's calls has waited for a processor, in nanoseconds.</summary>
    private static async Task<ulong> WaitedAsync(XenDomain domain)
    {
        string text = await domain.Vm.Session.ReadFileAsync("/proc/thread-self/schedstat") ?? throw new InvalidOperationException("The kernel has no schedstat.");
        return ulong.Parse(text.Split(' ')[1], CultureInfo.InvariantCulture);
    }

    [Theory]
    [InlineData(4UL)]
    [InlineData(5UL)]
    [InlineData(1UL << 32)]
    [InlineData(NoState)]
    [Clause("kvm-xen/runstate/current")]
    public async Task UnknownStateIsRefused(ulong state)
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);

        (await TrySetAsync(domain, Current, new XenRunstate { State = state })).Should().Be(Errno.EINVAL);

        (await GetAsync(domain)).Should().Be(Sample, "a refusal changes nothing");
    }

    [Fact]
    [Clause("kvm-xen/runstate/first-state")]
    public async Task VcpuWasOfflineBeforeItsFirstState()
    {
        XenDomain domain = await CreateQuietAsync();
        ulong before = (await domain.Vm.GetClockAsync()).Clock;

        await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.RunningState });

        XenRunstate seen = await GetAsync(domain);
        seen.EntryTime.Should().BeInRange(before, (await domain.Vm.GetClockAsync()).Clock);
        seen.Should().Be(Sum(XenRunstate.RunningState, 0, 0, 0, seen.EntryTime));
    }

    // The copy in guest memory

    [Theory]
    [InlineData(XenAbi.Bits64, false)]
    [InlineData(XenAbi.Bits64, true)]
    [InlineData(XenAbi.Bits32, false)]
    [InlineData(XenAbi.Bits32, true)]
    [Clause("kvm-xen/runstate/guest-copy")]
    [Clause("kvm-xen/runstate/any-offset")]
    [Clause("kvm-xen/runstate/update-flag")]
    [FixedBy("5ec3289b31ab", "KVM: x86/xen: Compatibility fixes for shared runstate area")]
    public async Task CopyIsExactAtEveryOffsetAcrossAPage(XenAbi abi, bool updateFlag)
    {
        XenDomain domain = await CreateQuietAsync(abi);
        XenDomain.Expect(await domain.Xen.TrySetRunstateUpdateFlagAsync(updateFlag ? (byte)1 : (byte)0), "RUNSTATE_UPDATE_FLAG");

        // Every byte of every field is its own, the state's included; and the top byte of each time is not zero where it may be.
        await domain.Vm.SetClockAsync(0x0fff_ffff_ffff_ffff);
        XenRunstate sample = Sum(XenRunstate.OfflineState, 0x0102030405060708, 0x0203141526374859, 0x00112233445566ff, 0x0321436587a9cbed);
        await SetAsync(domain, Data, sample);
        byte[] encoded = XenRunstateArea.Encode(sample, domain.Layout);
        const int Around = 0x80;

        for (int offset = 0x1000 - encoded.Length - 2; offset <= 0x1000; offset++)
        {
            await domain.Vm.Memory.FillAsync(Page + 0x1000 - Around, 2 * Around, 0xa5);

            await PlaceAsync(domain, Page + (ulong)offset);

            byte[] seen = await domain.Vm.ReadMemoryAsync(Page + 0x1000 - Around, 2 * Around);
            byte[] wanted = [.. Enumerable.Repeat((byte)0xa5, 2 * Around)];
            int at = offset - 0x1000 + Around;
            encoded.CopyTo(wanted, at);
            if (abi == XenAbi.Bits64)
            {
                // The padding after the state is nobody's; it must only not show what the kernel had on its stack.
                seen[(at + 4)..(at + 8)].Should().Match(p => p.All(b => b == 0xa5) || p.All(b => b == 0), $"it is padding, and the offset is 0x{offset:x}");
                seen.AsSpan(at + 4, 4).CopyTo(wanted.AsSpan(at + 4));
            }

            seen.Should().Equal(wanted, $"the offset is 0x{offset:x}");
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64, 0x600UL)]
    [InlineData(XenAbi.Bits64, 0xff0UL)]
    [InlineData(XenAbi.Bits64, 0xff3UL)]
    [InlineData(XenAbi.Bits32, 0x601UL)]
    [InlineData(XenAbi.Bits32, 0xff1UL)]
    [InlineData(XenAbi.Bits32, 0xff6UL)]
    [Clause("kvm-xen/runstate/update-flag")]
    public async Task UpdateBitIsWrittenByItselfWithTheFlagAlone(XenAbi abi, ulong offset)
    {
        XenDomain domain = await CreateQuietAsync(abi);
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page + offset);
        ulong bit = Page + offset + (ulong)domain.Layout.RunstateEntryTime + sizeof(ulong) - 1;

        int[] writes = new int[3];
        for (int round = 0; round < writes.Length; round++)
        {
            XenDomain.Expect(await domain.Xen.TrySetRunstateUpdateFlagAsync((byte)(round % 2)), "RUNSTATE_UPDATE_FLAG");
            await using WriteCounter counter = await WriteCounter.CreateAsync(domain.Vm.Memory, bit, "kvm");
            await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.RunnableState });
            writes[round] = await counter.CountAsync();
        }

        // How KVM copies the entry time, and whether a compiler makes one store of two, is not looked at: the flag adds a write or two.
        writes[1].Should().BeGreaterThan(writes[0]);
        writes[2].Should().Be(writes[0]);
    }

    [Theory]
    [InlineData(XenAbi.Bits64, 0x600UL)]
    [InlineData(XenAbi.Bits64, 0xff0UL)]
    [InlineData(XenAbi.Bits32, 0x601UL)]
    [InlineData(XenAbi.Bits32, 0xff1UL)]
    [Clause("kvm-xen/runstate/guest-copy")]
    public async Task EveryChangeIsCopied(XenAbi abi, ulong offset)
    {
        XenDomain domain = await CreateQuietAsync(abi);
        XenDomain.Expect(await domain.Xen.TrySetRunstateUpdateFlagAsync(1), "RUNSTATE_UPDATE_FLAG");
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page + offset);

        foreach (ulong state in new[] { XenRunstate.OfflineState, XenRunstate.RunnableState, XenRunstate.BlockedState, XenRunstate.RunningState })
        {
            await SetAsync(domain, Current, new XenRunstate { State = state });
            XenRunstate seen = await GetAsync(domain);
            (await CopyAsync(domain, Page + offset)).Should().Be(seen, $"the state is {state}");
            seen.State.Should().Be(state);
        }

        await SetAsync(domain, Data, Sample);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        (await CopyAsync(domain, Page + offset)).Should().Be(await GetAsync(domain), "it was adjusted");
    }

    [Fact]
    [Clause("kvm-xen/runstate/width-change")]
    [FixedBy("5ec3289b31ab", "KVM: x86/xen: Compatibility fixes for shared runstate area")]
    public async Task CopyGrowsIntoTheNextPageWithTheGuestsWidth()
    {
        XenDomain domain = await CreateQuietAsync(XenAbi.Bits32);
        const ulong Gpa = Page + 0x1000 - 0x2c;
        await SetAsync(domain, Data, Sample);
        await domain.Vm.Memory.FillAsync(Page + 0xf00, 0x200, 0xa5);
        await PlaceAsync(domain, Gpa);
        (await domain.Vm.ReadMemoryAsync(Gpa, 0x30)).Should().Equal([.. XenRunstateArea.Encode(Sample, XenLayout.Bits32), 0xa5, 0xa5, 0xa5, 0xa5]);

        await domain.Xen.SetLongModeAsync(true);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        byte[] seen = await domain.Vm.ReadMemoryAsync(Gpa, 0x34);
        XenRunstateArea.Parse(seen, XenLayout.Bits64).Should().Be(await GetAsync(domain));
        seen[0x30..].Should().Equal([0xa5, 0xa5, 0xa5, 0xa5], "nothing lies behind it");

        await domain.Xen.SetLongModeAsync(false);
        await domain.Vm.Memory.FillAsync(Page + 0x1000, 8, 0x5a);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        XenRunstateArea.Parse(await domain.Vm.ReadMemoryAsync(Gpa, 0x2c), XenLayout.Bits32).Should().Be(await GetAsync(domain));
        (await domain.Vm.ReadMemoryAsync(Page + 0x1000, 8)).Should().OnlyContain(b => b == 0x5a, "in this layout the second page is not its");
    }

    [Fact]
    [Clause("kvm-xen/runstate/width-change")]
    public async Task CopyGrowsIntoItsOwnNextPageAndNotAFormerOne()
    {
        const ulong Former = Page + 0x1000 - 0x10;
        const ulong Gpa = Page + 0x4000 - 0x2c;
        XenDomain domain = await CreateQuietAsync(XenAbi.Bits32);
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Former);
        await PlaceAsync(domain, Gpa);
        await domain.Vm.Memory.FillAsync(Page + 0x1000, 0x40, 0xa5);

        await domain.Xen.SetLongModeAsync(true);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));

        XenRunstateArea.Parse(await domain.Vm.ReadMemoryAsync(Gpa, 0x30), XenLayout.Bits64).Should().Be(await GetAsync(domain));
        (await domain.Vm.ReadMemoryAsync(Page + 0x1000, 0x40)).Should().OnlyContain(b => b == 0xa5, "the copy is not there any more");
    }

    [Fact]
    [Clause("kvm-xen/runstate/grown-beyond-memory")]
    public async Task CopyThatGrowsBeyondMemoryWaitsUntilItFitsAgain()
    {
        const ulong Gpa = GuestLayout.Memory - 0x2c;
        XenDomain domain = await CreateQuietAsync(XenAbi.Bits32);
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Gpa);

        await domain.Xen.SetLongModeAsync(true);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        (await CopyAsync(domain, Gpa)).Should().Be(Sample, "a part is not written");

        await domain.Xen.SetLongModeAsync(false);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        (await CopyAsync(domain, Gpa)).Should().Be(await GetAsync(domain)).And.NotBe(Sample);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/runstate/second-page-absent")]
    public async Task CopyWithoutItsSecondPageIsRefusedAndGone(XenAbi abi)
    {
        XenDomain domain = await CreateQuietAsync(abi);
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page);
        byte[] before = await domain.Vm.ReadMemoryAsync(GuestLayout.Memory - 0x40, 0x40);

        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, GuestLayout.Memory - 0x10)).Should().Be(Errno.EFAULT);
        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, GuestLayout.Memory - (ulong)domain.Layout.RunstateSize + 1)).Should().Be(Errno.EFAULT, "its last byte is not in memory");

        (await domain.Vm.ReadMemoryAsync(GuestLayout.Memory - 0x40, 0x40)).Should().Equal(before, "a part is not written");
        (await domain.Xen.TryGetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)).Error.Should().Be(Errno.ENOENT);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        (await CopyAsync(domain, Page)).Should().Be(Sample, "the old copy is no longer written");
        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, GuestLayout.Memory - (ulong)domain.Layout.RunstateSize)).Should().Be(Errno.None, "it just fits");
        (await CopyAsync(domain, GuestLayout.Memory - (ulong)domain.Layout.RunstateSize)).Should().Be(await GetAsync(domain));
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(0xff0UL)]
    [Clause("kvm-xen/runstate/first-page-absent")]
    public async Task CopyWithoutItsFirstPageIsRefusedAndGone(ulong offset)
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page);

        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, GuestLayout.Memory + offset)).Should().Be(Errno.EFAULT);

        (await domain.Xen.TryGetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)).Error.Should().Be(Errno.ENOENT);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        (await CopyAsync(domain, Page)).Should().Be(Sample, "the old copy is no longer written");
    }

    [Fact]
    [Clause("kvm-xen/runstate/disabled")]
    public async Task DisabledCopyIsNotWritten()
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page + 0xff0);
        await PlaceAsync(domain, KVM_XEN_INVALID_GPA);

        await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.OfflineState });
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));

        (await CopyAsync(domain, Page + 0xff0)).Should().Be(Sample);
    }

    [Fact]
    [Clause("kvm-xen/runstate/disabled")]
    public async Task MovedCopyLeavesTheOldPlace()
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page + 0xff0);
        await PlaceAsync(domain, Page + 0x2000);
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));

        (await CopyAsync(domain, Page + 0xff0)).Should().Be(Sample);
        (await CopyAsync(domain, Page + 0x2000)).Should().Be(await GetAsync(domain));
    }

    [Theory]
    [InlineData(0x600UL)]
    [InlineData(0xff0UL)]
    [Clause("kvm-xen/runstate/stale-translation")]
    public async Task CopyIsWrittenAfterAMemslotChange(ulong offset)
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, Page + offset);
        await domain.MakeTranslationsStaleAsync();

        await SetAsync(domain, Current, new XenRunstate { State = XenRunstate.OfflineState });

        (await CopyAsync(domain, Page + offset)).Should().Be(await GetAsync(domain));
    }

    [Theory]
    [InlineData(0x600UL)]
    [InlineData(0xff0UL)]
    [Clause("kvm-xen/runstate/stale-translation")]
    public async Task CopyFollowsItsMemory(ulong offset)
    {
        XenDomain domain = await CreateQuietAsync();
        await SetAsync(domain, Data, Sample);
        await PlaceAsync(domain, XenDomain.VcpuInfoApartGpa + 0x4000 + offset);
        await domain.RemoveVcpuInfoSlotAsync();
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        await domain.Vm.SetMemoryRegionAsync(XenDomain.VcpuInfoSlot, XenDomain.VcpuInfoApartGpa, 0x10000, domain.Vm.Memory.Address + GuestLayout.Scratch);

        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));

        (await CopyAsync(domain, GuestLayout.Scratch + 0x4000 + offset)).Should().Be(await GetAsync(domain));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/runstate/dirty")]
    public async Task WrittenPagesAreReportedDirty(XenAbi abi)
    {
        const int Pages = 16;
        XenDomain domain = await CreateQuietAsync(abi);
        await SetAsync(domain, Data, Sample);
        await domain.Vm.SetMemoryRegionAsync(XenDomain.SpareSlot, XenDomain.SpareGpa, Pages * 0x1000, domain.Vm.Memory.Address + GuestLayout.Scratch,
            KvmConst.KVM_MEM_LOG_DIRTY_PAGES);

        await PlaceAsync(domain, XenDomain.SpareGpa + 0x3ff0);
        (await domain.Vm.GetDirtyLogAsync(XenDomain.SpareSlot, Pages)).Should().Equal(3, 4);
        (await domain.Vm.GetDirtyLogAsync(XenDomain.SpareSlot, Pages)).Should().BeEmpty();
        await SetAsync(domain, Adjust, Sum(NoState, 1, 2, 3, 4));
        (await domain.Vm.GetDirtyLogAsync(XenDomain.SpareSlot, Pages)).Should().Equal(3, 4);
        await PlaceAsync(domain, XenDomain.SpareGpa + 0x6600);
        (await domain.Vm.GetDirtyLogAsync(XenDomain.SpareSlot, Pages)).Should().Equal(6);
    }

    // A vCPU that runs

    [Fact]
    [Clause("kvm-xen/runstate/running")]
    [Clause("kvm-xen/runstate/sum")]
    public async Task GuestSeesItselfRunning()
    {
        XenDomain domain = await CreateAccountingAsync();
        ulong gpa = XenDomain.RunstateGpa(0);
        XenDomain.Expect(await domain.Xen.TrySetRunstateUpdateFlagAsync(1), "RUNSTATE_UPDATE_FLAG");
        await PlaceAsync(domain, gpa);

        foreach (ulong state in new[] { XenRunstate.OfflineState, XenRunstate.BlockedState, XenRunstate.RunnableState })
        {
            await SetAsync(domain, Current, new XenRunstate { State = state });
            XenRunstate before = await GetAsync(domain);
            IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Load(gpa)));

            results[^1].Value.Should().Be(XenRunstate.RunningState, "it runs, so it is running");
            XenRunstate after = await GetAsync(domain);
            after.Sum.Should().Be(after.EntryTime);
            (await CopyAsync(domain, gpa)).Sum.Should().Be((await CopyAsync(domain, gpa)).EntryTime);
            ulong spent = state switch
            {
                XenRunstate.OfflineState => after.Offline - before.Offline,
                XenRunstate.BlockedState => after.Blocked - before.Blocked,
                _ => after.Runnable - before.Runnable,
            };
            spent.Should().BeGreaterThan(0, "it was in that state until it ran");
            after.EntryTime.Should().BeGreaterThan(before.EntryTime);
        }
    }

    [Fact]
    [Clause("kvm-xen/runstate/running")]
    public async Task VcpuThatUserSpaceWorksForIsNotBlocked()
    {
        XenDomain domain = await CreateAccountingAsync();
        XenRunstate before = default;
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        before = await GetAsync(domain);

        // Three exits to user space, which takes its time.
        await domain.CallToUserSpaceAsync(0, 55);
        await domain.CallToUserSpaceAsync(0, 56);

        XenRunstate after = await GetAsync(domain);
        (after.Blocked, after.Offline).Should().Be((before.Blocked, before.Offline));
        after.State.Should().BeOneOf([XenRunstate.RunningState, XenRunstate.RunnableState], "it was running, or its thread was preempted");
    }

    [Fact]
    [Clause("kvm-xen/runstate/steal")]
    public async Task WaitingForAProcessorIsRunnableTime()
    {
        XenDomain domain = await CreateAccountingAsync();
        KernelSession session = domain.Vm.Session;
        await domain.SpinAsync();
        int processor = await session.FirstProcessorAsync();
        await session.StayOnProcessorAsync(processor, domain.Vcpu.ThreadId!.Value);
        XenRunstate before = await StoppedAsync();

        await domain.SpinAsync();
        var program = new AgentProgram("a rival for the processor") { Deadline = TimeSpan.FromMilliseconds(80) };
        program.Thread((uint)processor).Call(session.Numbers.Getpid, []).Loop(0, 0);
        await session.Agent.RunProgramAsync(program);
        XenRunstate after = await StoppedAsync();

        (after.Runnable - before.Runnable).Should().BeGreaterThan(10_000_000, "another thread had the processor about half of 80 ms");
        after.Sum.Should().Be(after.EntryTime);

        async Task<XenRunstate> StoppedAsync()
        {
            await domain.FenceAsync();
            return await GetAsync(domain);
        }
    }
}

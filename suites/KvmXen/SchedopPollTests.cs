// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Diagnostics;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>SCHEDOP_poll: a vCPU that waits in the kernel for one of its ports.</summary>
public sealed class SchedopPollTests(KernelUnderTest kernel)
{
    private const ulong Millisecond = 1_000_000;
    private const ulong PortsGpa = 0x72000;
    private const ulong NoMemory = 0x7ffff000;
    private const ulong LongEnough = 3_600_000_000_000;

    private static ulong Error(XenDomain domain, Errno errno)
    {
        ulong value = unchecked((ulong)-(long)errno);
        return domain.Layout.Abi == XenAbi.Bits64 ? value : (uint)value;
    }

    private static byte[] Argument(XenLayout layout, ulong ports, uint count, ulong timeout)
    {
        byte[] argument = new byte[layout.Abi == XenAbi.Bits64 ? 24 : 16];
        Span<byte> rest = argument;
        if (layout.Abi == XenAbi.Bits64)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(rest, ports);
            BinaryPrimitives.WriteUInt32LittleEndian(rest[12..], 0xdeadbeef);
            BinaryPrimitives.WriteUInt32LittleEndian(rest[8..], count);
            BinaryPrimitives.WriteUInt64LittleEndian(rest[16..], timeout);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(rest, (uint)ports);
            BinaryPrimitives.WriteUInt32LittleEndian(rest[4..], count);
            BinaryPrimitives.WriteUInt64LittleEndian(rest[8..], timeout);
        }

        return argument;
    }

    private static async Task PrepareAsync(XenDomain domain, ulong timeout, params uint[] ports)
    {
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, Argument(domain.Layout, PortsGpa, (uint)ports.Length, timeout));
        await domain.WriteAsync(PortsGpa, ports.Length == 0 ? [0xffffffff] : [.. ports, 0xffffffff]);
    }

    private static GuestCommand Poll(XenDomain domain, ulong argument = XenDomain.ArgumentsGpa) =>
        domain.Hypercall(XenHypercall.SchedOp, XenHypercall.SchedPoll, argument);

    private static Task<ulong> PollAsync(XenDomain domain, ulong argument = XenDomain.ArgumentsGpa) =>
        domain.CallAsync(XenHypercall.SchedOp, XenHypercall.SchedPoll, argument);

    /// <summary>The vCPU is asleep in its poll, which is the script's last command.</summary>
    private static async Task<int> BlockAsync(XenDomain domain, bool interrupts = false)
    {
        GuestScript script = domain.Script();
        if (interrupts)
        {
            script.Add(GuestCommand.InterruptsOn);
        }

        script.Add(GuestCommand.Notify).Add(Poll(domain), out int poll);
        await domain.Vcpu.StartAsync(script);
        await domain.Vcpu.WaitForNotifyAsync();
        await domain.Vcpu.WaitUntilBlockedAsync();
        return poll;
    }

    private static async Task StillBlockedAsync(XenDomain domain, int poll, string because)
    {
        await domain.Vcpu.WaitUntilBlockedAsync();
        (await domain.Vcpu.ReadControlAsync()).Position.Should().Be(poll, because);
    }

    private Task<XenDomain> CreateAsync(XenAbi abi = XenAbi.Bits64, int vcpus = 1) =>
        XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, Vcpus = vcpus });

    // Ready

    public static TheoryData<XenAbi, uint[], uint> ReadySets { get; } = new()
    {
        { XenAbi.Bits64, [66], 66 },
        { XenAbi.Bits64, [4095], 4095 },
        { XenAbi.Bits64, [5, 66, 1000], 5 },
        { XenAbi.Bits64, [5, 66, 1000], 1000 },
        { XenAbi.Bits64, [5, 66], 66 },
        { XenAbi.Bits32, [66], 66 },
        { XenAbi.Bits32, [5, 1023], 1023 },
    };

    [Theory]
    [MemberData(nameof(ReadySets))]
    [Clause("kvm-xen/poll/ready")]
    [Clause("kvm-xen/poll/layout")]
    public async Task PollOfAPendingPortReturnsAtOnce(XenAbi abi, uint[] ports, uint pending)
    {
        XenDomain domain = await CreateAsync(abi);
        await PrepareAsync(domain, 0, ports);
        await domain.SharedInfo.SetPendingAsync(pending);

        // Without a timeout and without an event a poll that does not see the port never returns.
        (await PollAsync(domain)).Should().Be(0);
        (await domain.SharedInfo.PendingAsync()).Should().Equal([pending], "polling does not consume");
    }

    [Fact]
    [Clause("kvm-xen/poll/ready")]
    public async Task PollOfAMaskedPendingPortReturnsAtOnce()
    {
        XenDomain domain = await CreateAsync();
        await PrepareAsync(domain, 0, 66);
        await domain.SharedInfo.MaskAsync(66);
        await domain.Xen.SendAsync(66);

        (await PollAsync(domain)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/poll/ports")]
    public async Task PollTakesUpTo128Ports()
    {
        XenDomain domain = await CreateAsync();
        uint[] ports = [.. Enumerable.Range(100, 130).Select(p => (uint)p)];
        await PrepareAsync(domain, 0, ports);
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, Argument(domain.Layout, PortsGpa, 128, 0));
        await domain.SharedInfo.SetPendingAsync(227);

        (await PollAsync(domain)).Should().Be(0, "the last of 128 ports is pending");

        foreach (uint count in new uint[] { 129, 130, 1 << 16, 0x80000000, uint.MaxValue })
        {
            await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, Argument(domain.Layout, PortsGpa, count, 0));
            (await PollAsync(domain)).Should().Be(Error(domain, Errno.EINVAL), $"{count} ports are polled");
        }
    }

    // Blocking

    [Theory]
    [InlineData(XenAbi.Bits64, 0u)]
    [InlineData(XenAbi.Bits32, 0u)]
    [InlineData(XenAbi.Bits64, 5u)]
    [Clause("kvm-xen/poll/masked-wake")]
    [Clause("kvm-xen/poll/other-masked")]
    [Clause("kvm-xen/poll/runs-on")]
    public async Task OnlyThePolledMaskedPortWakesThePoller(XenAbi abi, uint id)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, VcpuIds = [id] });
        await domain.SharedInfo.MaskAsync(66);
        await domain.SharedInfo.MaskAsync(67);
        await PrepareAsync(domain, 0, 66);
        int poll = await BlockAsync(domain, interrupts: true);

        await domain.Xen.SendAsync(67, id);
        await StillBlockedAsync(domain, poll, "port 67 is not polled");
        await domain.Xen.SendAsync(66, id);

        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
        (await domain.ReadLogAsync()).Should().BeEmpty("masked ports do not interrupt");
        (await domain.Vcpu.GetMpStateAsync()).Should().Be(KvmConst.KVM_MP_STATE_RUNNABLE);
    }

    [Theory]
    [InlineData(66)]
    [InlineData(5)]
    [Clause("kvm-xen/poll/masked-wake")]
    public async Task AnyOfSeveralMaskedPortsWakesThePoller(uint port)
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.MaskAsync(66);
        await domain.SharedInfo.MaskAsync(5);
        await PrepareAsync(domain, 0, 5, 66);
        int poll = await BlockAsync(domain);

        await domain.Xen.SendAsync(port);

        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("kvm-xen/poll/upcall-wake")]
    public async Task UpcallWakesThePoller(bool interrupts)
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.MaskAsync(66);
        await PrepareAsync(domain, 0, 66);
        int poll = await BlockAsync(domain, interrupts);

        await domain.Xen.SendAsync(130);

        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
        (await domain.ReadLogAsync()).Should().Equal(interrupts ? domain.Upcalled(130) : []);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(interrupts ? [] : [130u]);
    }

    [Fact]
    [Clause("kvm-xen/poll/vcpu")]
    public async Task MaskedEventOfAnotherVcpuDoesNotWakeThePoller()
    {
        XenDomain domain = await CreateAsync(vcpus: 2);
        await domain.SharedInfo.MaskAsync(66);
        await PrepareAsync(domain, 0, 66);
        int poll = await BlockAsync(domain);

        await domain.Xen.SendAsync(66, 1);
        await StillBlockedAsync(domain, poll, "the event was vCPU 1's");
        await domain.Xen.SendAsync(130);

        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/poll/ready")]
    public async Task PendingPortThatIsNotPolledDoesNotEndThePoll()
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.SetPendingAsync(65);
        await domain.SharedInfo.SetPendingAsync(67);
        await domain.SharedInfo.MaskAsync(66);
        await PrepareAsync(domain, 0, 66);
        int poll = await BlockAsync(domain);

        await StillBlockedAsync(domain, poll, "port 66 is not pending");
        await domain.Xen.SendAsync(66);

        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
    }

    [Theory]
    [InlineData(XenAbi.Bits64, 0, 40)]
    [InlineData(XenAbi.Bits64, 1, 300)]
    [InlineData(XenAbi.Bits64, 2, 40)]
    [InlineData(XenAbi.Bits32, 1, 40)]
    [Clause("kvm-xen/poll/timeout")]
    [Clause("kvm-xen/poll/runs-on")]
    public async Task PollEndsWithItsTimeout(XenAbi abi, int count, int milliseconds)
    {
        XenDomain domain = await CreateAsync(abi);
        await PrepareAsync(domain, (ulong)milliseconds * Millisecond, [.. new uint[] { 66, 5 }.Take(count)]);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        long started = Stopwatch.GetTimestamp();

        (await PollAsync(domain)).Should().Be(0);

        // The timeout is counted in jiffies: at most two of them, of 4 ms at HZ 250 or 10 ms at HZ 100, too early.
        Stopwatch.GetElapsedTime(started).TotalMilliseconds.Should().BeGreaterThan(milliseconds - 25);
        (await domain.Vcpu.GetMpStateAsync()).Should().Be(KvmConst.KVM_MP_STATE_RUNNABLE);
    }

    [Fact]
    [Clause("kvm-xen/poll/timeout")]
    public async Task PollWithAFarTimeoutIsWokenBeforeIt()
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.MaskAsync(66);
        await PrepareAsync(domain, LongEnough, 66);
        int poll = await BlockAsync(domain);

        await domain.Xen.SendAsync(66);

        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/poll/timeout")]
    public async Task TimeoutOfAPollThatWasWokenDoesNotEndTheNext()
    {
        XenDomain domain = await CreateAsync(vcpus: 2);
        await domain.SharedInfo.MaskAsync(66);

        // The timeout has to be long enough for the second poll to block before it, on however slow a machine.
        ulong timeout = 100 * Millisecond;
        int poll;
        while (true)
        {
            ulong began = (await domain.Vm.GetClockAsync()).Clock;
            await PrepareAsync(domain, timeout, 66);
            await BlockAsync(domain);
            await domain.Xen.SendAsync(66);
            await domain.Vcpu.FinishAsync();
            await domain.SharedInfo.SetPendingAsync(66, false);
            await PrepareAsync(domain, 0, 66);
            poll = await BlockAsync(domain);
            if ((await domain.Vm.GetClockAsync()).Clock < began + timeout)
            {
                break;
            }

            await domain.Xen.SendAsync(66);
            await domain.Vcpu.FinishAsync();
            await domain.SharedInfo.SetPendingAsync(66, false);
            timeout *= 2;
        }

        // Another vCPU's timeout, which began later and is longer: when it has passed, the first poll's would have.
        await PrepareAsync(domain, timeout + (50 * Millisecond), 67);
        await domain.Vcpus[1].ExecuteAsync(domain.Script(1).Add(Poll(domain)));

        await StillBlockedAsync(domain, poll, "the second poll has no timeout");
        await domain.Xen.SendAsync(66);
        (await domain.Vcpu.FinishAsync())[poll].Value.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/poll/masked-wake")]
    public async Task MaskedEventAfterThePollDisturbsNothing()
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.MaskAsync(66);
        await PrepareAsync(domain, 10_000_000, 66);
        (await PollAsync(domain)).Should().Be(0, "it timed out");

        await domain.HaltAsync();
        await domain.Xen.SendAsync(66);

        (await domain.FenceAsync()).Should().Equal(XenDomain.NothingDelivered);
    }

    // What is not a poll

    [Fact]
    [Clause("kvm-xen/poll/needs-evtchn-send")]
    public async Task WithoutEvtchnSendThePollIsAYield()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL });
        await PrepareAsync(domain, 0, 66);

        // A poll would never return; and a yield does not look at its argument.
        (await PollAsync(domain)).Should().Be(0);
        (await PollAsync(domain, NoMemory)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/poll/needs-local-apic")]
    public async Task WithoutALocalApicInTheKernelThePollIsAYield()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Irqchip = Irqchip.None });
        await PrepareAsync(domain, 0, 66);

        ScriptResults results = await domain.Vcpu.ExecuteAsync(new GuestScript().Add(Poll(domain), out int poll).Add(Poll(domain, NoMemory), out int unreadable));

        results[poll].Value.Should().Be(0);
        results[unreadable].Value.Should().Be(0, "a yield does not look at its argument");
    }

    [Fact]
    [Clause("kvm-xen/poll/no-shared-info")]
    public async Task WithoutSharedInfoThePollDoesNotBlock()
    {
        XenDomain domain = await CreateAsync();
        XenDomain.Expect(await domain.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN), "SHARED_INFO off");
        await PrepareAsync(domain, 0, 66);

        (await PollAsync(domain)).Should().Be(0);
    }

    // Wrong arguments

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/poll/port-range")]
    [FixedBy("4ea9439fd537", "KVM: x86/xen: Validate port number in SCHEDOP_poll")]
    public async Task PortOutOfRangeAtAnyPlaceIsRefused(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        uint ports = domain.Layout.Ports;
        foreach (uint[] polled in new uint[][] { [ports], [uint.MaxValue], [ports, 5], [5, ports], [5, 6, ports + 1], [5, 0x80000000, 6] })
        {
            await PrepareAsync(domain, 0, polled);
            (await PollAsync(domain)).Should().Be(Error(domain, Errno.EINVAL), $"ports {string.Join(", ", polled)} are polled");
        }

        await PrepareAsync(domain, 0, ports - 1);
        await domain.SharedInfo.SetPendingAsync(ports - 1);
        (await PollAsync(domain)).Should().Be(0, "it is the last port");
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/poll/bad-pointer")]
    public async Task UnreadableArgumentOrArrayFails(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        ulong fault = Error(domain, Errno.EFAULT);

        (await PollAsync(domain, NoMemory)).Should().Be(fault, "the argument is not in memory");
        foreach (uint count in new uint[] { 1, 2, 128 })
        {
            await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, Argument(domain.Layout, NoMemory, count, 0));
            (await PollAsync(domain)).Should().Be(fault, $"the array of {count} is not in memory");
        }

        // The array's last element is beyond the end of memory.
        await domain.Vm.WriteMemoryAsync(GuestLayout.Memory - 8, new byte[8]);
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, Argument(domain.Layout, GuestLayout.Memory - 8, 3, 0));
        (await PollAsync(domain)).Should().Be(fault, "the third port is not in memory");

        // Nothing is left of a failed poll.
        await domain.SharedInfo.SetPendingAsync(66);
        await PrepareAsync(domain, 0, 66);
        (await PollAsync(domain)).Should().Be(0);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/poll/bad-pointer")]
    [Clause("kvm-xen/poll/layout")]
    public async Task ArgumentMayEndWhereMemoryEndsAndNotBeyond(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await domain.SharedInfo.SetPendingAsync(66);
        await domain.WriteAsync(PortsGpa, 66);
        byte[] argument = Argument(domain.Layout, PortsGpa, 1, 0);
        ulong last = GuestLayout.Memory - (ulong)argument.Length;

        await domain.Vm.WriteMemoryAsync(last, argument);
        (await PollAsync(domain, last)).Should().Be(0, $"all {argument.Length} bytes are in memory");

        (await PollAsync(domain, last + 4)).Should().Be(Error(domain, Errno.EFAULT), "the last four bytes are not in memory");
    }

    [Fact]
    [Clause("kvm-xen/hypercall/crosses-a-page")]
    [FixedBy("92c58965e965", "KVM: x86/xen: Use kvm_read_guest_virt() instead of open-coding it badly")]
    public async Task ArgumentAndArrayMayCrossPagesMappedApart()
    {
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.SetPendingAsync(66);

        // The virtual page 0x71000 shows the frame 0x75000; the argument crosses into it, and so does the array, at 0x7fffe's like.
        byte[] argument = Argument(domain.Layout, 0x71ffc, 2, 0);
        await domain.Vm.WriteMemoryAsync(0x70ff4, argument.AsMemory(0, 12));
        await domain.Vm.WriteMemoryAsync(0x75000, argument.AsMemory(12));
        await domain.Vm.WriteMemoryAsync(0x71000, new byte[12]);
        await domain.WriteAsync(0x75ffc, 5);
        await domain.WriteAsync(0x72000, 66);
        await OutboundEventChannelTests.RemapAsync(domain, GuestLayout.X86_64.Tables.Map(0x71000, 0x75000));

        (await PollAsync(domain, 0x70ff4)).Should().Be(0);

        await OutboundEventChannelTests.RemapAsync(domain, GuestLayout.X86_64.Tables.Unmap(0x71000));
        (await PollAsync(domain, 0x70ff4)).Should().Be(Error(domain, Errno.EFAULT));
    }

    [Fact]
    [Clause("kvm-xen/poll/frees-its-array")]
    [FixedBy("5a53249d149f", "KVM: x86/xen: Fix cleanup logic in emulation of Xen schedop poll hypercalls")]
    public async Task ArrayIsFreedOnEveryWayOut()
    {
        const int Polls = 1500;
        XenDomain domain = await CreateAsync();
        await domain.SharedInfo.SetPendingAsync(66);
        uint[] good = [.. Enumerable.Repeat(66u, 128)];
        await domain.WriteAsync(PortsGpa, good);
        await domain.WriteAsync(PortsGpa + 0x1000, [.. good.SkipLast(1), 4096u]);
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa, Argument(domain.Layout, PortsGpa, 128, 0));
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa + 0x100, Argument(domain.Layout, PortsGpa + 0x1000, 128, 0));
        await domain.Vm.WriteMemoryAsync(XenDomain.ArgumentsGpa + 0x200, Argument(domain.Layout, NoMemory, 128, 0));
        Slab slab = await Slab.ReadAsync(domain.Vm.Session, "kmalloc-512");

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Label("again")
            .Add(Poll(domain), out int ready)
            .Add(Poll(domain, XenDomain.ArgumentsGpa + 0x100), out int range)
            .Add(Poll(domain, XenDomain.ArgumentsGpa + 0x200), out int fault)
            .Repeat("again", Polls));

        results[ready].Value.Should().Be(0);
        results[range].Value.Should().Be(Error(domain, Errno.EINVAL));
        results[fault].Value.Should().Be(Error(domain, Errno.EFAULT));
        (await slab.GrowthAsync()).Should().BeLessThan(Polls / 2);
    }
}

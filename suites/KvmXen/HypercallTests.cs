// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>Hypercalls of every mode: what reaches user space, and what the kernel answers itself.</summary>
public sealed class HypercallTests(KernelUnderTest kernel)
{
    private static readonly ulong[] Wide =
        [0x1111222233334444, 0x8888777766665555, 0x99990000aaaabbbb, 0xccccddddeeeeffff, 0x0123456789abcdef, 0xfedcba9876543210];

    private static readonly ulong[] Narrow = [0x11112222, 0x88887777, 0x99990000, 0xccccdddd, 0x01234567, 0xfedcba98];

    private static XenDomainOptions OptionsFor(HypercallMode mode, bool guest32) => XenDomainOptions.Default with { Abi = guest32 ? XenAbi.Bits32 : XenAbi.Bits64 };

    public static TheoryData<HypercallMode, bool> Modes { get; } = new()
    {
        { HypercallMode.Kernel64, false },
        { HypercallMode.User64, false },
        { HypercallMode.Kernel32, false },
        { HypercallMode.User32, false },
        { HypercallMode.Kernel32, true },
        { HypercallMode.User32, true },
    };

    private static bool Is64(HypercallMode mode) => mode is HypercallMode.Kernel64 or HypercallMode.User64;

    private static bool IsUser(HypercallMode mode) => mode is HypercallMode.User64 or HypercallMode.User32;

    [Theory]
    [MemberData(nameof(Modes))]
    [Clause("kvm-xen/hypercall/arguments")]
    [Clause("kvm-xen/hypercall/exit")]
    public async Task HypercallReachesUserSpaceWholeAndIsAnswered(HypercallMode mode, bool guest32)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, OptionsFor(mode, guest32));
        ulong number = Is64(mode) ? 0x7766554433221100UL : 0x33221100UL;
        ulong[] arguments = Is64(mode) ? Wide : Narrow;
        ulong answer = Is64(mode) ? 0xfedcba9876543210UL : 0xba987654UL;
        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.Hypercall(domain.Native, mode, number, arguments)));

        GuestExit exit = await domain.Vcpu.NextExitAsync();

        exit.Reason.Should().Be(KvmExit.KVM_EXIT_XEN);
        exit.Run.xen_type.Should().Be(KVM_EXIT_XEN_HCALL);
        exit.Run.xen_hcall_longmode.Should().Be(Is64(mode) ? 1u : 0);
        exit.Run.xen_hcall_cpl.Should().Be(IsUser(mode) ? 3u : 0);
        exit.Run.xen_hcall_input.Should().Be(number);
        exit.XenParams.Should().Equal(arguments);
        await domain.Vcpu.ResumeWithAsync(exit, answer);
        CommandResult result = (await domain.Vcpu.FinishAsync())[^1];
        result.Value.Should().Be(answer);
        result.Result2.Should().Be(0, "only rax changes");
    }

    [Theory]
    [InlineData(HypercallMode.Kernel32)]
    [InlineData(HypercallMode.User32)]
    [Clause("kvm-xen/hypercall/lower-halves")]
    public async Task UpperHalvesStayBehindInCompatibilityMode(HypercallMode mode)
    {
        const ulong Upper = 0xa5a5a5a5UL << 32;
        XenDomain domain = await XenDomain.CreateAsync(kernel, OptionsFor(mode, guest32: false));
        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.Hypercall(domain.Native, mode, Upper | 0x33221100, [.. Narrow.Select(a => Upper | a)])));

        GuestExit exit = await domain.Vcpu.NextExitAsync();

        exit.Run.xen_hcall_longmode.Should().Be(0);
        exit.Run.xen_hcall_input.Should().Be(0x33221100);
        exit.XenParams.Should().Equal(Narrow);
        await domain.Vcpu.ResumeWithAsync(exit, 0);
        await domain.Vcpu.FinishAsync();
    }

    [Fact]
    [Clause("kvm-xen/hypercall/exit")]
    public async Task RipStaysAtTheInstructionUntilTheAnswer()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.StartAsync(domain.Script().Add(domain.Hypercall(55)));
        GuestExit exit = await domain.Vcpu.NextExitAsync();

        kvm_regs registers = await domain.Vcpu.GetRegistersAsync();
        registers.rip.Should().Be(domain.Native == HypercallInstruction.Vmmcall ? GuestLayout.Vmmcall : GuestLayout.Vmcall);
        registers.rax.Should().Be(55);
        await domain.Vcpu.ResumeWithAsync(exit, 1);
        await domain.Vcpu.FinishAsync();
    }

    [Fact]
    [Clause("kvm-xen/hypercall/moved-rip")]
    public async Task AnswerIsDroppedIfUserSpaceMovedRip()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.Vcpu.StartAsync(domain.Script().Add(domain.Hypercall(55)));
        GuestExit exit = await domain.Vcpu.NextExitAsync();
        kvm_regs registers = await domain.Vcpu.GetRegistersAsync();

        // Past the instruction, which is three bytes long, with an answer of its own.
        registers.rip += 3;
        registers.rax = 0x5151;
        await domain.Vcpu.SetRegistersAsync(registers);
        await domain.Vcpu.ResumeWithAsync(exit, 0x7777);

        (await domain.Vcpu.FinishAsync())[^1].Value.Should().Be(0x5151);
    }

    [Fact]
    [Clause("kvm-xen/hypercall/moved-rip")]
    public async Task AnswerFindsItsInstructionInASegmentThatDoesNotBeginAtZero()
    {
        const ulong Offset = 0x1000;
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = XenAbi.Bits32 });
        await domain.Vcpu.StartAsync(domain.Script().Add(domain.Hypercall(55)));
        GuestExit exit = await domain.Vcpu.NextExitAsync();
        kvm_regs flat = await domain.Vcpu.GetRegistersAsync();

        // The first call loses its answer, and the guest makes it again from a code segment that begins elsewhere.
        await domain.Vcpu.SetRegistersAsync(flat with { rip = flat.rip + 3 });
        await AnswerAsync(domain.Vcpu, exit, 0x1111);
        kvm_sregs special = await domain.Vcpu.GetSpecialRegistersAsync();
        special.cs.@base = Offset;
        await domain.Vcpu.SetSpecialRegistersAsync(special);
        await domain.Vcpu.SetRegistersAsync(flat with { rip = flat.rip - Offset });
        await domain.Vcpu.ResumeAsync();
        exit = await domain.Vcpu.NextExitAsync();
        (exit.Reason, exit.Run.xen_hcall_input).Should().Be((KvmExit.KVM_EXIT_XEN, 55ul));
        await AnswerAsync(domain.Vcpu, exit, 0x7777);

        kvm_regs answered = await domain.Vcpu.GetRegistersAsync();
        (answered.rax, answered.rip).Should().Be((0x7777ul, flat.rip - Offset + 3));
        special.cs.@base = 0;
        await domain.Vcpu.SetSpecialRegistersAsync(special);
        await domain.Vcpu.SetRegistersAsync(answered with { rip = flat.rip + 3 });
        await domain.Vcpu.ResumeAsync();
        (await domain.Vcpu.FinishAsync())[^1].Value.Should().Be(0x7777);
    }

    // Answers, and stops before the guest's next instruction.
    private static async Task AnswerAsync(Vcpu vcpu, GuestExit exit, ulong value)
    {
        await vcpu.KickAsync();
        await vcpu.ResumeWithAsync(exit, value);
        (await vcpu.NextExitAsync()).Kicked.Should().BeTrue();
    }

    [Theory]
    [InlineData(HypercallMode.User64, false)]
    [InlineData(HypercallMode.User32, false)]
    [InlineData(HypercallMode.User32, true)]
    [Clause("kvm-xen/hypercall/user-mode")]
    [FixedBy("c2b8cdfaf3a6", "KVM: x86/xen: Only do in-kernel acceleration of hypercalls for guest CPL0")]
    public async Task UserModeHypercallsAreNeverHandledInTheKernel(HypercallMode mode, bool guest32)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, OptionsFor(mode, guest32));
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);
        XenDomain.Expect(await domain.Xen.TrySetXenVersionAsync(0x40011), "XEN_VERSION");
        XenDomain.Expect(await domain.Xen.TrySetTimerAsync(domain.Vcpu, new XenTimer(9, XenHvm.TwoLevel, 0)), "TIMER");
        await domain.WriteAsync(XenDomain.ArgumentsGpa, 127);
        (ulong Number, ulong[] Arguments)[] calls =
        [
            (XenHypercall.XenVersion, [XenHypercall.VersionVersion]),
            (XenHypercall.EventChannelOp, [XenHypercall.EventChannelSend, XenDomain.ArgumentsGpa]),
            (XenHypercall.SchedOp, [XenHypercall.SchedYield]),
            (XenHypercall.SchedOp, [XenHypercall.SchedPoll, XenDomain.ArgumentsGpa]),
            (XenHypercall.VcpuOp, [XenHypercall.VcpuStopSingleshotTimer, 0]),
            (XenHypercall.SetTimerOp, [0]),
        ];

        foreach ((ulong number, ulong[] arguments) in calls)
        {
            await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.Hypercall(domain.Native, mode, number, arguments)));
            GuestExit exit = await domain.Vcpu.NextExitAsync();
            exit.Reason.Should().Be(KvmExit.KVM_EXIT_XEN, $"hypercall {number} comes from CPL3");
            exit.Run.xen_hcall_input.Should().Be(number);
            exit.Run.xen_hcall_cpl.Should().Be(3);
            await domain.Vcpu.ResumeWithAsync(exit, 0);
            await domain.Vcpu.FinishAsync();
        }

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall/unhandled")]
    public async Task WhatTheKernelDoesNotKnowGoesToUserSpace(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        await domain.Xen.BindPortAsync(127, EventChannelType.Interdomain, 15);
        XenDomain.Expect(await domain.Xen.TrySetXenVersionAsync(0x40011), "XEN_VERSION");
        XenDomain.Expect(await domain.Xen.TrySetTimerAsync(domain.Vcpu, new XenTimer(9, XenHvm.TwoLevel, 0)), "TIMER");
        await domain.WriteAsync(XenDomain.ArgumentsGpa, 127);
        (ulong Number, ulong[] Arguments)[] calls =
        [
            (0, []),
            (14, [0]),
            (16, [0]),
            (18, [0]),
            (25, [8, 0]),
            (28, [0]),
            (30, [0]),
            (31, [4]),
            (33, [4, XenDomain.ArgumentsGpa]),
            (34, []),
            (55, [1, 2, 3, 4, 5, 6]),
            (XenHypercall.XenVersion, [XenHypercall.VersionExtra, XenDomain.ArgumentsGpa]),
            (XenHypercall.EventChannelOp, [XenHypercall.EventChannelClose, XenDomain.ArgumentsGpa]),
            (XenHypercall.EventChannelOp, [5, XenDomain.ArgumentsGpa]),
            (XenHypercall.SchedOp, [XenHypercall.SchedBlock]),
            (XenHypercall.SchedOp, [XenHypercall.SchedShutdown, XenDomain.ArgumentsGpa]),
            (XenHypercall.SchedOp, [4, XenDomain.ArgumentsGpa]),
            (XenHypercall.VcpuOp, [XenHypercall.VcpuIsUp, 0]),
            (XenHypercall.VcpuOp, [XenHypercall.VcpuStopPeriodicTimer, 0]),
            (XenHypercall.VcpuOp, [10, 0]),
        ];

        foreach ((ulong number, ulong[] arguments) in calls)
        {
            GuestExit exit = await domain.CallToUserSpaceAsync(0, number, arguments);
            exit.Run.xen_hcall_input.Should().Be(number);
            exit.XenParams[..arguments.Length].Should().Equal(arguments);
        }

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall/xen-version")]
    public async Task VersionIsAnsweredOnceItIsSet(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        await domain.CallToUserSpaceAsync(1, XenHypercall.XenVersion, XenHypercall.VersionVersion);

        foreach (uint version in new[] { 0x0004000au, 0xc0000001u })
        {
            XenDomain.Expect(await domain.Xen.TrySetXenVersionAsync(version), "XEN_VERSION");
            (await domain.CallAsync(XenHypercall.XenVersion, XenHypercall.VersionVersion)).Should().Be(version);
        }

        XenDomain.Expect(await domain.Xen.TrySetXenVersionAsync(0), "XEN_VERSION");
        await domain.CallToUserSpaceAsync(1, XenHypercall.XenVersion, XenHypercall.VersionVersion);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall/sched-yield")]
    public async Task YieldReturnsZero(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi });

        (await domain.CallAsync(XenHypercall.SchedOp, XenHypercall.SchedYield)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/hypercall/arguments")]
    public async Task CompatibilityModeInA64BitGuestUsesThe32BitRegisters()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        EventFd eventfd = await kernel.CreateEventFdAsync();
        await domain.Xen.BindEventFdAsync(20, eventfd);
        await domain.WriteAsync(XenDomain.ArgumentsGpa, 20);

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Hypercall(
            domain.Native, HypercallMode.Kernel32, XenHypercall.EventChannelOp, [XenHypercall.EventChannelSend, XenDomain.ArgumentsGpa])));

        results[^1].Value.Should().Be(0);
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    // Hyper-V's hypercalls beside Xen's

    [Fact]
    [Clause("kvm-xen/hypercall/hyper-v")]
    public async Task NumberWithBit31IsXensWithoutHyperV()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);

        GuestExit exit = await domain.CallToUserSpaceAsync(0, 0x80000037, 1, 2);
        exit.Run.xen_hcall_input.Should().Be(0x80000037);
    }

    [Fact]
    [Clause("kvm-xen/hypercall/hyper-v")]
    public async Task NumberWithBit31IsHyperVsWhereItIsEnabled()
    {
        const uint GuestOsId = 0x40000000;
        const ulong InvalidHypercallCode = 2;
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Msr = 0x40000200 });
        await EnableHyperVAsync(domain);
        Skipping.UnlessCapability(await domain.Vcpu.TrySetMsrAsync(GuestOsId, 1), "HV_X64_MSR_GUEST_OS_ID", "KVM_SET_MSRS refused it");

        // Hyper-V's input value is rcx: the third Xen argument is rdx, so an unknown call code has to come in KVM's own registers.
        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.KvmHypercall(domain.Native, HypercallMode.Kernel64, 0x80000000, 0, 0x7fff)));
        (results[^1].Value & 0xffff).Should().Be(InvalidHypercallCode, "it is the status of Hyper-V");

        GuestExit exit = await domain.CallToUserSpaceAsync(0, 55, 1, 2);
        exit.Run.xen_hcall_input.Should().Be(55, "without bit 31 it is Xen's");
    }

    // The least of CPUID that makes KVM take a guest for one that knows Hyper-V and may make hypercalls.
    private static Task EnableHyperVAsync(XenDomain domain) => domain.SetHypervisorCpuidAsync("with Hyper-V",
        new kvm_cpuid_entry2 { function = 0x40000000, eax = 0x40000005, ebx = 0x7263694d, ecx = 0x666f736f, edx = 0x76482074 },
        new kvm_cpuid_entry2 { function = 0x40000001, eax = 0x31237648 },
        new kvm_cpuid_entry2 { function = 0x40000003, eax = 1 << 5, ebx = uint.MaxValue });
}

// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Harness.Tests.Wire;
using Conformance.Kernels;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Guests.GuestCommand;

namespace Conformance.Harness.Tests.Guests;

/// <summary>The x86 guests on this machine's own KVM, where it opens.</summary>
public sealed class GuestRunTests : IAsyncLifetime
{
    private const ulong Hole = 0x03000000;
    private const ulong Page = GuestLayout.TestPages;
    private const long Eperm = -1;
    private static readonly ApicVector s_vector = new(0x41);
    private static readonly ApicVector s_higher = new(0x81);
    private static readonly string s_cpu = File.Exists("/proc/cpuinfo") ? File.ReadAllText("/proc/cpuinfo") : "";

    private LocalAgent? _agent;
    private KernelSession? _session;

    public async ValueTask InitializeAsync()
    {
        string reason = "";
        try
        {
            using FileStream kvm = File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            reason = e.Message;
        }

        Assert.SkipWhen(reason.Length > 0, $"/dev/kvm does not open: {reason}");
        _agent = await LocalAgent.StartAsync();
        _session = new KernelSession(await _agent.Connection.OpenSessionAsync(default), KernelArchitecture.X86_64, name => $"{LocalAgent.Build}/guests/{name}");
    }

    public async ValueTask DisposeAsync()
    {
        if (_session is not null)
        {
            await _session.DisposeAsync();
        }

        if (_agent is not null)
        {
            await _agent.DisposeAsync();
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task AnInterruptIsTakenLoggedAndAcknowledged(bool x2apic)
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.StartAsync(new GuestScript
        {
            EnableApic(x2apic), InterruptsOn, HaltUntilTaken(s_vector), HaltUntilTaken(s_vector, 2), Mark(1),
        });
        await vcpu.WaitUntilHaltingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_vector));
        await vcpu.WaitUntilHaltingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_vector));
        ScriptResults results = await vcpu.FinishAsync();

        results.Should().OnlyContain(r => r.Status == CommandStatus.Done && r.Runs == 1);
        InterruptLog log = await vcpu.ReadLogAsync();
        log.ToString().Should().Be("  taken 0x41\n  taken 0x41\n  mark 0x1 0x0\n");
        log.Take(2).Select(r => (r.Position, r.Depth, r.FromUser)).Should().Equal((2, 1, false), (3, 1, false));
        ulong inService = 0;
        foreach (byte register in (await vcpu.GetLapicAsync())[0x100..0x180])
        {
            inService += register;
        }

        inService.Should().Be(0, "each was acknowledged");
    }

    [Fact]
    public async Task AnExpectedExceptionEndsItsCommandOnly()
    {
        await using Vm vm = await CreateAsync();
        var script = new GuestScript()
            .Add(ReadMsr(0x12345).Expecting(X86Exception.GeneralProtection), out int msr)
            .Add(Load(0x2_0000_0000).Expecting(X86Exception.PageFault), out int load)
            .Add(ReadMsr(0x1b), out int after);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);

        results[msr].Fault.ToString().Should().Be("#GP error 0x0");
        results[load].Fault.ToString().Should().Be("#PF error 0x0 at 0x200000000");
        (results[after].Value & 0xfffff000).Should().Be(0xfee00000);
        (await vm.Vcpus[0].ReadLogAsync()).ToString().Should().Be("  #GP error 0x0\n  #PF error 0x0\n");
    }

    [Fact]
    public async Task AnUnexpectedExceptionIsTheGuestsDeath()
    {
        await using Vm vm = await CreateAsync();
        await vm.Vcpus[0].StartAsync(new GuestScript { Nop, ReadMsr(0x12345) });
        GuestExit exit = await vm.Vcpus[0].NextExitAsync();
        exit.IoData.Should().Be((ulong)CallOut.Died);
        (await vm.Vcpus[0].ReadControlAsync()).ToString().Should().StartWith("vCPU 0: died at command 1 of 2: #GP error 0x0 at pc 0x10");
    }

    [Theory]
    [InlineData(AccessWidth.Byte)]
    [InlineData(AccessWidth.Word)]
    [InlineData(AccessWidth.Dword)]
    [InlineData(AccessWidth.Qword)]
    public async Task AnAccessHasTheWidthItSays(AccessWidth width)
    {
        const ulong Pattern = 0x1122334455667788;
        ulong mask = width == AccessWidth.Qword ? ulong.MaxValue : (1ul << ((int)width * 8)) - 1;
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.StartAsync(new GuestScript { Store(Hole, Pattern, width), Load(Hole, width), Fill(Hole, Pattern, 1, width) });

        GuestExit store = await vcpu.NextExitAsync();
        (store.Reason, store.Run.mmio_phys_addr, store.Run.mmio_len, store.Run.mmio_is_write).Should().Be((KvmExit.KVM_EXIT_MMIO, Hole, (uint)width, 1));
        await vcpu.ResumeAsync();
        GuestExit load = await vcpu.NextExitAsync();
        (load.Run.mmio_len, load.Run.mmio_is_write).Should().Be(((uint)width, 0));
        await vcpu.ResumeWithAsync(load, Pattern);
        GuestExit fill = await vcpu.NextExitAsync();
        (fill.Run.mmio_len, fill.Run.mmio_is_write).Should().Be(((uint)width, 1));
        await vcpu.ResumeAsync();
        (await vcpu.FinishAsync())[1].Value.Should().Be(Pattern & mask);
    }

    [Fact]
    public async Task AHandlerDoesItsActionsBeforeItNotifies()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        ulong counter = GuestLayout.Counter(0, 3);
        await vcpu.SetHandlersAsync(new HandlerTable().Set(s_vector, new HandlerPolicy
        {
            Notify = true,
            Actions = [HandlerAction.Out(0x80, 0x12), HandlerAction.Add(counter, 5), HandlerAction.Load(counter, AccessWidth.Qword)],
        }));
        await vcpu.StartAsync(new GuestScript { EnableApic(), HaltUntilTaken(s_vector) });
        await vcpu.WaitUntilHaltingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_vector));
        GuestExit exit = await vcpu.NextExitAsync();
        (exit.Run.io_port, (byte)exit.IoData).Should().Be((0x80, 0x12));
        await vcpu.ResumeAsync();
        await vcpu.WaitForNotifyAsync();
        await vcpu.FinishAsync();
        (await vcpu.ReadControlAsync()).Counters[3].Should().Be(5);
        (await vcpu.ReadLogAsync()).ToString().Should().Be($"  taken 0x41\n  read 0x5 from 0x{counter:x}\n");
    }

    [Fact]
    public async Task AHandlerMayLeaveTheAcknowledgementToACommand()
    {
        RequireHardware("keep an interrupt in service until it is acknowledged");
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        var never = new HandlerPolicy { Acknowledge = Acknowledgement.Never };
        await vcpu.StartAsync(new GuestScript()
            .Handle(s_higher, never)
            .Add(EnableApic())
            .Add(HaltUntilTaken(s_higher))
            .Add(Ask())
            .Add(InterruptsOn)
            .Add(Mark(1))
            .Add(Eoi)
            .Add(HaltUntilTaken(s_vector))
            .Add(InterruptsOff));
        await vcpu.WaitUntilHaltingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_higher));
        await vcpu.WaitUntilAskingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_vector));
        await vcpu.ResumeAsync();
        await vcpu.FinishAsync();
        (await vcpu.ReadLogAsync()).ToString().Should().Be("  taken 0x81\n  mark 0x1 0x0\n  taken 0x41\n");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task VcpusRunBesideEachOther(bool x2apic)
    {
        const uint Rounds = 300;
        const int Vcpus = 3;
        await using Vm vm = await CreateAsync(VmOptions.Default with { Vcpus = Vcpus });
        await vm.BootAsync(x2apic);
        // Each passes an interrupt on to the next; the first does not wait for its first.
        await Task.WhenAll(vm.Vcpus.Select(vcpu =>
        {
            ApicVector own = new((byte)(0x50 + vcpu.Index));
            int next = (vcpu.Index + 1) % Vcpus;
            var wanted = new GuestCondition(GuestLayout.Taken(vcpu.Index, own), Comparison.AtLeast, 0);
            return vcpu.StartAsync(new GuestScript()
                .Label("round")
                .Add(HaltUntilTaken(own, vcpu.Index == 0 ? 0u : 1, quiet: true), out int wait)
                .Add(SendIpi((uint)next, (uint)(0x50 + next)))
                .Add(Locked(LockedOperation.Add, vcpu.Area + GuestProtocol.AreaScript + (ulong)(wait * 128) + 0x18, 1, AccessWidth.Qword))
                .Repeat("round", Rounds)
                .Add(SpinUntil(wanted with { Value = vcpu.Index == 0 ? Rounds - 1 : Rounds }, interrupts: true)));
        }));
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            (await vcpu.FinishAsync())[1].Runs.Should().Be(Rounds);
        }

        foreach (Vcpu vcpu in vm.Vcpus)
        {
            InterruptLog log = await vcpu.ReadLogAsync();
            log.Vectors.Should().OnlyContain(v => v == new ApicVector((byte)(0x50 + vcpu.Index)));
            log.Should().HaveCount((int)(vcpu.Index == 0 ? Rounds - 1 : Rounds));
        }
    }

    [Fact]
    public async Task LoopsEndByCountOrByMemory()
    {
        await using Vm vm = await CreateAsync();
        var script = new GuestScript()
            .Label("count").Add(Locked(LockedOperation.Xadd, GuestLayout.Scratch, 1), out int add).Repeat("count", 7)
            .Label("memory").Add(Locked(LockedOperation.Add, GuestLayout.Scratch, 1), out int more)
            .RepeatUntil("memory", new GuestCondition(GuestLayout.Scratch, Comparison.AtLeast, 20))
            .Add(SpinUntil(new GuestCondition(GuestLayout.Scratch, Comparison.Equal, 21), mostReads: 9), out int spin);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        (results[add].Runs, results[add].Value, results[more].Runs).Should().Be((7, 6, 13));
        (results[spin].Value, results[spin].Result2).Should().Be((20, 0));
    }

    [Fact]
    public async Task LockedInstructionsGiveBackWhatTheyFound()
    {
        await using Vm vm = await CreateAsync();
        const ulong At = GuestLayout.Scratch;
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(
            Store(At, 0x10, AccessWidth.Qword),
            Locked(LockedOperation.Xchg, At, 0x20),
            Locked(LockedOperation.Cmpxchg, At, 0x30, compare: 0x20),
            Locked(LockedOperation.Cmpxchg, At, 0x40, compare: 0x20),
            Locked(LockedOperation.Bts, At, 35),
            Locked(LockedOperation.Btr, At, 35),
            Locked(LockedOperation.Btc, At, 0),
            Locked(LockedOperation.And, At, 0x11, AccessWidth.Byte),
            Locked(LockedOperation.Or, At, 0x8000, AccessWidth.Word),
            Locked(LockedOperation.Xor, At, 0xff, AccessWidth.Qword),
            Load(At, AccessWidth.Qword));
        results.Select(r => r.Result).Where((_, n) => n is >= 1 and <= 6).Should().Equal(0x10, 0x20, 0x30, 0, 1, 0);
        (results[2].Result2, results[3].Result2).Should().Be((1, 0));
        results[^1].Value.Should().Be(0x80ee);
    }

    [Fact]
    public async Task APageCanBeTakenAwayAndGivenBack()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        PageTables tables = GuestLayout.X86_64.Tables;
        await vcpu.ExecuteAsync(Store(Page, 7));
        await WriteAsync(vm, tables.Unmap(Page));
        ScriptResults gone = await vcpu.ExecuteAsync(Invlpg(Page), Load(Page + 4).Expecting(X86Exception.PageFault));
        gone[1].Fault.ToString().Should().Be($"#PF error 0x0 at 0x{Page + 4:x}");
        await WriteAsync(vm, tables.Map(Page, Page, writable: false));
        ScriptResults readOnly = await vcpu.ExecuteAsync(FlushTlb, Load(Page), Store(Page, 8).Expecting(X86Exception.PageFault));
        readOnly[1].Value.Should().Be(7);
        readOnly[2].Fault.ToString().Should().Be($"#PF error 0x3 at 0x{Page:x}");
        await WriteAsync(vm, tables.Restore(Page));
        (await vcpu.ExecuteAsync(FlushTlb, Store(Page, 9), Load(Page)))[2].Value.Should().Be(9);
    }

    [Fact]
    public async Task TheLogKeepsTheLastRecords()
    {
        await using Vm vm = await CreateAsync();
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Label("again").Add(Mark(5)).Repeat("again", 2000));
        InterruptLog log = await vm.Vcpus[0].ReadLogAsync();
        (log.Lost, log.Count, log[0].Sequence, log[^1].Sequence).Should().Be((464, 1536, 464, 1999));
    }

    [Fact]
    public async Task RegistersArePlacedWhereTheCommandSays()
    {
        await using Vm vm = await CreateAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(
            ReadControlRegister(3), WriteControlRegister(8, 5), ReadControlRegister(8), ReadApic(0x80), Cpuid(0x40000000), Timestamp, Timestamp);
        (results[0].Value, results[2].Value).Should().Be((GuestLayout.PageTables, 5));
        results[3].Value.Should().Be(0x50, "cr8 is the upper half of the TPR");
        results[4].Cpuid.Ebx.Should().Be(0x4b4d564b, "KVMK");
        results[6].Value.Should().BeGreaterThan(results[5].Value);
    }

    [Fact]
    public async Task AHypercallFromUserModeComesBack()
    {
        await using Vm vm = await CreateAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(KvmHypercall(Native(), HypercallMode.User64, 1, 2, 3), Nop);
        ((long)results[0].Value).Should().Be(Eperm, "KVM serves hypercalls to CPL0 only");
        results[0].Result2.Should().Be(0, "no other register changed");
    }

    [Theory]
    [InlineData(HypercallMode.Kernel64, -1000)]
    [InlineData(HypercallMode.User64, Eperm)]
    [InlineData(HypercallMode.Kernel32, -1000)]
    [InlineData(HypercallMode.User32, Eperm)]
    public async Task AHypercallIsMadeFromEveryMode(HypercallMode mode, long expected)
    {
        RequireHardware("do hypercalls from CPL0 and compatibility mode");
        await using Vm vm = await CreateAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(KvmHypercall(Native(), mode, 0x7777));
        bool wide = mode is HypercallMode.Kernel64 or HypercallMode.User64;
        (wide ? (long)results[0].Value : (int)results[0].Value).Should().Be(expected);
    }

    [Fact]
    public async Task ASoftwareInterruptIsHandledToo()
    {
        RequireHardware("do int n");
        await using Vm vm = await CreateAsync();
        await vm.Vcpus[0].ExecuteAsync(EnableApic(), SoftwareInterrupt(0x55), SoftwareInterrupt(4).Expecting(X86Exception.Overflow));
        (await vm.Vcpus[0].ReadLogAsync()).ToString().Should().Be("  taken 0x55\n  #OF error 0x0\n");
    }

    [Fact]
    public async Task TheThirtyTwoBitGuestRunsScripts()
    {
        await using Vm vm = await CreateAsync(VmOptions.Default with { Guest32Bit = true });
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.StartAsync(new GuestScript
        {
            Store(GuestLayout.Scratch, 0x1122334455667788, AccessWidth.Qword),
            Load(GuestLayout.Scratch, AccessWidth.Qword),
            ReadMsr(0x12345).Expecting(X86Exception.GeneralProtection),
            Hypercall(HypercallInstruction.Vmcall, HypercallMode.Kernel64, 1),
            Out(0x80, 0x34, AccessWidth.Word),
            EnableApic(),
        });
        GuestExit exit = await vcpu.NextExitAsync();
        (exit.Run.io_port, (ushort)exit.IoData).Should().Be((0x80, 0x34));
        await vcpu.ResumeAsync();
        ScriptResults results = await vcpu.FinishAsync();
        results[1].Value.Should().Be(0x1122334455667788);
        results[2].Fault.ToString().Should().Be("#GP error 0x0");
        results[3].Status.Should().Be(CommandStatus.Unsupported);
    }

    [Fact]
    public async Task TheThirtyTwoBitGuestTakesInterrupts()
    {
        RequireHardware("do iret in 32-bit protected mode");
        await using Vm vm = await CreateAsync(VmOptions.Default with { Guest32Bit = true });
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.StartAsync(new GuestScript { EnableApic(), HaltUntilTaken(s_vector) });
        await vcpu.WaitUntilHaltingAsync();
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_vector));
        await vcpu.FinishAsync();
        (await vcpu.ReadLogAsync()).ToString().Should().Be("  taken 0x41\n");
    }

    // The image is built from the headers that GuestLayoutTests reads; this proves that it was built since.
    [Theory]
    [InlineData("x86_64.img", 62u)]
    [InlineData("x86_32.img", 3u)]
    public async Task TheImageSaysWhereItLies(string name, uint machine)
    {
        GuestImage image = GuestImage.Parse(await File.ReadAllBytesAsync($"{LocalAgent.Build}/guests/{name}"));
        (image.Machine, image.Load, image.Entry, image.PageTables).Should().Be((machine, GuestLayout.Image, GuestLayout.Entry, GuestLayout.PageTables));
        image.End.Should().BeLessThanOrEqualTo(GuestLayout.Areas);
    }

    private static HypercallInstruction Native() =>
        s_cpu.Contains("AuthenticAMD", StringComparison.Ordinal) ? HypercallInstruction.Vmmcall : HypercallInstruction.Vmcall;

    // A software KVM, with neither, is not faithful to the last: what it was seen to miss is named here.
    private static void RequireHardware(string what) =>
        Assert.SkipUnless(s_cpu.Contains(" svm", StringComparison.Ordinal) || s_cpu.Contains(" vmx", StringComparison.Ordinal), $"this machine's KVM has neither svm nor vmx and cannot {what}");

    private static Task WriteAsync(Vm vm, GuestWrite write) => vm.WriteMemoryAsync(write.Address, write.Bytes);

    private async Task<Vm> CreateAsync(VmOptions? options = null) => await Vm.CreateAsync(await KvmSystem.OpenAsync(_session!), options ?? VmOptions.Default);
}

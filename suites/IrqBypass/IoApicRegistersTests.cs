// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>The I/O APIC's registers as the guest reads and writes them.</summary>
public sealed class IoApicRegistersTests(KernelUnderTest kernel)
{
    private const uint Base = (uint)IoApicState.DefaultBase;

    private async Task<Vm> CreateAsync()
    {
        Vm vm = await kernel.CreateVmAsync();
        await vm.BootAsync();
        return vm;
    }

    private static async Task<string> ReadAsync(Vcpu vcpu, params byte[] registers)
    {
        ScriptResults results = await vcpu.ExecuteAsync([.. registers.SelectMany(IoApicRegisters.Read)]);
        return string.Join(" ", registers.Select((_, i) => $"{results[(i * 2) + 1].Value:x8}"));
    }

    private static Task WriteAsync(Vcpu vcpu, byte register, uint value) => vcpu.ExecuteAsync(IoApicRegisters.Write(register, value));

    [Fact]
    [Clause("kvm-ioapic/register/id")]
    [Clause("kvm-ioapic/register/arbitration")]
    public async Task IdHasFourBitsAndArbitrationShowsIt()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];

        (await ReadAsync(vcpu, 0, 2)).Should().Be("00000000 00000000");
        await WriteAsync(vcpu, IoApicRegisters.Id, 0xffffffff);
        (await ReadAsync(vcpu, 0, 2)).Should().Be("0f000000 0f000000");
        await WriteAsync(vcpu, IoApicRegisters.Id, 0xa5ffffff);
        (await ReadAsync(vcpu, 0, 2)).Should().Be("05000000 05000000");
        await WriteAsync(vcpu, IoApicRegisters.Arbitration, 0x09000000);
        (await ReadAsync(vcpu, 0, 2)).Should().Be("05000000 05000000");
        (await vm.GetIoApicAsync()).Id.Should().Be(5);
    }

    [Fact]
    [Clause("kvm-ioapic/register/version")]
    public async Task VersionSays24EntriesAndIsReadOnly()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        string before = (await vm.GetIoApicAsync()).ToString();

        (await ReadAsync(vcpu, IoApicRegisters.Version)).Should().Be("00170011");
        await WriteAsync(vcpu, IoApicRegisters.Version, 0xffffffff);
        (await ReadAsync(vcpu, IoApicRegisters.Version, 0)).Should().Be("00170011 00000000");
        (await vm.GetIoApicAsync()).ToString().Should().Be(before);
    }

    [Fact]
    [Clause("kvm-ioapic/register/beyond-the-table")]
    public async Task RegistersThatAreNoneReadAllOnesAndIgnoreWrites()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        byte[] none = [0x03, 0x0e, 0x0f, 0x40, 0x41, 0x42, 0x80, 0xfe, 0xff];

        (await ReadAsync(vcpu, none)).Should().Be(string.Join(" ", none.Select(_ => "ffffffff")));
        foreach (byte register in none)
        {
            await WriteAsync(vcpu, register, 0x12340000);
        }

        (await ReadAsync(vcpu, none)).Should().Be(string.Join(" ", none.Select(_ => "ffffffff")));
        IoApicState expected = IoApicState.New();
        expected.Select = 0xff;
        (await vm.GetIoApicAsync()).ToString().Should().Be(expected.ToString());
    }

    [Fact]
    [Clause("kvm-ioapic/register/redirection-halves")]
    [Clause("kvm-ioapic/mmio/select-and-window")]
    public async Task EachEntryHasTwoHalvesOfItsOwn()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        // Bits 12 and 14 are read-only; bit 16 keeps the pins quiet. Every bit else is kept, reserved ones too.
        uint Low(int pin) => 0xa5a10000u | (uint)(pin << 17) | (uint)(0x2f00 | (0x30 + pin));
        uint High(int pin) => 0x5a000000u + ((uint)pin << 24) + (uint)(0x123400 + pin);

        for (int pin = 0; pin < IoApicState.Pins; pin++)
        {
            await WriteAsync(vcpu, IoApicRegisters.Low(pin), Low(pin));
            (await ReadAsync(vcpu, IoApicRegisters.Low(pin), IoApicRegisters.High(pin))).Should().Be($"{Low(pin):x8} 00000000");
        }

        for (int pin = 0; pin < IoApicState.Pins; pin++)
        {
            await WriteAsync(vcpu, IoApicRegisters.High(pin), High(pin));
            (await ReadAsync(vcpu, IoApicRegisters.Low(pin), IoApicRegisters.High(pin))).Should().Be($"{Low(pin):x8} {High(pin):x8}");
        }

        IoApicState state = await vm.GetIoApicAsync();
        for (int pin = 0; pin < IoApicState.Pins; pin++)
        {
            state[pin].Bits.Should().Be(((ulong)High(pin) << 32) | Low(pin), "pin {0}", pin);
        }

        await WriteAsync(vcpu, IoApicRegisters.Low(5), 0x00010000);
        (await ReadAsync(vcpu, IoApicRegisters.Low(5), IoApicRegisters.High(5))).Should().Be($"00010000 {High(5):x8}");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-ioapic/register/read-only-bits")]
    public async Task WritesChangeNeitherRemoteIrrNorDeliveryStatus(bool set)
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        RedirectionEntry entry = RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true };
        await vm.SetRedirectionAsync([(3, entry with { RemoteIrr = set }), (4, entry with { DeliveryStatus = set })]);

        foreach (bool written in new[] { false, true })
        {
            RedirectionEntry value = entry with { RemoteIrr = written, DeliveryStatus = written };
            foreach (int pin in new[] { 3, 4 })
            {
                await vcpu.ExecuteAsync(IoApicRegisters.Write(pin, value));
            }

            (await vm.GetRedirectionAsync(3)).Should().Be(entry with { RemoteIrr = set });
            (await vm.GetRedirectionAsync(4)).Should().Be(entry with { DeliveryStatus = set });
        }
    }

    [Fact]
    [Clause("kvm-ioapic/register/edge-clears-remote-irr")]
    public async Task MakingAnEntryEdgeTriggeredClearsItsRemoteIrr()
    {
        await using Vm vm = await CreateAsync();
        RedirectionEntry entry = RedirectionEntry.LevelTriggered(Vectors.A) with { IsMasked = true, RemoteIrr = true };
        await vm.SetRedirectionAsync([(3, entry), (4, entry)]);

        await WriteAsync(vm.Vcpus[0], IoApicRegisters.Low(3), (entry with { Level = false }).Low);

        (await vm.GetRedirectionAsync(3)).Should().Be(entry with { Level = false, RemoteIrr = false });
        (await vm.GetRedirectionAsync(4)).Should().Be(entry);
    }

    [Fact]
    [Clause("kvm-ioapic/mmio/select-is-8-bits")]
    public async Task SelectKeepsEightBits()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];

        foreach ((ulong value, AccessWidth width, uint select) in new[]
        {
            (0xffffff01ul, AccessWidth.Dword, 0x01u),
            (0x1234ul, AccessWidth.Word, 0x34u),
            (0x82ul, AccessWidth.Byte, 0x82u),
            (0x11111111_22222256ul, AccessWidth.Qword, 0x56u),
        })
        {
            ScriptResults results = await vcpu.ExecuteAsync(
                GuestCommand.Store(IoApicRegisters.Select, 0), GuestCommand.Store(IoApicRegisters.Select, value, width), GuestCommand.Load(IoApicRegisters.Select));
            results[2].Value.Should().Be(select);
            (await vm.GetIoApicAsync()).Select.Should().Be(select);
        }
    }

    [Fact]
    [Clause("kvm-ioapic/mmio/read-width")]
    public async Task ReadGivesTheLowPartOfItsWidth()
    {
        await using Vm vm = await CreateAsync();
        IoApicState state = IoApicState.New();
        state[0] = new RedirectionEntry(0x11223344_8765a2f3);
        await vm.SetIoApicAsync(state);

        // What an access before it read must not show in the high half.
        await vm.Vcpus[0].ExecuteExitingAsync(ulong.MaxValue, GuestCommand.Load(Base - 8, AccessWidth.Qword));
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(
            GuestCommand.Store(IoApicRegisters.Select, 0x10),
            GuestCommand.Load(IoApicRegisters.Window, AccessWidth.Byte),
            GuestCommand.Load(IoApicRegisters.Window, AccessWidth.Word),
            GuestCommand.Load(IoApicRegisters.Window, AccessWidth.Dword),
            GuestCommand.Load(IoApicRegisters.Window, AccessWidth.Qword),
            GuestCommand.Load(IoApicRegisters.Select, AccessWidth.Byte),
            GuestCommand.Load(IoApicRegisters.Select, AccessWidth.Qword));

        results.Skip(1).Select(r => $"{r.Value:x}").Should().Equal("f3", "a2f3", "8765a2f3", "8765a2f3", "10", "10");
    }

    [Fact]
    [Clause("kvm-ioapic/mmio/write-width")]
    public async Task NarrowWritesAreZeroExtendedAndWideOnesLoseTheirHighHalf()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];

        foreach ((ulong value, AccessWidth width, string register) in new[]
        {
            (0x11223344_9876a5b4ul, AccessWidth.Qword, "9876a5b4"),
            (0x0000a3c2ul, AccessWidth.Word, "0000a3c2"),
            (0x000000e1ul, AccessWidth.Byte, "000000e1"),
        })
        {
            await WriteAsync(vcpu, 0x11, 0x77777777);
            await vcpu.ExecuteAsync(GuestCommand.Store(IoApicRegisters.Window, value, width));
            (await ReadAsync(vcpu, 0x11)).Should().Be(register);
        }
    }

    [Fact]
    [Clause("kvm-ioapic/mmio/select-and-window")]
    public async Task OtherOffsetsReadZeroAndIgnoreWrites()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        IoApicState state = IoApicState.New();
        state.Select = 0x10;
        state[0] = new RedirectionEntry(0x11223344_8765a2f3);
        await vm.SetIoApicAsync(state);
        uint[] offsets = [0x04, 0x08, 0x0c, 0x14, 0x20, 0x40, 0x80, 0xf0, 0xfc];

        ScriptResults results = await vcpu.ExecuteAsync([.. offsets.SelectMany(o => new[] { GuestCommand.Store(Base + o, 0xffffffff), GuestCommand.Load(Base + o) })]);

        results.Where((_, i) => i % 2 == 1).Select(r => r.Value).Should().AllBeEquivalentTo(0ul);
        (await vm.GetIoApicAsync()).ToString().Should().Be(state.ToString());
    }

    [Theory]
    [InlineData(IoApicState.DefaultBase, IoApicState.DefaultBase - 4, IoApicState.DefaultBase, IoApicState.DefaultBase + 0xfc, IoApicState.DefaultBase + 0x100)]
    [InlineData(IoApicState.DefaultBase + 0x80, IoApicState.DefaultBase + 0x7c, IoApicState.DefaultBase + 0x80, IoApicState.DefaultBase + 0xfc, IoApicState.DefaultBase + 0x100)]
    [InlineData(IoApicState.DefaultBase - 0x80, IoApicState.DefaultBase - 4, IoApicState.DefaultBase, IoApicState.DefaultBase + 0x7c, IoApicState.DefaultBase + 0x80)]
    [Clause("kvm-ioapic/mmio/range")]
    public async Task WhatIsNotItsOwnGoesToUserSpace(ulong baseAddress, ulong before, ulong first, ulong last, ulong after)
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        IoApicState state = IoApicState.New();
        state.BaseAddress = baseAddress;
        await vm.SetIoApicAsync(state);

        // Reads of its own are answered in the kernel: a script that exits would not come to its end.
        await vcpu.ExecuteAsync(GuestCommand.Load(first), GuestCommand.Load(last), GuestCommand.Store(last, 0));
        foreach (ulong outside in new[] { before, after })
        {
            await vcpu.StartAsync(new GuestScript { GuestCommand.Load(outside), GuestCommand.Store(outside, 0x1234) });
            GuestExit read = await vcpu.NextExitAsync();
            (read.Reason, read.Run.mmio_phys_addr, read.Run.mmio_is_write).Should().Be((KvmExit.KVM_EXIT_MMIO, outside, (byte)0));
            await vcpu.ResumeWithAsync(read, 0x55667788);
            GuestExit write = await vcpu.NextExitAsync();
            (write.Reason, write.Run.mmio_phys_addr, write.Run.mmio_is_write).Should().Be((KvmExit.KVM_EXIT_MMIO, outside, (byte)1));
            await vcpu.ResumeAsync();
            (await vcpu.FinishAsync())[0].Value.Should().Be(0x55667788);
        }
    }

    [Fact]
    [Clause("kvm-ioapic/mmio/odd-length")]
    public async Task PartOfAWriteThatBeginsBeforeItIsIgnored()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.ExecuteAsync(GuestCommand.Store(Base, IoApicRegisters.Version));

        // Three bytes of the four are in the I/O APIC's page, a length that no register takes.
        IReadOnlyList<string> exits = await vcpu.ExecuteExitingAsync(GuestCommand.Store(Base - 1, 0x44332211));

        exits.Should().Equal($"gpa 0x{Base - 1:x} write 1 0x11");
        (await vcpu.ExecuteAsync(GuestCommand.Load(Base)))[0].Value.Should().Be(IoApicRegisters.Version);
    }

    [Fact]
    [Clause("kvm-ioapic/reset/state")]
    public async Task NewOneHasEveryEntryMaskedAndNothingElse()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });

        (await vm.GetIoApicAsync()).ToString().Should().Be(IoApicState.New().ToString());
    }
}

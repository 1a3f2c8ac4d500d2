// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Writes that are collected in a ring instead of exiting.</summary>
public sealed class CoalescedMmioTests(KernelUnderTest kernel)
{
    private const ulong Gpa = 0xd0000000;
    private const ushort Port = 0x510;

    private async Task<(Vm Vm, CoalescedRing Ring)> CreateAsync()
    {
        await kernel.RequireAsync(KvmCap.CoalescedMmio, KvmCap.CoalescedPio);
        Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.None });
        return (vm, await CoalescedRing.OpenAsync(vm.Vcpus[0]));
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(0x80000000u)]
    [InlineData(uint.MaxValue)]
    [Clause("coalesced-mmio/zone/pio-field")]
    public async Task PioFieldIsABoolean(uint pio)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });

        (await vm.TryRegisterCoalescedAsync(Gpa, 8, pio)).Should().Be(Errno.EINVAL);
        (await vm.TryUnregisterCoalescedAsync(Gpa, 8, pio)).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("coalesced-mmio/zone/collects")]
    [Clause("coalesced-mmio/ring/order")]
    [Clause("coalesced-mmio/ring/where")]
    public async Task WritesAreCollectedInOrder()
    {
        (Vm vm, CoalescedRing ring) = await CreateAsync();
        await using Vm disposed = vm;
        await vm.RegisterCoalescedAsync(Gpa, 0x20);

        (await vm.Vcpus[0].ExecuteExitingAsync(
            GuestCommand.Store(Gpa, 0x11, AccessWidth.Byte),
            GuestCommand.Store(Gpa + 2, 0x2233, AccessWidth.Word),
            GuestCommand.Store(Gpa + 4, 0x44556677),
            GuestCommand.Store(Gpa + 8, 0x8899aabbccddeeff, AccessWidth.Qword),
            GuestCommand.Store(Gpa, 0x12, AccessWidth.Byte))).Should().BeEmpty();

        (await ring.ReadFirstAsync()).Should().Be(0);
        (await ring.ReadLastAsync()).Should().Be(5);
        (await ring.TakeAsync()).Should().Equal(
            new CoalescedWrite(Gpa, 1, 0x11, false),
            new CoalescedWrite(Gpa + 2, 2, 0x2233, false),
            new CoalescedWrite(Gpa + 4, 4, 0x44556677, false),
            new CoalescedWrite(Gpa + 8, 8, 0x8899aabbccddeeff, false),
            new CoalescedWrite(Gpa, 1, 0x12, false));
    }

    [Fact]
    [Clause("coalesced-mmio/zone/bounds")]
    [Clause("coalesced-mmio/zone/reads-exit")]
    public async Task OnlyWritesWithinTheZoneAreCollected()
    {
        (Vm vm, CoalescedRing ring) = await CreateAsync();
        await using Vm disposed = vm;
        await vm.RegisterCoalescedAsync(Gpa + 8, 8);
        Vcpu vcpu = vm.Vcpus[0];

        foreach ((ulong offset, AccessWidth width, bool within) in new[]
        {
            (4ul, AccessWidth.Dword, false), (4ul, AccessWidth.Qword, false), (7ul, AccessWidth.Byte, false), (7ul, AccessWidth.Word, false),
            (8ul, AccessWidth.Byte, true), (8ul, AccessWidth.Qword, true), (15ul, AccessWidth.Byte, true), (14ul, AccessWidth.Word, true),
            (12ul, AccessWidth.Dword, true), (15ul, AccessWidth.Word, false), (14ul, AccessWidth.Dword, false), (9ul, AccessWidth.Qword, false), (16ul, AccessWidth.Byte, false),
        })
        {
            (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa + offset, 1, width))).Should().HaveCount(within ? 0 : 1, "of {0} bytes at {1}", width, offset);
            (await ring.TakeAsync()).Should().HaveCount(within ? 1 : 0);
        }

        (await vcpu.ExecuteExitingAsync(GuestCommand.Load(Gpa + 8))).Should().Equal($"gpa 0x{Gpa + 8:x} read 4");
    }

    [Fact]
    [Clause("coalesced-mmio/zone/port")]
    public async Task PortWritesAreCollectedApartFromMemory()
    {
        (Vm vm, CoalescedRing ring) = await CreateAsync();
        await using Vm disposed = vm;
        await vm.RegisterCoalescedAsync(Port, 4, pio: true);
        Vcpu vcpu = vm.Vcpus[0];

        (await vcpu.ExecuteExitingAsync(GuestCommand.Out(Port, 0x5a), GuestCommand.Out(Port, 0x12345678, AccessWidth.Dword))).Should().BeEmpty();
        (await ring.TakeAsync()).Should().Equal(new CoalescedWrite(Port, 1, 0x5a, true), new CoalescedWrite(Port, 4, 0x12345678, true));

        (await vcpu.ExecuteExitingAsync(GuestCommand.Out(Port + 4, 1), GuestCommand.In(Port))).Should().HaveCount(2);
        await vm.RegisterCoalescedAsync(Gpa, 8);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Out(Port, 2))).Should().BeEmpty();
        (await ring.TakeAsync()).Should().Equal(new CoalescedWrite(Gpa, 4, 1, false), new CoalescedWrite(Port, 1, 2, true));
    }

    [Fact]
    [Clause("coalesced-mmio/zone/unregister")]
    [Clause("coalesced-mmio/zone/unregister-unknown")]
    public async Task UnregisteredZoneExits()
    {
        (Vm vm, CoalescedRing ring) = await CreateAsync();
        await using Vm disposed = vm;
        Vcpu vcpu = vm.Vcpus[0];
        await vm.RegisterCoalescedAsync(Gpa, 16);
        await vm.RegisterCoalescedAsync(Gpa, 32);
        await vm.RegisterCoalescedAsync(Gpa + 64, 8);
        await vm.RegisterCoalescedAsync(Port, 4, pio: true);

        (await vm.TryUnregisterCoalescedAsync(Gpa + 128, 8)).Should().Be(Errno.None);
        (await vm.TryUnregisterCoalescedAsync(Gpa, 64)).Should().Be(Errno.None, "no zone contains it");
        (await vm.TryUnregisterCoalescedAsync(Port, 4, pio: 0)).Should().Be(Errno.None, "the other bus");
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Store(Gpa + 64, 1), GuestCommand.Out(Port, 1))).Should().BeEmpty();

        (await vm.TryUnregisterCoalescedAsync(Gpa + 4, 4)).Should().Be(Errno.None);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Store(Gpa + 20, 1))).Should().HaveCount(2, "both zones contained it");
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa + 64, 1), GuestCommand.Out(Port, 1))).Should().BeEmpty();
        (await vm.TryUnregisterCoalescedAsync(Port, 4, pio: 1)).Should().Be(Errno.None);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Out(Port, 1))).Should().HaveCount(1);
        (await ring.TakeAsync()).Should().HaveCount(5);
    }

    [Fact]
    [Clause("coalesced-mmio/ring/full-exits")]
    [Clause("coalesced-mmio/ring/wraps")]
    public async Task WriteThatFindsTheRingFullExits()
    {
        (Vm vm, CoalescedRing ring) = await CreateAsync();
        await using Vm disposed = vm;
        Vcpu vcpu = vm.Vcpus[0];
        await vm.RegisterCoalescedAsync(Gpa, 4);
        uint capacity = CoalescedRing.Capacity;

        foreach (uint start in kernel.Has("coalesced-ring-fills") ? new[] { capacity - 1, 0u } : [capacity - 1])
        {
            await ring.SetAsync(start, start);
            await vcpu.ExecuteAsync(new GuestScript().Label("again").Add(GuestCommand.Store(Gpa, 0x77)).Repeat("again", capacity - 1));
            (await ring.ReadLastAsync()).Should().Be((start + capacity - 1) % capacity);
            (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 0x78))).Should().Equal($"gpa 0x{Gpa:x} write 4 0x78");
            (await ring.TakeAsync()).Should().HaveCount((int)capacity - 1).And.AllBeEquivalentTo(new CoalescedWrite(Gpa, 4, 0x77, false));

            (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 0x79), GuestCommand.Store(Gpa, 0x7a))).Should().BeEmpty();
            (await ring.ReadLastAsync()).Should().Be((start + 1) % capacity);
            (await ring.TakeAsync()).Should().Equal(new CoalescedWrite(Gpa, 4, 0x79, false), new CoalescedWrite(Gpa, 4, 0x7a, false));
        }
    }

    [Fact]
    [Clause("coalesced-mmio/ring/hostile-last")]
    public async Task PositionOutOfRangeMakesTheWriteExit()
    {
        (Vm vm, CoalescedRing ring) = await CreateAsync();
        await using Vm disposed = vm;
        Vcpu vcpu = vm.Vcpus[0];
        await vm.RegisterCoalescedAsync(Gpa, 4);

        foreach (uint last in new[] { CoalescedRing.Capacity, CoalescedRing.Capacity + 1, 0x10000u, 0x80000000u, uint.MaxValue })
        {
            await ring.SetAsync(0, last);
            (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1))).Should().HaveCount(1);
            (await ring.ReadLastAsync()).Should().Be(last);
        }

        await ring.SetAsync(CoalescedRing.Capacity - 1, CoalescedRing.Capacity - 1);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 0x31))).Should().BeEmpty();
        (await ring.ReadLastAsync()).Should().Be(0);
        (await ring.TakeAsync()).Should().Equal(new CoalescedWrite(Gpa, 4, 0x31, false));
    }
}

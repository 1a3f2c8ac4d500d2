// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.ArmRouting;

public sealed class SignalMsiTests(KernelUnderTest kernel)
{
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);

    [Fact]
    [Clause("arm-msi/devid-capability-needs-an-its")]
    public async Task DeviceIdCapabilityComesWithAnIts()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        (await vm.CheckExtensionAsync(KvmCap.MsiDevid)).Should().Be(0);
        await vm.CreateGicAsync();
        (await vm.CheckExtensionAsync(KvmCap.MsiDevid)).Should().Be(0);
        await vm.CreateItsAsync();
        (await vm.CheckExtensionAsync(KvmCap.MsiDevid)).Should().Be(1);
    }

    [Fact]
    [Clause("arm-msi/signal/returns-1-when-translated")]
    [Clause("arm-msi/device-and-event-select-the-lpi")]
    public async Task DeviceAndEventSelectTheLpi()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(3), new EventId(0), new Lpi(8192));
        await vm.Its.MapAsync(new DeviceId(3), new EventId(9), new Lpi(8193));
        await vm.Its.MapAsync(new DeviceId(7), new EventId(9), new Lpi(8209));
        foreach ((uint device, uint @event, uint lpi) in new[] { (3u, 9u, 8193u), (7u, 9u, 8209u), (3u, 0u, 8192u) })
        {
            // The first one looks it up, the second finds it in the translation cache.
            for (int n = 0; n < 2; n++)
            {
                (await vm.SignalMsiAsync(new DeviceId(device), new EventId(@event))).Should().Be(1);
                (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(lpi));
            }
        }
    }

    [Fact]
    [Clause("arm-msi/device-and-event-select-the-lpi")]
    public async Task CachedTranslationsAreToldApart()
    {
        // Event 0 of device 1, and of device 0 every event of one bit: run together too closely, one of them is the former.
        const int Bits = 16;
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(1), new EventId(0), new Lpi(8192));
        await vm.Its.IssueAsync(ItsCommand.MapDevice(new DeviceId(0), vm.Its.SecondLevel(13), Bits));
        for (int n = 0; n < Bits; n++)
        {
            var lpi = new Lpi((uint)(8193 + n));
            await vm.Gic.ConfigureAsync(lpi);
            await vm.Its.IssueAsync(ItsCommand.MapEvent(new DeviceId(0), new EventId(1u << n), lpi, new CollectionId(0)));
        }

        for (int round = 0; round < 2; round++)
        {
            (await vm.SignalMsiAsync(new DeviceId(1), new EventId(0))).Should().Be(1);
            for (int n = 0; n < Bits; n++)
            {
                (await vm.SignalMsiAsync(new DeviceId(0), new EventId(1u << n))).Should().Be(1);
            }

            (await vm.Vcpus[0].TakePendingAsync()).Should().BeEquivalentTo(Enumerable.Range(0, Bits + 1).Select(n => (IntId)new Lpi((uint)(8192 + n))));
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-msi/unmapped-returns-0")]
    public async Task UnmappedDeviceOrEventRaisesNothing(bool warm)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        if (warm)
        {
            await vm.SignalMsiAsync(s_device, s_event);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        }

        (await vm.SignalMsiAsync(new DeviceId(s_device.Value + 1), s_event)).Should().Be(0);
        (await vm.SignalMsiAsync(s_device, new EventId(s_event.Value + 1))).Should().Be(0);
        (await vm.SignalMsiAsync(new DeviceId(s_event.Value), new EventId(s_device.Value))).Should().Be(0);
        (await vm.SignalMsiAsync(new DeviceId(s_device.Value | 0x1_0000), s_event)).Should().Be(0);
        (await vm.SignalMsiAsync(s_device, new EventId(s_event.Value | 0x1_0000))).Should().Be(0);
        // When the two are run together, by adding or by or-ing, these are DeviceID 0x12 with its event.
        (await vm.SignalMsiAsync(new DeviceId(s_device.Value - 1), new EventId(s_event.Value | 0x1_0000))).Should().Be(0);
        (await vm.SignalMsiAsync(new DeviceId(s_device.Value & ~2u), new EventId(s_event.Value | 0x2_0000))).Should().Be(0);
        (await vm.SignalMsiAsync(new DeviceId(uint.MaxValue), new EventId(uint.MaxValue))).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-msi/signal/needs-a-device-id")]
    public async Task MessageWithoutADeviceIdIsRefused()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(0), s_event, s_lpi);
        IoctlAnswer answer = await vm.TrySignalMsiAsync(new MsiMessage(vm.Its.Doorbell, s_event.Value));
        answer.Error.Should().Be(Errno.EINVAL);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(0x8000_0001u)]
    [Clause("arm-msi/signal/unknown-flags")]
    public async Task UnknownFlagIsRefused(uint flags)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        MsiMessage message = vm.Its.Message(s_device, s_event);
        (await vm.TrySignalMsiAsync(new kvm_msi { address_lo = (uint)message.Address, data = message.Data, devid = s_device.Value, flags = flags }, "flags")).Error
            .Should().Be(Errno.EINVAL);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-msi/address-selects-the-its")]
    public async Task AddressMustBeTheDoorbellOfAnIts()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        foreach (ulong address in new[]
                 {
                     0ul, vm.Its.Address - 0x10000, vm.Its.Address + KVM_VGIC_V3_ITS_SIZE, Arm64Layout.Redistributors, Arm64Layout.Image,
                     vm.Its.Doorbell | (1ul << 32), vm.Its.Doorbell | (1ul << 63),
                 })
        {
            (await vm.TrySignalMsiAsync(new MsiMessage(address, s_event.Value) { DeviceId = s_device.Value })).Error.Should().Be(Errno.EINVAL, $"0x{address:x} is no ITS");
        }

        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
    }

    [Fact]
    [Clause("arm-msi/address-selects-the-its")]
    public async Task ItsAboveFourGigabytesIsReachedByTheUpperHalf()
    {
        const ulong High = 0x9_0804_0000;
        await using Vm vm = await kernel.CreateBlankItsVmAsync(itss: 0);
        Its its = await vm.CreateItsAsync();
        (await its.TrySetAddressAsync(High)).Should().Be(Errno.None);
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync();
        await its.ConfigureAsync();
        await its.MapAsync(s_device, s_event, s_lpi);
        (await vm.SignalMsiAsync(new MsiMessage(High + Gits.Translater, s_event.Value) { DeviceId = s_device.Value })).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.TrySignalMsiAsync(new MsiMessage((High + Gits.Translater) & uint.MaxValue, s_event.Value) { DeviceId = s_device.Value })).Error.Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-msi/signal/without-an-its")]
    public async Task MessageWithoutAnItsFindsNoDevice()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        (await vm.TrySignalMsiAsync(new MsiMessage(Arm64Layout.Its + Gits.Translater, 1) { DeviceId = 1 })).Error.Should().Be(Errno.ENODEV);
    }

    [Fact]
    [Clause("arm-msi/two-itss-have-their-own-mappings")]
    public async Task TwoItssTranslateEachForItself()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(itss: 2);
        await vm.Itss[0].MapAsync(s_device, s_event, new Lpi(8200));
        await vm.Itss[1].MapAsync(s_device, s_event, new Lpi(8300));
        for (int n = 0; n < 2; n++)
        {
            (await vm.SignalMsiAsync(s_device, s_event, vm.Itss[1])).Should().Be(1);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8300));
            (await vm.SignalMsiAsync(s_device, s_event, vm.Itss[0])).Should().Be(1);
            (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8200));
        }
    }

    [Fact]
    [Clause("arm-msi/disabled-its")]
    public async Task DisabledItsIsBusy()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.SignalMsiAsync(s_device, s_event);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        (await vm.TrySignalMsiAsync(vm.Its.Message(s_device, s_event))).Error.Should().Be(Errno.EBUSY, "also a translation that was cached is gone");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "mappings outlive being disabled");
    }

    [Fact]
    [Clause("arm-msi/lpis-disabled-on-the-target")]
    public async Task VcpuWithoutLpisIsBusy()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync(vcpus: 2);
        await vm.Gic.EnableDistributorAsync();
        await vm.Gic.SetLpiTablesAsync(enable: false);
        await vm.Its.ConfigureAsync();
        await vm.Gic.WriteRedistributorAsync(0, Gicr.Ctlr, Gicr.CtlrEnableLpis);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        (await vm.TrySignalMsiAsync(vm.Its.Message(s_device, s_event))).Error.Should().Be(Errno.EBUSY);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.Gic.WriteRedistributorAsync(1, Gicr.Ctlr, Gicr.CtlrEnableLpis);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(2u)]
    [Clause("arm-msi/collection-selects-the-vcpu")]
    public async Task CollectionSelectsTheVcpu(uint target)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 3);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, target);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            (await vcpu.TakePendingAsync()).Should().Equal(vcpu.Id == target ? [s_lpi] : Array.Empty<IntId>(), $"{vcpu}");
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task MessageWakesAHaltedVcpu(bool cached)
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.MapAsync(s_device, s_event, s_lpi, vcpuId: 1);
        uint times = 1;
        if (cached)
        {
            await vm.SignalMsiAsync(s_device, s_event);
            (await vm.Vcpus[1].TakePendingAsync()).Should().Equal(s_lpi);
            times++;
        }

        await vm.Vcpus[1].HaltUntilTakenAsync(s_lpi, times);
        (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-vgic/inject/interrupts-a-running-vcpu")]
    public async Task MessagesInterruptARunningVcpu()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Vcpus[0].SpinUntilTakenAsync(s_lpi, times: 3);
        for (uint n = 1; n <= 3; n++)
        {
            await vm.SignalMsiAsync(s_device, s_event);
            await vm.AwaitMemoryAsync(vm.Vcpus[0].TakenAddress(s_lpi), n);
        }

        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_lpi, s_lpi, s_lpi);
    }

    [Fact]
    [Clause("arm-msi/coalesce")]
    public async Task MessagesCoalesceUntilTaken()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        for (int n = 0; n < 3; n++)
        {
            (await vm.SignalMsiAsync(s_device, s_event)).Should().Be(1);
        }

        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-msi/guest-store-to-the-doorbell")]
    public async Task GuestsOwnStoreToTheDoorbellIsIgnored()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        // A processor's write has no DeviceID; device 0 is what an emulation might take it for.
        await vm.Its.MapAsync(new DeviceId(0), s_event, s_lpi);
        (await vm.Vcpus[0].TakePendingAsync(GuestCommand.Store(vm.Its.Doorbell, s_event.Value))).Should().BeEmpty();
        (await vm.SignalMsiAsync(new DeviceId(0), s_event)).Should().Be(1);
    }

    [Fact]
    [Clause("arm-msi/more-lpis-than-list-registers")]
    public async Task EveryLpiOfManyIsTakenOnce()
    {
        const int Count = 24;
        await using Vm vm = await kernel.CreateItsVmAsync();
        for (uint n = 0; n < Count; n++)
        {
            await vm.Its.MapAsync(s_device, new EventId(n), new Lpi(8192 + n), priority: (byte)(0xa0 - (4 * n)));
        }

        for (uint n = 0; n < Count; n++)
        {
            (await vm.SignalMsiAsync(s_device, new EventId(n))).Should().Be(1);
        }

        // The last mapped has the highest priority. KVM has five bits of priority, so pairs share one and may come in either order.
        IntId[] taken = await vm.Vcpus[0].TakePendingAsync();
        taken.Should().BeEquivalentTo(Enumerable.Range(0, Count).Select(n => (IntId)new Lpi((uint)(8192 + n))));
        taken.Should().OnlyHaveUniqueItems();
    }
}

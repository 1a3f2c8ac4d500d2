// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.ArmRouting;

public sealed class ItsRegisterTests(KernelUnderTest kernel)
{
    private const ulong Size64K = 2ul << 8;
    private const ulong Entry8 = 7ul << 48;
    private const ulong TypeDevices = 1ul << 56;
    private const ulong TypeCollections = 4ul << 56;
    private const ulong InnerShareable = 1ul << 10;

    // Inner cacheability in bits 61:59.
    private const ulong ReadAllocateWriteBack = 3ul << 59;

    [Fact]
    [Clause("arm-its/reset-values")]
    public async Task RegistersHaveTheirResetValues()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (uint Offset, AccessWidth Width, ulong Value)[] expected =
        [
            (Gits.Ctlr, AccessWidth.Dword, Gits.CtlrQuiescent), (Gits.Iidr, AccessWidth.Dword, 0x4b00_043b), (Gits.Typer, AccessWidth.Qword, 0x1e_ff71ul & 0xffff_ffff),
            (Gits.Cbaser, AccessWidth.Qword, 0), (Gits.Cwriter, AccessWidth.Qword, 0), (Gits.Creadr, AccessWidth.Qword, 0),
            (Gits.BaserDevices, AccessWidth.Qword, Size64K | Entry8 | TypeDevices | InnerShareable | ReadAllocateWriteBack),
            (Gits.BaserCollections, AccessWidth.Qword, Size64K | Entry8 | TypeCollections | InnerShareable | ReadAllocateWriteBack),
            (Gits.Baser + 16, AccessWidth.Qword, 0), (Gits.Baser + 56, AccessWidth.Qword, 0),
            (Gits.Pidr0, AccessWidth.Dword, 0x92), (Gits.Pidr1, AccessWidth.Dword, 0xb4), (Gits.Pidr2, AccessWidth.Dword, 0x3b), (Gits.Pidr4, AccessWidth.Dword, 0x40),
            (Gits.Cidr0, AccessWidth.Dword, 0x0d), (Gits.Cidr0 + 4, AccessWidth.Dword, 0xf0), (Gits.Cidr0 + 8, AccessWidth.Dword, 0x05), (Gits.Cidr0 + 12, AccessWidth.Dword, 0xb1),
            (Gits.Pidr2 + 4, AccessWidth.Dword, 0), (0x0040, AccessWidth.Dword, 0),
        ];
        var script = new GuestScript();
        foreach ((uint offset, AccessWidth width, ulong _) in expected)
        {
            script.Add(GuestCommand.Load(vm.Its.Address + offset, width));
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        // Physical LPIs; 8-byte entries; 16 bits of EventID and of DeviceID; targets are processor numbers.
        expected[2].Value = 1 | (7ul << 4) | (15ul << 8) | (15ul << 13);
        results.Select((r, n) => (expected[n].Offset, r.Value)).Should().Equal(expected.Select(e => (e.Offset, e.Value)));
    }

    [Fact]
    [Clause("arm-its/halves")]
    public async Task GuestReadsAndWritesHalves()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        ulong at = vm.Its.Address;
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(GuestCommand.Load(at + Gits.Typer)).Add(GuestCommand.Load(at + Gits.Typer + 4))
            .Add(GuestCommand.Store(at + Gits.Cbaser, 0x4180_040f)).Add(GuestCommand.Store(at + Gits.Cbaser + 4, 0x9800_0001))
            .Add(GuestCommand.Load(at + Gits.Cbaser, AccessWidth.Qword))
            .Add(GuestCommand.Load(at + Gits.Cbaser)).Add(GuestCommand.Load(at + Gits.Cbaser + 4))
            .Add(GuestCommand.Store(at + Gits.BaserCollections + 4, 0x9800_0002)).Add(GuestCommand.Store(at + Gits.BaserCollections, 0x4181_0400))
            .Add(GuestCommand.Load(at + Gits.BaserCollections, AccessWidth.Qword)).Add(GuestCommand.Load(at + Gits.BaserCollections + 4)));
        new[] { results[0], results[1], results[4], results[5], results[6], results[9], results[10] }.Select(r => r.Value).Should().Equal(
            0x1_ef71ul, 0ul, 0x9800_0001_4180_040ful, 0x4180_040ful, 0x9800_0001ul, 0x9c07_0002_4181_0600ul, 0x9c07_0002ul);
    }

    public static TheoryData<uint, ulong, ulong> BaseRegisters() => new()
    {
        { Gits.BaserDevices, Gits.Valid | 0x4180_0000, Gits.Valid | 0x4180_0000 | Size64K | Entry8 | TypeDevices | ReadAllocateWriteBack },
        { Gits.BaserDevices, Gits.Valid | Gits.BaserIndirect | 0x4180_0000 | (2ul << 10) | 3, Gits.Valid | Gits.BaserIndirect | 0x4180_0000 | InnerShareable | 3 | Size64K | Entry8 | TypeDevices | ReadAllocateWriteBack },
        { Gits.BaserCollections, Gits.Valid | Gits.BaserIndirect | 0x4180_0000, Gits.Valid | 0x4180_0000 | Size64K | Entry8 | TypeCollections | ReadAllocateWriteBack },
        { Gits.BaserDevices, (7ul << 56) | (0x1ful << 48) | (5ul << 59), Size64K | Entry8 | TypeDevices | (5ul << 59) },
        { Gits.BaserDevices, (7ul << 59) | (1ul << 53), Size64K | Entry8 | TypeDevices | (7ul << 59) | (1ul << 53) },
        { Gits.BaserDevices, (7ul << 59) | (6ul << 53), Size64K | Entry8 | TypeDevices | (7ul << 59) },
        { Gits.Baser + 16, ulong.MaxValue, 0 },
        { Gits.Cbaser, Gits.Valid | 0x4180_f000 | 0xff | (2ul << 10), Gits.Valid | 0x4180_0000 | 0xff | InnerShareable | ReadAllocateWriteBack },
        { Gits.Cbaser, (5ul << 59) | (6ul << 53), 5ul << 59 },
    };

    [Theory]
    [MemberData(nameof(BaseRegisters))]
    [Clause("arm-its/base-registers-are-sanitised")]
    public async Task BaseRegistersAreSanitised(uint offset, ulong written, ulong expected)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Its.WriteAsync(offset, written);
        (await vm.Its.ReadAsync(offset)).Should().Be(expected);
    }

    [Theory]
    [InlineData(Gits.BaserDevices)]
    [InlineData(Gits.BaserCollections)]
    [InlineData(Gits.Cbaser)]
    [Clause("arm-its/base-registers-fixed-while-enabled")]
    public async Task BaseRegistersAreFixedWhileEnabled(uint offset)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        ulong before = await vm.Its.ReadAsync(offset);
        await vm.Its.WriteAsync(offset, Gits.Valid | 0x41a0_0000);
        (await vm.Its.ReadAsync(offset)).Should().Be(before);
    }

    [Theory]
    [InlineData(Gits.BaserDevices, false)]
    [InlineData(Gits.BaserCollections, false)]
    [InlineData(Gits.Cbaser, false)]
    [InlineData(0u, true)]
    [Clause("arm-its/ctlr/needs-tables")]
    public async Task ItsIsNotEnabledWithoutItsTables(uint without, bool enabled)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Its.ConfigureAsync(enable: false);
        if (!enabled)
        {
            await vm.Its.WriteAsync(without, await vm.Its.ReadAsync(without) & ~Gits.Valid);
        }

        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        ((await vm.Its.ReadAsync(Gits.Ctlr)) & 1).Should().Be(enabled ? 1ul : 0);
    }

    [Theory]
    [InlineData(Gits.BaserDevices, true)]
    [InlineData(Gits.BaserCollections, true)]
    [InlineData(Gits.BaserDevices, false)]
    [InlineData(Gits.BaserCollections, false)]
    [Clause("arm-its/baser/change-forgets")]
    [Clause("arm-its/baser/same-value-keeps")]
    public async Task NewTableForgetsWhatWasMapped(uint offset, bool changed)
    {
        if (changed)
        {
            kernel.RequireChange("its-baser-change-forgets");
        }

        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(0x12), new EventId(5), new Lpi(8200));
        (await vm.SignalMsiAsync(new DeviceId(0x12), new EventId(5))).Should().Be(1);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        ulong value = await vm.Its.ReadAsync(offset);
        // One page more is a change; the value as it is read is none.
        await vm.Its.WriteAsync(offset, changed ? value + 1 : value);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.SignalMsiAsync(new DeviceId(0x12), new EventId(5))).Should().Be(changed ? 0 : 1);
    }

    [Theory]
    [InlineData(Gits.BaserDevices)]
    [InlineData(Gits.BaserCollections)]
    [Clause("arm-its/baser/change-forgets")]
    public async Task TableThatWasTakenAwayForgetsWhatWasMapped(uint offset)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(0x12), new EventId(5), new Lpi(8200));
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        ulong value = await vm.Its.ReadAsync(offset);
        await vm.Its.WriteAsync(offset, value & ~Gits.Valid);
        await vm.Its.WriteAsync(offset, value);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.SignalMsiAsync(new DeviceId(0x12), new EventId(5))).Should().Be(0);
    }

    [Fact]
    [Clause("arm-its/read-only")]
    public async Task GuestCannotWriteIdentification()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        var script = new GuestScript();
        foreach (uint offset in new[] { Gits.Iidr, Gits.Typer, Gits.Pidr2, Gits.Cidr0 })
        {
            script.Add(GuestCommand.Load(vm.Its.Address + offset)).Add(GuestCommand.Store(vm.Its.Address + offset, 0x5a5a_5a5a)).Add(GuestCommand.Load(vm.Its.Address + offset));
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        results.Where(r => r.Index % 3 == 2).Select(r => r.Value).Should().Equal(results.Where(r => r.Index % 3 == 0).Select(r => r.Value));
    }

    [Fact]
    [Clause("arm-its/iidr")]
    public async Task UserSpaceChoosesAKnownTableRevision()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        ulong iidr = await vm.Its.ReadAsync(Gits.Iidr);
        (await vm.Its.TryWriteAsync(Gits.Iidr, iidr)).Should().Be(Errno.None);
        (await vm.Its.TryWriteAsync(Gits.Iidr, (iidr & ~0xf000ul) | 0x1000)).Should().Be(Errno.EINVAL);
        (await vm.Its.TryWriteAsync(Gits.Iidr, (iidr & ~0xf000ul) | 0xf000)).Should().Be(Errno.EINVAL);
        (await vm.Its.ReadAsync(Gits.Iidr)).Should().Be(iidr);
    }

    [Theory]
    [InlineData(0x02u, Errno.EINVAL, Errno.EINVAL)]
    [InlineData(Gits.Typer + 4, Errno.EINVAL, Errno.EINVAL)]
    [InlineData(Gits.Cbaser + 4, Errno.EINVAL, Errno.EINVAL)]
    [InlineData(Gits.Pidr4 + 2, Errno.EINVAL, Errno.EINVAL)]
    [InlineData(Gits.Pidr4 + 4, Errno.None, Errno.None)]
    [InlineData(Gits.Pidr2, Errno.None, Errno.None)]
    [InlineData(Gits.Iidr, Errno.None, Errno.None)]
    [InlineData(0x0040u, Errno.ENXIO, Errno.ENXIO)]
    [InlineData(0x0098u, Errno.ENXIO, Errno.ENXIO)]
    [InlineData(0x0138u, Errno.None, Errno.None)]
    [InlineData(0x0140u, Errno.ENXIO, Errno.ENXIO)]
    [InlineData(Gits.Translater, Errno.ENXIO, Errno.ENXIO)]
    [Clause("arm-its/attribute/registers")]
    public async Task RegisterAttributesAreAlignedAndKnown(uint offset, Errno has, Errno read)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Its.TryHasAsync(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset)).Should().Be(has);
        (await vm.Its.TryReadAsync(offset)).Error.Should().Be(read);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_ITS_ADDR_TYPE, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_DIST, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_VGIC_CTRL_INIT, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_ITS_CTRL_RESET, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_ITS_SAVE_TABLES, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_ITS_RESTORE_TABLES, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0ul, Errno.ENXIO)]
    [InlineData(99u, 0ul, Errno.ENXIO)]
    [Clause("arm-its/attribute/has")]
    public async Task HasAttributeKnowsWhatThereIs(uint group, ulong attribute, Errno expected)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Its.TryHasAsync(group, attribute)).Should().Be(expected);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0ul, Errno.ENXIO)]
    [InlineData(99u, 0ul, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_DIST, Errno.ENODEV)]
    [Clause("arm-its/attribute/unknown")]
    public async Task UnknownAttributeIsRefused(uint group, ulong attribute, Errno expected)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Its.TrySetUInt64Async(group, attribute, 0, "unknown")).Should().Be(expected);
        (await vm.Its.TryGetAsync(group, attribute, 8, "unknown")).Error.Should().Be(expected);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)]
    [InlineData(99u)]
    [Clause("arm-its/attribute/unknown-control")]
    public async Task UnknownControlHasNoEffect(uint control)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(0x12), new EventId(5), new Lpi(8200));
        (await vm.Its.TryControlAsync(control)).Should().BeOneOf(kernel.Has("its-ctrl-unknown") ? [Errno.ENXIO] : [Errno.None, Errno.ENXIO]);
        (await vm.SignalMsiAsync(new DeviceId(0x12), new EventId(5))).Should().Be(1);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_ITS_ADDR_TYPE)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, (ulong)Gits.Cbaser)]
    [Clause("arm-its/attribute/bad-pointer")]
    public async Task BadPointerIsAFault(uint group, ulong attribute)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Its.TrySetAtAsync(group, attribute, 0x10, "bad pointer")).Should().Be(Errno.EFAULT);
        (await vm.Its.TryGetAtAsync(group, attribute, 0x10, "bad pointer")).Should().Be(Errno.EFAULT);
    }

    [Theory]
    [InlineData(0x0804_1000ul, Errno.EINVAL)]
    [InlineData(0x0804_8000ul, Errno.EINVAL)]
    [InlineData((1ul << 40) - 0x2_0000, Errno.None)]
    [InlineData((1ul << 40) - 0x1_0000, Errno.E2BIG)]
    [InlineData(1ul << 40, Errno.E2BIG)]
    [InlineData(0xffff_ffff_ffff_0000ul, Errno.EINVAL)]
    [Clause("arm-its/address/range")]
    public async Task AddressIsChecked(ulong address, Errno expected)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        Its its = await vm.CreateItsAsync();
        (await its.TryGetAddressAsync()).Should().Be((Errno.None, ulong.MaxValue));
        (await its.TrySetAddressAsync(address)).Should().Be(expected);
        (await its.TryGetAddressAsync()).Value.Should().Be(expected == Errno.None ? address : ulong.MaxValue);
    }

    [Fact]
    [Clause("arm-its/address/once")]
    public async Task AddressIsSetOnce()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        (await vm.Its.TrySetAddressAsync(vm.Its.Address + 0x10_0000)).Should().Be(Errno.EEXIST);
        (await vm.Its.TryGetAddressAsync()).Value.Should().Be(vm.Its.Address);
    }

    [Fact]
    [Clause("arm-its/address/registers-need-it")]
    public async Task RegistersNeedTheAddress()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        Its its = await vm.CreateItsAsync();
        (await its.TryReadAsync(Gits.Ctlr)).Error.Should().Be(Errno.ENXIO);
        (await its.TryWriteAsync(Gits.Cbaser, 0)).Should().Be(Errno.ENXIO);
    }

    [Fact]
    [Clause("arm-its/attribute/busy-while-a-vcpu-runs")]
    public async Task AttributesAreBusyWhileAVcpuRuns()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(new Spi(40), vcpuId: 1);
        await vm.Vcpus[1].HaltUntilTakenAsync(new Spi(40));
        (await vm.Its.TryReadAsync(Gits.Ctlr)).Error.Should().Be(Errno.EBUSY);
        (await vm.Its.TryWriteAsync(Gits.Ctlr, 0)).Should().Be(Errno.EBUSY);
        (await vm.Its.TryResetAsync()).Should().Be(Errno.EBUSY);
        (await vm.Its.TrySaveTablesAsync()).Should().Be(Errno.EBUSY);
        (await vm.Its.TryRestoreTablesAsync()).Should().Be(Errno.EBUSY);
        await vm.PulseAsync(new Spi(40));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Its.ReadAsync(Gits.Ctlr)).Should().Be(Gits.CtlrEnable | Gits.CtlrQuiescent);
    }

    [Fact]
    [Clause("arm-its/attribute/init-while-a-vcpu-runs")]
    public async Task InitialisingIsAcceptedWhileAVcpuRuns()
    {
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(new Spi(40), vcpuId: 1);
        await vm.Vcpus[1].HaltUntilTakenAsync(new Spi(40));
        (await vm.Its.TryInitialiseAsync()).Should().Be(Errno.None);
        await vm.PulseAsync(new Spi(40));
        await vm.Vcpus[1].FinishAsync();
    }

    [Fact]
    [Clause("arm-its/reset/forgets-everything")]
    public async Task ResetForgetsEverything()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(0x12), new EventId(5), new Lpi(8200));
        (await vm.SignalMsiAsync(new DeviceId(0x12), new EventId(5))).Should().Be(1);
        ulong devices = await vm.Its.ReadAsync(Gits.BaserDevices), collections = await vm.Its.ReadAsync(Gits.BaserCollections);
        await vm.Its.ResetAsync();
        (await vm.Its.ReadAsync(Gits.Ctlr)).Should().Be(Gits.CtlrQuiescent);
        (await vm.Its.ReadAsync(Gits.Cbaser)).Should().Be(0);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(0);
        (await vm.Its.ReadAsync(Gits.Cwriter)).Should().Be(0);
        (await vm.Its.ReadAsync(Gits.BaserDevices)).Should().Be(devices & ~Gits.Valid);
        (await vm.Its.ReadAsync(Gits.BaserCollections)).Should().Be(collections & ~Gits.Valid);
        (await vm.Its.TryControlAsync(KVM_DEV_ARM_VGIC_CTRL_INIT)).Should().Be(Errno.None);
        (await vm.TrySignalMsiAsync(vm.Its.Message(new DeviceId(0x12), new EventId(5)))).Error.Should().Be(Errno.EBUSY);
        await vm.Its.ConfigureAsync();
        (await vm.SignalMsiAsync(new DeviceId(0x12), new EventId(5))).Should().Be(0);
    }

    [Fact]
    [Clause("arm-its/reset/forgets-everything")]
    public async Task ResetForgetsCollections()
    {
        var device = new DeviceId(0x12);
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(device, new EventId(5), new Lpi(8200));
        await vm.Its.ResetAsync();
        await vm.Its.ConfigureAsync();
        await vm.Its.IssueAsync(vm.Its.MapDevice(device), ItsCommand.MapEvent(device, new EventId(5), new Lpi(8200), new CollectionId(0)));
        (await vm.SignalMsiAsync(device, new EventId(5))).Should().Be(0, "the collection has no vCPU");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.Its.IssueAsync(ItsCommand.MapCollection(new CollectionId(0), 0));
        (await vm.SignalMsiAsync(device, new EventId(5))).Should().Be(1);
    }
}

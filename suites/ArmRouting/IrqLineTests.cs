// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.ArmRouting;

public sealed class IrqLineTests(KernelUnderTest kernel)
{
    private static readonly Spi s_spi = new(40);
    private static readonly Ppi s_ppi = new(20);

    [Fact]
    [Clause("arm-irq-line/spi/number-is-the-intid")]
    public async Task SpiLineRaisesTheInterruptOfThatNumber()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        foreach (uint intid in new uint[] { 32, 40, 72, 255 })
        {
            await vm.Gic.EnableAsync(new Spi(intid));
        }

        await vm.PulseAsync(new Spi(72));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(72));
        await vm.PulseAsync(new Spi(32));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(32));
        await vm.PulseAsync(new Spi(255));
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Spi(255));
    }

    [Theory]
    [InlineData(31u, Errno.EINVAL)]
    [InlineData(0u, Errno.EINVAL)]
    [InlineData(32u, Errno.None)]
    [InlineData(95u, Errno.None)]
    [InlineData(96u, Errno.EINVAL)]
    [InlineData(1019u, Errno.EINVAL)]
    [InlineData(1020u, Errno.EINVAL)]
    [InlineData(1023u, Errno.EINVAL)]
    [InlineData(1024u, Errno.EINVAL)]
    [InlineData(5120u, Errno.EINVAL)]
    [InlineData(8192u, Errno.EINVAL)]
    [InlineData(0xffffu, Errno.EINVAL)]
    [Clause("arm-irq-line/spi/range")]
    public async Task SpiNumberIsBounded(uint number, Errno expected)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(irqs: 96);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(KVM_ARM_IRQ_TYPE_SPI, 0, number), true)).Should().Be(expected);
    }

    [Fact]
    [Clause("arm-irq-line/spi/range")]
    public async Task LpiThatIsNotMappedHasNoLine()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(new DeviceId(1), new EventId(2), new Lpi(8195));
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(KVM_ARM_IRQ_TYPE_SPI, 0, 8196), true)).Should().Be(Errno.EINVAL);
    }

    [Theory]
    [InlineData(15u, Errno.EINVAL)]
    [InlineData(16u, Errno.None)]
    [InlineData(20u, Errno.None)]
    [InlineData(31u, Errno.None)]
    [InlineData(32u, Errno.EINVAL)]
    [InlineData(0u, Errno.EINVAL)]
    [Clause("arm-irq-line/ppi/range")]
    public async Task PpiNumberIsBounded(uint number, Errno expected)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(KVM_ARM_IRQ_TYPE_PPI, 0, number), true)).Should().Be(expected);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(2u)]
    [Clause("arm-irq-line/ppi/vcpu")]
    public async Task PpiReachesItsVcpuOnly(uint target)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 3);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vm.Gic.EnableAsync(s_ppi, vcpu.Id);
        }

        await vm.IrqLineAsync(s_ppi, target, true);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            uint lines = await vm.Gic.ReadLinesAsync(0, vcpu.Id);
            lines.Should().Be(vcpu.Id == target ? 1u << (int)s_ppi.Value : 0, $"the line of {vcpu}");
        }

        await vm.IrqLineAsync(s_ppi, target, true);
        foreach (Vcpu vcpu in vm.Vcpus.Where(v => v.Id != target))
        {
            (await vcpu.TakePendingAsync()).Should().BeEmpty();
        }

        // A level: it is taken as long as it is high, so the handler masks it by returning with interrupts off.
        await vm.Vcpus[(int)target].SetHandlerAsync(s_ppi, HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[(int)target].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1)));
        (await vm.Vcpus[(int)target].TakenAsync()).Should().Equal(s_ppi);
    }

    [Fact]
    [Clause("arm-irq-line/ppi/vcpu")]
    public async Task PpiOfAVcpuThatIsNotThereIsRefused()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(s_ppi, 1), true)).Should().Be(Errno.None);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(s_ppi, 2), true)).Should().Be(Errno.EINVAL);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(s_ppi, 256), true)).Should().Be(Errno.EINVAL);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(s_ppi, 257), true)).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-irq-line/ppi/vcpu2-field")]
    public async Task VcpuAboveTwoFiftyFiveIsReachedByTheSecondField()
    {
        await kernel.RequireAsync(KvmCap.ArmIrqLineLayout2);
        kernel.RequireChange("arm-vcpu-by-id");
        // The id is what the fields name; three vCPUs are enough to tell 1, 257 and 511 apart.
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 3, VcpuIds = [1, 257, 511] });
        await vm.IrqLineAsync(s_ppi, 257, true);
        (await vm.Gic.ReadLinesAsync(0, 1)).Should().Be(0);
        (await vm.Gic.ReadLinesAsync(0, 257)).Should().Be(1u << (int)s_ppi.Value);
        (await vm.Gic.ReadLinesAsync(0, 511)).Should().Be(0);

        await vm.IrqLineAsync(s_ppi, 511, true);
        await vm.IrqLineAsync(s_ppi, 257, false);
        (await vm.Gic.ReadLinesAsync(0, 257)).Should().Be(0);
        (await vm.Gic.ReadLinesAsync(0, 511)).Should().Be(1u << (int)s_ppi.Value);
        (await vm.Gic.ReadLinesAsync(0, 1)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-irq-line/spi/vcpu-is-ignored")]
    public async Task VcpuOfAnSpiIsIgnored()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(KVM_ARM_IRQ_TYPE_SPI, 0xabc, s_spi.Value), true)).Should().Be(Errno.None);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Theory]
    [InlineData(KVM_ARM_IRQ_TYPE_CPU, Errno.ENXIO)]
    [InlineData(3u, Errno.EINVAL)]
    [InlineData(7u, Errno.EINVAL)]
    [InlineData(15u, Errno.EINVAL)]
    [Clause("arm-irq-line/type/with-a-gic")]
    public async Task OtherTypesAreRefusedWithAGic(uint type, Errno expected)
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(type, 0, 0), true)).Should().Be(expected);
    }

    [Theory]
    [InlineData(KVM_ARM_IRQ_TYPE_SPI, 0u, 40u, Errno.ENXIO)]
    [InlineData(KVM_ARM_IRQ_TYPE_PPI, 0u, 20u, Errno.ENXIO)]
    [InlineData(KVM_ARM_IRQ_TYPE_CPU, 0u, 0u, Errno.None)]
    [InlineData(KVM_ARM_IRQ_TYPE_CPU, 0u, 1u, Errno.None)]
    [InlineData(KVM_ARM_IRQ_TYPE_CPU, 0u, 2u, Errno.EINVAL)]
    [InlineData(KVM_ARM_IRQ_TYPE_CPU, 1u, 0u, Errno.EINVAL)]
    [Clause("arm-irq-line/type/without-a-gic")]
    public async Task WithoutAGicThereIsOnlyTheCpuLine(uint type, uint vcpu, uint number, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(type, vcpu, number), true)).Should().Be(expected);
    }

    [Theory]
    [InlineData(KVM_ARM_IRQ_TYPE_SPI, 40u)]
    [InlineData(KVM_ARM_IRQ_TYPE_PPI, 20u)]
    [Clause("arm-irq-line/needs-init")]
    public async Task LineBeforeInitIsBusy(uint type, uint number)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        await vm.CreateGicAsync();
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(type, 0, number), true)).Should().Be(Errno.EBUSY);
    }

    [Fact]
    [Clause("arm-irq-line/edge/rising-latches")]
    public async Task EdgeInterruptIsLatchedOncePerRise()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.IrqLineAsync(s_spi, false);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("a fall is no edge");
        await vm.IrqLineAsync(s_spi, true);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
        await vm.IrqLineAsync(s_spi, true);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_spi], "each call with level 1 is an edge");
        await vm.PulseAsync(s_spi);
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_spi], "edges coalesce until taken");
    }

    [Fact]
    [Clause("arm-irq-line/level/follows-the-line")]
    public async Task LevelInterruptIsPendingWhileTheLineIsHigh()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi, edge: false);
        await vm.IrqLineAsync(s_spi, true);
        await vm.IrqLineAsync(s_spi, false);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty("the line fell before anyone looked");

        await vm.IrqLineAsync(s_spi, true);
        await vm.Vcpus[0].SetHandlerAsync(s_spi, HandlerPolicy.Default with { ReturnMasked = true });
        GuestScript once = new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.InterruptsOn).Add(GuestCommand.Pause(1));
        await vm.Vcpus[0].ExecuteAsync(once);
        await vm.Vcpus[0].ExecuteAsync(once);
        (await vm.Vcpus[0].TakenAsync()).Should().Equal([s_spi, s_spi], "it is taken again while the line is high");

        await vm.IrqLineAsync(s_spi, false);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-irq-line/routes-do-not-matter")]
    public async Task RoutesDoNotMatterToTheLine()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.Gic.EnableAsync(new Spi(50));
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(s_spi.Value, 0, new Spi(50).Pin), GsiRoute.Irqchip(s_spi.Pin, 0, new Spi(50).Pin));
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
        await vm.SetGsiRoutingAsync();
        await vm.PulseAsync(s_spi);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_spi);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task LineWakesAHaltedVcpu(bool edge)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_spi, edge, vcpuId: 1);
        await vm.Vcpus[1].SetHandlerAsync(s_spi, HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[1].HaltUntilTakenAsync(s_spi);
        await vm.IrqLineAsync(s_spi, true);
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_spi);
    }

    [Fact]
    [Clause("arm-vgic/inject/interrupts-a-running-vcpu")]
    public async Task LineInterruptsARunningVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(s_spi);
        await vm.Vcpus[0].SpinUntilTakenAsync(s_spi, times: 3);
        await vm.PulseAsync(s_spi);
        await AwaitTakenAsync(vm, 1);
        await vm.PulseAsync(s_spi);
        await AwaitTakenAsync(vm, 2);
        await vm.PulseAsync(s_spi);
        await vm.Vcpus[0].FinishAsync();
        (await vm.Vcpus[0].TakenAsync()).Should().Equal(s_spi, s_spi, s_spi);
    }

    [Fact]
    [Clause("arm-irq-line/ppi/vcpu")]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task PpiWakesItsHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(s_ppi, vcpuId: 1);
        await vm.Vcpus[1].SetHandlerAsync(s_ppi, HandlerPolicy.Default with { ReturnMasked = true });
        await vm.Vcpus[1].HaltUntilTakenAsync(s_ppi);
        await vm.IrqLineAsync(s_ppi, vcpuId: 1, true);
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_ppi);
    }

    [Fact]
    [Clause("arm-irq-line/owned-by-the-kernel")]
    public async Task LineOfTheTimerIsIgnored()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        // PPI 27 is the virtual timer: KVM owns the line once a vCPU has run.
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(GuestCommand.Nop));
        await vm.Gic.EnableAsync(new Ppi(27), vcpuId: 0);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(new Ppi(27), 0), true)).Should().Be(Errno.None);
        (await vm.Gic.ReadLinesAsync(0)).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    private static Task AwaitTakenAsync(Vm vm, uint times) => vm.AwaitMemoryAsync(vm.Vcpus[0].TakenAddress(s_spi), times);
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>KVM_IRQ_LINE, and the status that KVM_IRQ_LINE_STATUS adds. GSI 5 is pin 5 of the first PIC and of the I/O APIC.</summary>
public sealed class IrqLineTests(KernelUnderTest kernel)
{
    private const uint Gsi = 5;

    private async Task<Vm> CreateAsync(int vcpus, bool picMasked, RedirectionEntry entry)
    {
        Vm vm = await kernel.CreateVmAsync(vcpus);
        await vm.EnableLocalApicsAsync();
        kvm_pic_state pic = await vm.GetPicAsync();
        pic.imr = picMasked ? (byte)0xff : (byte)0xdf;
        await vm.SetPicAsync(pic);
        await vm.SetRedirectionAsync((int)Gsi, entry);
        return vm;
    }

    [Fact]
    [Clause("kvm-irq-line/needs-an-irqchip")]
    public async Task WithoutAnIrqchipThereIsNoSuchDevice()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });

        (await vm.TryIrqLineAsync(Gsi, true)).Should().Be(Errno.ENXIO);
        (await vm.TryIrqLineStatusAsync(Gsi, true)).Error.Should().Be(Errno.ENXIO);
    }

    [Fact]
    [Clause("kvm-irq-line/unreadable")]
    public async Task UnreadableArgumentFaults()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });

        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQ_LINE, 8)).Error.Should().Be(Errno.EFAULT);
        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQ_LINE_STATUS, 8)).Error.Should().Be(Errno.EFAULT);
    }

    [Fact]
    [Clause("kvm-irq-line/status-is-written-only-by-status")]
    public async Task OnlyTheStatusFormWritesItsArgument()
    {
        await using Vm vm = await CreateAsync(1, true, RedirectionEntry.Edge(Vectors.A));
        var raise = new kvm_irq_level { irq = Gsi, level = 1 };

        IoctlAnswer line = await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQ_LINE, raise, "5 = 1");
        line.Data.Should().Equal(5, 0, 0, 0, 1, 0, 0, 0);
        await vm.IrqLineAsync(Gsi, false);
        IoctlAnswer status = await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQ_LINE_STATUS, raise, "5 = 1");
        status.Data.Should().Equal(1, 0, 0, 0, 1, 0, 0, 0);
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(0x100u)]
    [InlineData(0x80000000u)]
    [InlineData(uint.MaxValue)]
    [Clause("kvm-irq-line/level-is-a-boolean")]
    public async Task AnyLevelButZeroAsserts(uint level)
    {
        await using Vm vm = await CreateAsync(1, true, RedirectionEntry.Edge(Vectors.A));

        IoctlAnswer answer = await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQ_LINE, new kvm_irq_level { irq = Gsi, level = level }, $"5 = {level}");

        answer.Error.Should().Be(Errno.None);
        (await vm.PendingAsync()).Should().Be("0x41");
        await vm.IrqLineAsync(Gsi, false);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        await vm.IrqLineAsync(Gsi, true);
        (await vm.PendingAsync()).Should().Be("0x41", "one lowering lowered it");
    }

    [Theory]
    [InlineData(true, true, -1)]
    [InlineData(false, true, 1)]
    [InlineData(true, false, 3)]
    [InlineData(false, false, 4)]
    [Clause("kvm-irq-line/status/adds-up")]
    [Clause("kvm-irq-line/status/masked")]
    [Clause("kvm-irq-line/status/delivered")]
    public async Task StatusAddsUpThePinsThatAreNotMasked(bool picMasked, bool ioapicMasked, int status)
    {
        await using Vm vm = await CreateAsync(3, picMasked, RedirectionEntry.Edge(Vectors.A, 0xff) with { IsMasked = ioapicMasked });

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(status);

        (await vm.PendingAsync()).Should().Be(ioapicMasked ? "- | - | -" : "0x41 | 0x41 | 0x41");
    }

    [Theory]
    [InlineData(true, true, 1)]
    [InlineData(false, true, 2)]
    [InlineData(true, false, 1)]
    [InlineData(false, false, 2)]
    [Clause("kvm-irq-line/status/lowering")]
    public async Task LoweringCountsTheIoApicPinAndTheUnmaskedPicPin(bool picMasked, bool ioapicMasked, int status)
    {
        await using Vm vm = await CreateAsync(1, picMasked, RedirectionEntry.Edge(Vectors.A) with { IsMasked = ioapicMasked });
        await vm.IrqLineAsync(Gsi, true);

        (await vm.IrqLineStatusAsync(Gsi, false)).Should().Be(status);
        (await vm.IrqLineStatusAsync(Gsi, false)).Should().Be(status, "lowering a line that is down is the same");
    }

    [Fact]
    [Clause("kvm-irq-line/status/coalesced")]
    [Clause("kvm-ioapic/pin/edge-coalesces")]
    public async Task SecondRiseOfARaisedEdgeLineIsCoalesced()
    {
        await using Vm vm = await CreateAsync(1, true, RedirectionEntry.Edge(Vectors.A));

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(0);
        (await vm.PendingAsync()).Should().Be("-");
        await vm.IrqLineAsync(Gsi, false);
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-irq-line/status/coalesced")]
    [Clause("kvm-irq-line/status/masked")]
    public async Task EdgeOnAMaskedPinIsMaskedOnceAndCoalescedThen()
    {
        await using Vm vm = await CreateAsync(1, true, RedirectionEntry.Edge(Vectors.A) with { IsMasked = true });

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(-1);
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(0);
    }

    [Fact]
    [Clause("kvm-irq-line/status/remote-irr")]
    [Clause("kvm-ioapic/pin/level-once-until-eoi")]
    public async Task LevelLineRaisedBeforeItsAcknowledgementIsIgnored()
    {
        await using Vm vm = await CreateAsync(1, true, RedirectionEntry.LevelTriggered(Vectors.A));

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(-1);
        await vm.IrqLineAsync(Gsi, false);
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(-1);
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-irq-line/status/delivered")]
    [Clause("kvm-ioapic/pin/absent-destination")]
    public async Task AbsentDestinationCountsZeroAndLeavesRemoteIrrClear()
    {
        await using Vm vm = await CreateAsync(1, true, RedirectionEntry.LevelTriggered(Vectors.A, 7));

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(0);

        (await vm.GetRedirectionAsync((int)Gsi)).RemoteIrr.Should().BeFalse();
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-irq-line/status/delivered")]
    [Clause("kvm-irq-line/msi-route")]
    public async Task MsiRouteReportsItsTakers()
    {
        await using Vm vm = await kernel.CreateVmAsync(3);
        await vm.EnableLocalApicsAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(24, MsiMessage.Fixed(1, Vectors.A)), GsiRoute.Msi(25, MsiMessage.Fixed(0xff, Vectors.B)),
            GsiRoute.Msi(26, MsiMessage.Fixed(9, Vectors.C)));

        (await vm.IrqLineStatusAsync(24, true)).Should().Be(1);
        (await vm.IrqLineStatusAsync(25, true)).Should().Be(3);
        (await vm.IrqLineStatusAsync(26, true)).Should().Be(0);
        (await vm.PendingAsync()).Should().Be("0x52 | 0x41 0x52 | 0x52");
    }

    [Fact]
    [Clause("kvm-pic/status")]
    public async Task PicPinReportsNewCoalescedAndMasked()
    {
        await using Vm vm = await CreateAsync(1, false, RedirectionEntry.Masked);

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
        await vm.IrqLineAsync(Gsi, false);
        // The I/O APIC pin is masked (-1) and does not count; the PIC's request is still pending.
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(0);
        kvm_pic_state pic = await vm.GetPicAsync();
        pic.imr = 0xff;
        await vm.SetPicAsync(pic);
        await vm.IrqLineAsync(Gsi, false);
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(-1);
    }

    [Fact]
    [Clause("kvm-irq-line/unrouted")]
    public async Task UnroutedGsiIsIgnored()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });

        foreach (uint gsi in new uint[] { 24, 0x7fffffff, 0x80000000, uint.MaxValue })
        {
            (await vm.TryIrqLineAsync(gsi, true)).Should().Be(Errno.None);
            (await vm.TryIrqLineStatusAsync(gsi, true)).Should().Be((Errno.None, -1));
        }
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>What KVM_SET_GSI_ROUTING takes, what it refuses, and which table is in force afterwards.</summary>
public sealed class RoutingTableTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private static readonly GsiRoute Good = GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A));

    private async Task<Vm> CreateAsync(int vcpus = 1)
    {
        Vm vm = await kernel.CreateVmAsync(vcpus);
        await vm.EnableLocalApicsAsync();
        return vm;
    }

    private static GsiRoute Raw(uint gsi, uint type, uint flags = 0, uint first = 0, uint second = 0) =>
        GsiRoute.Raw(new kvm_irq_routing_entry { gsi = gsi, type = type, flags = flags, irqchip_irqchip = first, irqchip_pin = second });

    // A refused table must leave this one: GSI 24 still sends 0x41, and nothing else is new.
    private static async Task ExpectRefusedAsync(Vm vm, Errno error, string because, params GsiRoute[] table)
    {
        await vm.SetGsiRoutingAsync(Good);

        (await vm.TrySetGsiRoutingAsync(table)).Should().Be(error, because);

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1, "the old table stays when {0}", because);
        (await vm.IrqLineStatusAsync(Gsi + 1, true)).Should().Be(-1, "nothing of a refused table is in force");
        (await vm.DrainPendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("gsi-routing/set/needs-an-irqchip")]
    public async Task WithoutAnIrqchipItIsInvalid()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });

        (await vm.TrySetGsiRoutingAsync()).Should().Be(Errno.EINVAL);
        (await vm.TrySetGsiRoutingAsync(Good)).Should().Be(Errno.EINVAL);
    }

    [Theory]
    [InlineData(1u)]
    [InlineData(2u)]
    [InlineData(0x80000000u)]
    [Clause("gsi-routing/set/flags")]
    public async Task TableFlagsAreInvalid(uint flags)
    {
        await using Vm vm = await CreateAsync();
        await vm.SetGsiRoutingAsync(Good);

        (await vm.TrySetGsiRoutingAsync(flags, [])).Should().Be(Errno.EINVAL);

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
    }

    [Fact]
    [Clause("gsi-routing/set/count")]
    [Clause("gsi-routing/set/gsi-range")]
    public async Task AsManyEntriesAsTheCapabilitySaysAreAccepted()
    {
        await using Vm vm = await CreateAsync();
        int most = (int)await vm.CheckExtensionAsync(KvmCap.IrqRouting);
        GsiRoute[] table = [.. Enumerable.Range(0, most).Select(i => GsiRoute.Msi((uint)i, MsiMessage.Fixed(0, new ApicVector((byte)(0x40 + (i % 0x80))))))];

        (await vm.TrySetGsiRoutingAsync(table)).Should().Be(Errno.None);

        foreach (int gsi in new[] { 0, 1, 255, most - 2, most - 1 })
        {
            (await vm.IrqLineStatusAsync((uint)gsi, true)).Should().Be(1);
            (await vm.DrainPendingAsync()).Should().Be($"0x{0x40 + (gsi % 0x80):x2}");
        }
    }

    [Fact]
    [Clause("gsi-routing/set/count")]
    public async Task OneEntryMoreIsInvalid()
    {
        await using Vm vm = await CreateAsync();
        int most = (int)await vm.CheckExtensionAsync(KvmCap.IrqRouting);
        GsiRoute[] table = [.. Enumerable.Range(0, most + 1).Select(i => GsiRoute.Msi((uint)(i % most), MsiMessage.Fixed(0, Vectors.B)))];

        await ExpectRefusedAsync(vm, Errno.EINVAL, "there is an entry too many", table);
    }

    [Fact]
    [Clause("gsi-routing/set/gsi-range")]
    public async Task GsiBeyondTheRangeIsInvalid()
    {
        await using Vm vm = await CreateAsync();
        uint most = (uint)await vm.CheckExtensionAsync(KvmCap.IrqRouting);

        foreach (uint gsi in new[] { most, most + 1, 0x7fffffffu, 0x80000000u, uint.MaxValue })
        {
            await ExpectRefusedAsync(vm, Errno.EINVAL, $"the GSI is {gsi}", GsiRoute.Msi(gsi, MsiMessage.Fixed(0, Vectors.B)));
        }
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(24u)]
    [InlineData(4095u)]
    [Clause("gsi-routing/set/gsi-range")]
    [Clause("kvm-irq-line/unrouted")]
    public async Task OnlyTheHighestGsiOfTheTableHasARoute(uint gsi)
    {
        await using Vm vm = await CreateAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(gsi, MsiMessage.Fixed(0, Vectors.A)));

        (await vm.IrqLineStatusAsync(gsi, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        foreach (uint other in new[] { gsi + 1, gsi + 2, gsi - 1, gsi + 0x80000000u, uint.MaxValue })
        {
            (await vm.IrqLineStatusAsync(other, true)).Should().Be(-1, "GSI {0} has no route", other);
        }

        (await vm.PendingAsync()).Should().Be("-");
    }

    // With 27 and 91 entries the table is 512 and 1024 bytes long: what follows it is another allocation, here another table.
    [Theory]
    [InlineData(26u)]
    [InlineData(90u)]
    [Clause("gsi-routing/set/gsi-range")]
    [Clause("kvm-irq-line/unrouted")]
    public async Task NothingIsReadBehindATableThatFillsItsAllocation(uint gsi)
    {
        var vms = new Vm[12];
        for (int i = 0; i < vms.Length; i++)
        {
            vms[i] = await CreateAsync();
        }

        foreach (Vm vm in vms)
        {
            await vm.SetGsiRoutingAsync(GsiRoute.Msi(gsi, MsiMessage.Fixed(0, Vectors.A)));
        }

        foreach (Vm vm in vms)
        {
            (await vm.IrqLineStatusAsync(gsi + 1, true)).Should().Be(-1);
        }
    }

    [Fact]
    [Clause("gsi-routing/set/unreadable")]
    public async Task UnreadableArgumentFaults()
    {
        await using Vm vm = await CreateAsync();
        await vm.SetGsiRoutingAsync(Good);

        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_SET_GSI_ROUTING, 8)).Error.Should().Be(Errno.EFAULT);

        // The header is readable, the entries are not: they would lie in the page behind the mapping.
        Mapping page = await vm.Session.MapAnonymousAsync(8192, "two pages");
        await page.UnmapAsync(4096, 4096);
        await page.WriteAsync(4096 - 8, BitConverter.GetBytes(1ul));
        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_SET_GSI_ROUTING, page.Address + 4096 - 8)).Error.Should().Be(Errno.EFAULT);

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
    }

    [Fact]
    [Clause("gsi-routing/set/empty-table")]
    public async Task EmptyTableSilencesEveryGsi()
    {
        await using Vm vm = await CreateAsync();
        await vm.SetRedirectionAsync([.. Enumerable.Range(0, IoApicState.Pins).Select(p => (p, RedirectionEntry.Edge(Vectors.B)))]);
        await vm.SetGsiRoutingAsync(Good);

        await vm.SetGsiRoutingAsync();

        for (uint gsi = 0; gsi <= 25; gsi++)
        {
            (await vm.IrqLineStatusAsync(gsi, true)).Should().Be(-1, "GSI {0} has no route", gsi);
        }

        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("gsi-routing/set/replaces-the-whole")]
    public async Task TableReplacesTheOneBefore()
    {
        await using Vm vm = await CreateAsync();
        await vm.SetGsiRoutingAsync(Good, GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.B)));

        await vm.SetGsiRoutingAsync(GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.C)), GsiRoute.Msi(26, MsiMessage.Fixed(0, Vectors.D)));

        (await vm.IrqLineStatusAsync(24, true)).Should().Be(-1);
        (await vm.IrqLineStatusAsync(25, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x63");
        (await vm.IrqLineStatusAsync(26, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x74");
        (await vm.IrqLineStatusAsync(4, true)).Should().Be(-1, "the default routes are gone");
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(3u)]
    [InlineData(6u)]
    [InlineData(7u)]
    [InlineData(uint.MaxValue)]
    [Clause("gsi-routing/entry/type")]
    [Clause("gsi-routing/set/refused-changes-nothing")]
    public async Task UnknownTypeIsInvalid(uint type)
    {
        await using Vm vm = await CreateAsync();

        await ExpectRefusedAsync(vm, Errno.EINVAL, $"the type is {type}", Raw(Gsi, type));
    }

    [Fact]
    [Clause("gsi-routing/entry/padding")]
    public async Task EntryPaddingIsIgnored()
    {
        await using Vm vm = await CreateAsync();
        byte[] table = Vm.RoutingTable(0, [GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.B))]);
        // pad is the fourth word; a message fills four words of the union of eight.
        table.AsSpan(8 + 12, 4).Fill(0xee);
        table.AsSpan(8 + 32, 16).Fill(0xee);

        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_SET_GSI_ROUTING, table, "padding 0xee")).Error.Should().Be(Errno.None);

        (await vm.IrqLineStatusAsync(25, true)).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("0x52");
    }

    [Theory]
    [InlineData(1u)]
    [InlineData(2u)]
    [InlineData(0x80000000u)]
    [Clause("gsi-routing/entry/irqchip-flags")]
    public async Task FlagsOfAPinRouteAreInvalid(uint flags)
    {
        await using Vm vm = await CreateAsync();

        await ExpectRefusedAsync(vm, Errno.EINVAL, $"the flags are {flags}", Raw(Gsi, KvmConst.KVM_IRQ_ROUTING_IRQCHIP, flags, 2, 5));
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(0x80000000u)]
    [Clause("gsi-routing/entry/msi-flags")]
    public async Task MsiFlagsOtherThanValidDevidAreInvalid(uint flags)
    {
        await using Vm vm = await CreateAsync();

        await ExpectRefusedAsync(vm, Errno.EINVAL, $"the flags are {flags}", GsiRoute.Raw(new kvm_irq_routing_entry
        {
            gsi = 25, type = KvmConst.KVM_IRQ_ROUTING_MSI, flags = flags, msi_address_lo = 0xfee00000, msi_data = 0x52,
        }));
    }

    [Fact]
    [Clause("gsi-routing/entry/msi-flags")]
    public async Task DeviceIdOfAMessageIsAcceptedAndIgnored()
    {
        await using Vm vm = await CreateAsync();

        await vm.SetGsiRoutingAsync(GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.B) with { DeviceId = 0x1234 }));

        (await vm.IrqLineStatusAsync(25, true)).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("0x52");
    }

    [Fact]
    [Clause("gsi-routing/entry/one-msi-per-gsi")]
    public async Task MsiSharesItsGsiWithNothing()
    {
        await using Vm vm = await CreateAsync();
        GsiRoute msi = GsiRoute.Msi(25, MsiMessage.Fixed(0, Vectors.B)), pin = GsiRoute.IoApic(25, 5), pic = GsiRoute.Irqchip(25, 0, 5);

        await ExpectRefusedAsync(vm, Errno.EINVAL, "two messages share a GSI", msi, msi);
        await ExpectRefusedAsync(vm, Errno.EINVAL, "a pin follows a message", msi, pin);
        await ExpectRefusedAsync(vm, Errno.EINVAL, "a message follows a pin", pin, msi);
        await ExpectRefusedAsync(vm, Errno.EINVAL, "a message follows two pins", pin, pic, msi);
        await ExpectRefusedAsync(vm, Errno.EINVAL, "a PIC's pin follows a message", msi, pic);
    }

    [Fact]
    [Clause("gsi-routing/entry/one-pin-per-irqchip")]
    public async Task GsiHasOnePinOfEachController()
    {
        await using Vm vm = await CreateAsync();

        foreach (uint chip in new uint[] { 0, 1, 2 })
        {
            await ExpectRefusedAsync(vm, Errno.EINVAL, $"two pins of controller {chip} share a GSI",
                GsiRoute.Irqchip(25, chip, 3), GsiRoute.Irqchip(25, chip, 4));
        }

        await ExpectRefusedAsync(vm, Errno.EINVAL, "the third entry repeats the first's controller",
            GsiRoute.Irqchip(25, 2, 3), GsiRoute.Irqchip(25, 0, 4), GsiRoute.Irqchip(25, 2, 6));
    }

    [Fact]
    [Clause("gsi-routing/entry/several-irqchips")]
    [Clause("kvm-irq-line/drives-every-pin-of-the-gsi")]
    public async Task GsiDrivesAPinOfEachOfThreeControllers()
    {
        await using Vm vm = await CreateAsync();
        await vm.MaskPicsAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Irqchip(30, 0, 3), GsiRoute.Irqchip(30, 1, 6), GsiRoute.IoApic(30, 20));

        await vm.IrqLineAsync(30, true);

        (await vm.GetPicAsync()).irr.Should().Be(1 << 3);
        (await vm.GetPicAsync(slave: true)).irr.Should().Be(1 << 6);
        (await vm.GetIoApicAsync()).Irr.Should().Be(1u << 20);
    }

    [Theory]
    [InlineData(3u, 0u)]
    [InlineData(4u, 0u)]
    [InlineData(uint.MaxValue, 0u)]
    [Clause("gsi-routing/entry/irqchip-number")]
    public async Task UnknownControllerIsInvalid(uint chip, uint pin)
    {
        await using Vm vm = await CreateAsync();

        await ExpectRefusedAsync(vm, Errno.EINVAL, $"the controller is {chip}", GsiRoute.Irqchip(25, chip, pin));
    }

    [Theory]
    [InlineData(0u, 7u, 8u)]
    [InlineData(1u, 7u, 8u)]
    [InlineData(2u, 23u, 24u)]
    [Clause("gsi-routing/entry/ioapic-pin-range")]
    [Clause("gsi-routing/entry/pic-pin-range")]
    public async Task PinRangeEndsWithTheController(uint chip, uint last, uint beyond)
    {
        await using Vm vm = await CreateAsync();

        (await vm.TrySetGsiRoutingAsync(GsiRoute.Irqchip(25, chip, last))).Should().Be(Errno.None);
        await ExpectRefusedAsync(vm, Errno.EINVAL, $"the pin is {beyond}", GsiRoute.Irqchip(25, chip, beyond));
        await ExpectRefusedAsync(vm, Errno.EINVAL, "the pin is beyond all reason", GsiRoute.Irqchip(25, chip, uint.MaxValue));
    }

    [Fact]
    [Clause("gsi-routing/entry/split-irqchip")]
    public async Task PinRouteIsInvalidWithASplitIrqchip()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.Split });
        await vm.EnableLocalApicsAsync();

        foreach (uint chip in new uint[] { 0, 1, 2 })
        {
            await ExpectRefusedAsync(vm, Errno.EINVAL, "the controllers are in user space", GsiRoute.Irqchip(25, chip, 1));
        }
    }

    [Fact]
    [Clause("gsi-routing/entry/gsi-selects-the-pin")]
    public async Task EachPinOfEachControllerIsReachedFromItsGsiAlone()
    {
        await using Vm vm = await CreateAsync();
        await vm.MaskPicsAsync();
        (uint Chip, uint Pin)[] pins =
        [
            .. Enumerable.Range(0, 8).Select(p => (0u, (uint)p)),
            .. Enumerable.Range(0, 8).Select(p => (1u, (uint)p)),
            .. Enumerable.Range(0, 24).Select(p => (2u, (uint)p)),
        ];
        await vm.SetGsiRoutingAsync([.. pins.Select((p, i) => GsiRoute.Irqchip((uint)(300 - (i * 7)), p.Chip, p.Pin))]);

        for (int i = 0; i < pins.Length; i++)
        {
            uint gsi = (uint)(300 - (i * 7));
            await ExpectOnlyAsync(vm, gsi, $"GSI {gsi} is {pins[i]}",
                pins[i].Chip == 0 ? (int)pins[i].Pin : pins[i].Chip == 1 ? (int)pins[i].Pin + 8 : null, pins[i].Chip == 2 ? (int)pins[i].Pin : null);
        }
    }

    [Fact]
    [Clause("gsi-routing/default/isa")]
    [Clause("gsi-routing/default/ioapic-only")]
    [Clause("gsi-routing/default/ends-at-23")]
    public async Task DefaultTableIsThatOfAPc()
    {
        await using Vm vm = await CreateAsync();
        await vm.MaskPicsAsync();

        for (int gsi = 0; gsi < 24; gsi++)
        {
            await ExpectOnlyAsync(vm, (uint)gsi, $"GSI {gsi}", gsi < 16 ? gsi : null, gsi);
        }

        foreach (uint gsi in new uint[] { 24, 25, 31, 32, 63, 4095, 4096 })
        {
            (await vm.IrqLineStatusAsync(gsi, true)).Should().Be(-1);
            await ExpectOnlyAsync(vm, gsi, $"GSI {gsi} has no route", null, null);
        }
    }

    [Fact]
    [Clause("gsi-routing/default/split-irqchip-has-none")]
    [Clause("kvm-irq-line/split-irqchip")]
    public async Task SplitIrqchipHasNoDefaultRoutes()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.Split });
        await vm.EnableLocalApicsAsync();

        for (uint gsi = 0; gsi < 25; gsi++)
        {
            (await vm.IrqLineStatusAsync(gsi, true)).Should().Be(-1);
        }

        (await vm.PendingAsync()).Should().Be("-");
    }

    [Theory]
    [InlineData(0x00000001u)]
    [InlineData(0x00000080u)]
    [InlineData(0xffffffffu)]
    [Clause("gsi-routing/msi/high-address-low-byte")]
    public async Task LowByteOfTheHighHalfIsInvalidWithThirtyTwoBitIds(uint high)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { X2Apic32BitIds = true });
        await vm.EnableLocalApicsAsync();

        await ExpectRefusedAsync(vm, Errno.EINVAL, "the high half is no id", GsiRoute.Msi(25, new MsiMessage(((ulong)high << 32) | 0xfee00000, 0x52)));
    }

    [Theory]
    [InlineData(0u, "0x41 | - | -")]
    [InlineData(0x123u, "- | 0x41 | -")]
    [InlineData(0x223u, "- | - | 0x41")]
    [InlineData(0x23u, "- | - | -")]
    [Clause("gsi-routing/msi/high-address-is-the-id")]
    public async Task ThirtyTwoBitIdOfARouteReachesItsProcessor(uint destination, string pending)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 3, VcpuIds = [0, 0x123, 0x223], X2Apic32BitIds = true });
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.EnterX2ApicAsync();
        }

        await vm.EnableLocalApicsAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(destination, Vectors.A)));

        await vm.IrqLineAsync(Gsi, true);

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Fact]
    [Clause("gsi-routing/msi/became-invalid")]
    [Clause("gsi-routing/msi/high-address-ignored")]
    public async Task RouteThatBecameInvalidDeliversNothing()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, new MsiMessage(0x00000001_fee00000, Vectors.A.Value)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("0x41", "the high half is ignored so far");

        (await vm.TryEnableCapAsync(KvmCap.X2ApicApi, 1)).Should().Be(Errno.None);

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(-1);
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Theory]
    [InlineData(0x05, true, "0x41 | - | 0x41")]
    [InlineData(0x01, true, "0x41 | - | -")]
    [InlineData(0x01, false, "- | 0x41 | -")]
    [InlineData(0xff, false, "0x41 | 0x41 | 0x41")]
    [Clause("gsi-routing/msi/destination-modes")]
    public async Task RouteKeepsTheDestinationMode(byte destination, bool logical, string pending)
    {
        await using Vm vm = await CreateAsync(3);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.UpdateLapicAsync(l => l[LapicState.LogicalDestination] = (uint)(1 << vcpu.Index) << 24);
        }

        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.X86(destination, Vectors.A, logical: logical)));

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(pending.Count(c => c == 'x'));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Fact]
    [Clause("gsi-routing/msi/only-assertion-delivers")]
    [Clause("kvm-irq-line/msi-route")]
    public async Task LoweringAnMsiGsiDeliversNothing()
    {
        await using Vm vm = await CreateAsync();
        await vm.SetGsiRoutingAsync(Good);

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x41");
        (await vm.IrqLineStatusAsync(Gsi, false)).Should().Be(-1);
        (await vm.PendingAsync()).Should().Be("-");
    }

    private static async Task ExpectOnlyAsync(Vm vm, uint gsi, string because, int? pic, int? ioapic)
    {
        await vm.IrqLineAsync(gsi, true);

        ((await vm.GetPicAsync()).irr | ((await vm.GetPicAsync(slave: true)).irr << 8)).Should().Be(pic is int p ? 1 << p : 0, because);
        (await vm.GetIoApicAsync()).Irr.Should().Be(ioapic is int pin ? 1u << pin : 0, because);

        await vm.IrqLineAsync(gsi, false);
        (await vm.GetIoApicAsync()).Irr.Should().Be(0, because);
        foreach (bool slave in new[] { false, true })
        {
            kvm_pic_state state = await vm.GetPicAsync(slave);
            state.irr = 0;
            await vm.SetPicAsync(state, slave);
        }
    }
}

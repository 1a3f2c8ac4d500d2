// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>User space has the I/O APIC and the PICs; the kernel reports the acknowledgements that concern them.</summary>
public sealed class SplitIrqchipTests(KernelUnderTest kernel)
{
    private const uint Gsi = 5;
    private static readonly MsiMessage Level = MsiMessage.X86(0, Vectors.A, level: true);

    private async Task<Vm> CreateAsync(int vcpus = 1, uint routes = 24)
    {
        await kernel.RequireInServiceAsync();
        await kernel.RequireAsync(KvmCap.SplitIrqchip);
        Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.Split, Vcpus = vcpus, SplitIrqchipRoutes = routes });
        await vm.BootAsync();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.LeaveInServiceAsync(Vectors.A, Vectors.B);
        }

        return vm;
    }

    private static async Task<string> AcknowledgeAsync(Vcpu vcpu)
    {
        IReadOnlyList<string> exits = await vcpu.ExecuteExitingAsync(GuestCommand.Eoi);
        return exits.Count == 0 ? "-" : string.Join(" ", exits);
    }

    [Fact]
    [Clause("split-irqchip/enable/too-many-routes")]
    public async Task ReservedRoutesEndWithTheTable()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });
        ulong most = (ulong)await vm.CheckExtensionAsync(KvmCap.IrqRouting);

        (await vm.TryEnableCapAsync(KvmCap.SplitIrqchip, most + 1)).Should().Be(Errno.EINVAL);
        (await vm.TryEnableCapAsync(KvmCap.SplitIrqchip, most, flags: 1)).Should().Be(Errno.EINVAL);
        (await vm.TryEnableCapAsync(KvmCap.SplitIrqchip, most)).Should().Be(Errno.None);
    }

    [Theory]
    [InlineData(Irqchip.Full)]
    [InlineData(Irqchip.Split)]
    [Clause("split-irqchip/enable/second-irqchip")]
    public async Task SecondIrqchipExists(Irqchip first)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = first });

        (await vm.TryEnableCapAsync(KvmCap.SplitIrqchip, 24)).Should().Be(Errno.EEXIST);
        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_CREATE_IRQCHIP)).Error.Should().Be(Errno.EEXIST);
    }

    [Fact]
    [Clause("split-irqchip/enable/after-a-vcpu")]
    public async Task IrqchipComesBeforeTheFirstVcpu()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });
        await vm.CreateVcpuAsync(0);

        (await vm.TryEnableCapAsync(KvmCap.SplitIrqchip, 24)).Should().Be(Errno.EEXIST);
        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_CREATE_IRQCHIP)).Error.Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("split-irqchip/eoi/level-route-exits")]
    [Clause("split-irqchip/eoi/route-set-while-running")]
    public async Task AcknowledgementOfALevelRouteExits()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, Level));

        for (int round = 0; round < 2; round++)
        {
            await vm.IrqLineAsync(Gsi, true);
            (await vcpu.TakeAsync()).Should().Be("0x41");
            (await AcknowledgeAsync(vcpu)).Should().Be("eoi 0x41");
            (await vcpu.TakeAsync()).Should().Be("-");
        }

        await vm.SetGsiRoutingAsync();
        await vm.SignalMsiAsync(Level);
        (await vcpu.TakeAsync()).Should().Be("0x41");
        await vm.SignalMsiAsync(MsiMessage.X86(0, Vectors.B, level: true));
        (await vcpu.TakeAsync()).Should().Be("0x52");
        (await AcknowledgeAsync(vcpu)).Should().Be("-", "no route has that vector");
    }

    [Fact]
    [Clause("split-irqchip/eoi/edge-route-does-not")]
    public async Task AcknowledgementOfAnEdgeRouteDoesNotExit()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)));

        await vm.IrqLineAsync(Gsi, true);
        (await vcpu.TakeAsync()).Should().Be("0x41");
        (await AcknowledgeAsync(vcpu)).Should().Be("-");
    }

    [Theory]
    [InlineData(24u, 23u, true)]
    [InlineData(24u, 24u, false)]
    [InlineData(24u, 0u, true)]
    [InlineData(1u, 0u, true)]
    [InlineData(1u, 1u, false)]
    [InlineData(0u, 0u, false)]
    [InlineData(255u, 254u, true)]
    [InlineData(255u, 255u, false)]
    [Clause("split-irqchip/eoi/only-reserved-gsis")]
    public async Task OnlyReservedGsisExit(uint reserved, uint gsi, bool exits)
    {
        await using Vm vm = await CreateAsync(routes: reserved);
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(gsi, Level));

        await vm.IrqLineAsync(gsi, true);
        (await vcpu.TakeAsync()).Should().Be("0x41");
        (await AcknowledgeAsync(vcpu)).Should().Be(exits ? "eoi 0x41" : "-");
    }

    [Theory]
    [InlineData(0x01, false)]
    [InlineData(0x80, true)]
    [Clause("split-irqchip/eoi/only-destinations")]
    public async Task OnlyTheRoutesDestinationExits(byte destination, bool logical)
    {
        await using Vm vm = await CreateAsync(2);
        await vm.Vcpus[1].UpdateLapicAsync(l => l[LapicState.LogicalDestination] = 0x80000000);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.X86(destination, Vectors.A, logical: logical, level: true)));
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.ExecuteAsync(GuestCommand.Nop);
        }

        await vm.SignalMsiAsync(Level);
        await vm.IrqLineAsync(Gsi, true);
        (await vm.TakeAsync()).Should().Be("0x41 | 0x41");

        (await AcknowledgeAsync(vm.Vcpus[0])).Should().Be("-");
        (await AcknowledgeAsync(vm.Vcpus[1])).Should().Be("eoi 0x41");
    }

    [Fact]
    [Clause("split-irqchip/eoi/retargeted-in-service")]
    public async Task InterruptInServiceIsReportedThoughItsRouteMoved()
    {
        kernel.RequireChange("split-eoi-in-service");
        await using Vm vm = await CreateAsync(2);
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, Level));
        await vm.IrqLineAsync(Gsi, true);
        (await vm.TakeAsync()).Should().Be("0x41 | -");

        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.X86(1, Vectors.A, level: true)));

        (await AcknowledgeAsync(vm.Vcpus[0])).Should().Be("eoi 0x41");
        await vm.IrqLineAsync(Gsi, true);
        (await vm.TakeAsync()).Should().Be("- | 0x41");
        (await AcknowledgeAsync(vm.Vcpus[1])).Should().Be("eoi 0x41");
    }

    [Fact]
    [Clause("split-irqchip/eoi/level-route-exits")]
    public async Task EachLevelRouteReportsItsOwnVector()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(0, MsiMessage.X86(0, Vectors.A, level: true)), GsiRoute.Msi(1, MsiMessage.Fixed(0, Vectors.Fence)),
            GsiRoute.Msi(2, MsiMessage.X86(0, Vectors.B, level: true)));

        foreach ((uint gsi, string vector) in new[] { (0u, "0x41"), (2u, "0x52") })
        {
            await vm.IrqLineAsync(gsi, true);
            (await vcpu.TakeAsync()).Should().Be(vector);
            (await AcknowledgeAsync(vcpu)).Should().Be($"eoi {vector}");
        }
    }

    [Fact]
    [Clause("split-irqchip/mmio-exits")]
    public async Task ControllersAreInUserSpace()
    {
        await using Vm vm = await CreateAsync();

        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(IoApicRegisters.Select, 1), GuestCommand.Load(IoApicRegisters.Window), GuestCommand.Out(PicPort.MasterCommand, 0x11)))
            .Should().Equal("gpa 0xfec00000 write 4 0x1", "gpa 0xfec00010 read 4", "port 0x20 write 1 0x11");
    }

    [Fact]
    [Clause("split-irqchip/extint")]
    public async Task UserSpacesPicInterruptIsTaken()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vcpu.UpdateLapicAsync(l => l[LapicState.LvtLint0] = 0x700);

        (await vm.Session.IoctlAsync(vcpu.Fd, KvmX86Ioctl.KVM_INTERRUPT, BitConverter.GetBytes(0x61u), "0x61")).Error.Should().Be(Errno.None);
        (await vm.Session.IoctlAsync(vcpu.Fd, KvmX86Ioctl.KVM_INTERRUPT, BitConverter.GetBytes(0x62u), "0x62")).Error.Should().Be(Errno.EEXIST, "one is pending");

        (await vcpu.TakeAsync()).Should().Be("0x61");
    }
}

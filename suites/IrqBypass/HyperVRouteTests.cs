// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Routes to the synthetic interrupt sources of Hyper-V's SynIC.</summary>
public sealed class HyperVRouteTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private const uint ControlMsr = 0x40000080;
    private const uint FirstSourceMsr = 0x40000090;
    private const ulong Masked = 1 << 16;

    // Processors 0 and 1 have a SynIC, 2 has none.
    private async Task<Vm> CreateAsync()
    {
        await kernel.RequireAsync(KvmCap.HypervSynic);
        Vm vm = await kernel.CreateVmAsync(3);
        await vm.EnableLocalApicsAsync();
        foreach (Vcpu vcpu in vm.Vcpus.Take(2))
        {
            IoctlAnswer enabled = await vm.Session.IoctlAsync(vcpu.Fd, KvmIoctl.KVM_ENABLE_CAP, new kvm_enable_cap { cap = (uint)KvmCap.HypervSynic }, "KVM_CAP_HYPERV_SYNIC");
            enabled.Error.Should().Be(Errno.None);
            (await vcpu.TrySetMsrAsync(ControlMsr, 1)).Should().BeTrue();
        }

        return vm;
    }

    private static GsiRoute Route(uint vcpu, uint source, uint gsi = Gsi) =>
        GsiRoute.Raw(new kvm_irq_routing_entry { gsi = gsi, type = KvmConst.KVM_IRQ_ROUTING_HV_SINT, hv_sint_vcpu = vcpu, hv_sint_sint = source });

    private static async Task SetSourceAsync(Vcpu vcpu, uint source, ulong value) =>
        (await vcpu.TrySetMsrAsync(FirstSourceMsr + source, value)).Should().BeTrue();

    [Theory]
    [InlineData(0u, 2u, "0x41 | - | -")]
    [InlineData(1u, 2u, "- | 0x52 | -")]
    [InlineData(0u, 0u, "0x63 | - | -")]
    [InlineData(1u, 15u, "- | 0x74 | -")]
    [Clause("gsi-routing/hv-sint/delivers")]
    [Clause("gsi-routing/hv-sint/lowering")]
    public async Task SourceOfTheRouteDeliversItsVectorToItsProcessor(uint vcpu, uint source, string pending)
    {
        await using Vm vm = await CreateAsync();
        await SetSourceAsync(vm.Vcpus[0], 2, Vectors.A.Value);
        await SetSourceAsync(vm.Vcpus[1], 2, Vectors.B.Value);
        await SetSourceAsync(vm.Vcpus[0], 0, Vectors.C.Value);
        await SetSourceAsync(vm.Vcpus[1], 15, Vectors.D.Value);
        await vm.SetGsiRoutingAsync(Route(vcpu, source));

        (await vm.IrqLineStatusAsync(Gsi, false)).Should().Be(-1);
        (await vm.PendingAsync()).Should().Be("- | - | -");
        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be(pending);
        (await vm.IrqLineStatusAsync(Gsi, false)).Should().Be(-1);
        (await vm.PendingAsync()).Should().Be("- | - | -");
    }

    [Fact]
    [Clause("gsi-routing/hv-sint/irqfd")]
    public async Task SignalledIrqfdDeliversIt()
    {
        await using Vm vm = await CreateAsync();
        await SetSourceAsync(vm.Vcpus[1], 3, Vectors.A.Value);
        await vm.SetGsiRoutingAsync(Route(1, 3));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        await eventfd.SignalAsync();

        (await vm.PendingAsync()).Should().Be("- | 0x41 | -");
    }

    [Fact]
    [Clause("gsi-routing/hv-sint/resample")]
    public async Task AcknowledgementNotifiesTheResampler()
    {
        await kernel.RequireInServiceAsync();
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[1];
        await vcpu.BootAsync();
        await vcpu.LeaveInServiceAsync(Vectors.A);
        await SetSourceAsync(vcpu, 3, Vectors.A.Value);
        await vm.SetGsiRoutingAsync(Route(1, 3));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        await vm.AssignResampleIrqfdAsync(Gsi, eventfd, resamplefd);

        await eventfd.SignalAsync();
        (await vcpu.TakeAsync()).Should().Be("0x41");
        (await resamplefd.ReadAsync()).Should().BeNull("nothing is acknowledged yet");
        await vcpu.AcknowledgeAsync();

        (await resamplefd.ReadAsync()).Should().Be(1);
    }

    [Theory]
    [InlineData(0u, 2u)]
    [InlineData(0u, 16u)]
    [InlineData(0u, uint.MaxValue)]
    [InlineData(2u, 1u)]
    [InlineData(3u, 1u)]
    [InlineData(uint.MaxValue, 1u)]
    [Clause("gsi-routing/hv-sint/ignored")]
    public async Task SourceThatIsMaskedOrNotThereIsIgnored(uint vcpu, uint source)
    {
        await using Vm vm = await CreateAsync();
        await SetSourceAsync(vm.Vcpus[0], 1, Vectors.A.Value);
        await SetSourceAsync(vm.Vcpus[0], 2, Masked | Vectors.B.Value);
        await vm.SetGsiRoutingAsync(Route(vcpu, source));

        (await vm.IrqLineStatusAsync(Gsi, true)).Should().Be(-1);

        (await vm.PendingAsync()).Should().Be("- | - | -");
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

public sealed class MsiRouteTests(KernelUnderTest kernel)
{
    // KVM's default x86 table stops at GSI 23: only the route set below can answer for 24.
    private const uint Gsi = 24;
    private static readonly ApicVector Vector = Vectors.A;
    private static readonly ApicVector Fence = Vectors.Fence;

    [Fact]
    [Clause("kvm-irqfd/signal/injects-the-routed-interrupt")]
    [Clause("kvm-irqfd/signal/wakes-a-halted-vcpu")]
    [Clause("gsi-routing/msi/address-and-data-select-the-vector")]
    public async Task SignalledIrqfdDeliversTheRoutedVectorOnce()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vector)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.RunUntilHaltedAsync();
        await vm.Vcpus[0].WaitUntilBlockedAsync();

        await eventfd.SignalAsync();

        // Deassign returns only once nothing more can arrive on this GSI, and the
        // fence is the lower-priority vector, so the guest logs it last.
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Fence));
        ApicVector[] taken = await vm.ReadInterruptLogAsync(until: Fence);
        taken.Should().Equal(Vector, Fence);
    }
}

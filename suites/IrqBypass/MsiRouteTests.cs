// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

public sealed class MsiRouteTests(KernelUnderTest kernel)
{
    // KVM's default x86 table stops at GSI 23: only the route set below can answer for 24.
    private const uint Gsi = 24;
    private static readonly ApicVector Vector = new(0x41);
    private static readonly ApicVector Fence = new(0x31);

    [Fact]
    [Clause("kvm-irqfd/signal/injects-the-routed-interrupt")]
    public async Task SignalledIrqfdDeliversTheRoutedVectorOnce()
    {
        await kernel.RequireAsync(KvmCap.IrqRouting, KvmCap.Irqfd, KvmCap.SignalMsi);
        await using Vm vm = await kernel.CreateVmAsync(vcpus: 1);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(apicId: 0, Vector)));
        await vm.AssignIrqfdAsync(Gsi, eventfd);
        await vm.RunUntilHaltedAsync();
        await eventfd.SignalAsync();

        // Deassign returns only once nothing more can arrive on this GSI, and the
        // fence is the lower-priority vector, so the guest logs it last.
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await vm.SignalMsiAsync(MsiMessage.Fixed(apicId: 0, Fence));

        ApicVector[] taken = await vm.ReadInterruptLogAsync(until: Fence);
        taken.Should().Equal(Vector, Fence);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>Proof that the suite can turn red: each is given something wrong and must fail.</summary>
public sealed class NegativeControlTests(KernelUnderTest kernel)
{
    [Fact, NegativeControl]
    [Clause("vfio-irqs/trigger/none-hits-the-range")]
    public async Task TriggerOfTheWrongEntryIsNoticed()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await device.AttachAsync(IrqIndex.Msix, 0, eventfds[1], eventfds[0]);

        await device.TriggerAsync(IrqIndex.Msix);

        (await eventfds.CountsAsync()).Should().Be("1 -");
    }

    [Fact, NegativeControl]
    [Clause("vfio-irqs/delivery/msix")]
    public async Task InterruptOfTheWrongEntryIsNoticed()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nic.PrepareAsync(IrqIndex.Msix);

        await nic.RaiseAsync(IrqIndex.Msix, 1);
        await eventfds[1].WaitAsync();

        (await eventfds[0].ReadAsync()).Should().Be(1);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>The producer's side of the IRQ bypass manager; what the kernel did is counted by kprobes.</summary>
public sealed class ProducerTests(KernelUnderTest kernel)
{
    private const string Register = "irq_bypass_register_producer";
    private const string Unregister = "irq_bypass_unregister_producer";

    public static TheoryData<IrqIndex> MessageIndexes => [IrqIndex.Msi, IrqIndex.Msix];

    [Theory, MemberData(nameof(MessageIndexes))]
    [Clause("vfio-irqs/bypass/producer")]
    public async Task EveryEntryWithAnEventfdIsAProducerUntilItLosesIt(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(3);
        await using KernelProbes? probes = await KernelProbes.OpenAsync(device.Session, Register, Unregister);
        Skipping.UnlessCapability(probes is not null, "kprobes through tracefs", "no kprobe_events");
        Skipping.UnlessCapability(await probes.CountAsync(Register) is not null, Register, "the function cannot be probed");

        await device.AttachAsync(index, 0, eventfds);
        (await CountsAsync()).Should().Be((3, 0));
        await device.AttachAsync(index, 1, (KernelFd?)null);
        (await CountsAsync()).Should().Be((3, 1));
        await device.AttachAsync(index, 2, eventfds[1]);
        (await CountsAsync()).Should().Be((4, 2), "the old eventfd's goes when a new one comes");
        await device.DisableAsync(index);
        (await CountsAsync()).Should().Be((4, 4));

        async Task<(int?, int?)> CountsAsync() => (await probes.CountAsync(Register), await probes.CountAsync(Unregister));
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>
/// INTx that is masked in the interrupt controller because the device cannot (vfio-pci with nointxmask): an interrupt of its own, and a line that
/// is up when it is unmasked interrupts again by itself. vfio-pci is loaded anew for this, and once more afterwards.
/// </summary>
public sealed class ExclusiveIntxTests(KernelUnderTest kernel)
{
    [Fact]
    [Clause("vfio-irqs/intx/exclusive")]
    [FixedBy("fe9a7082684e", "vfio/pci: Disable auto-enable of exclusive INTx IRQ")]
    public async Task ExclusiveLineIsMaskedAndUnmaskedInTheInterruptController()
    {
        KernelSession session = await kernel.SessionAsync();
        await ReloadAsync(session, "nointxmask=1");
        try
        {
            await ExerciseAsync();
        }
        finally
        {
            await ReloadAsync(session, "");
        }
    }

    private async Task ExerciseAsync()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd unmask = await kernel.CreateEventFdAsync();
        await edu.PrepareAsync(IrqIndex.Intx);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);

        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull("the line is masked since it signalled");
        await edu.Vfio.UnmaskIntxAsync();
        (await eventfd.WaitAsync()).Should().Be(1, "the line is up");
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.UnmaskIntxAsync();

        await edu.Vfio.MaskIntxAsync();
        await edu.Vfio.MaskIntxAsync();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.Vfio.UnmaskIntxAsync();
        (await eventfd.WaitAsync()).Should().Be(1, "masking twice is as once");

        await edu.Vfio.SetIrqsAsync(IrqSet.Eventfds(IrqIndex.Intx, IrqAction.Unmask, 0, unmask));
        await unmask.SignalAsync();
        (await eventfd.WaitAsync()).Should().Be(1);
        await edu.AcknowledgeAsync(IrqIndex.Intx);

        // Disabled while masked: the interrupt must not stay disabled for the next user.
        await edu.Vfio.DisableAsync(IrqIndex.Intx);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.DisableAsync(IrqIndex.Intx);

        // Enabled while the guest's bit is set: it starts disabled, once.
        await edu.Vfio.SetCommandAsync(PciConfiguration.InterruptDisable);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BeNull();
        await edu.Vfio.SetCommandAsync(0, PciConfiguration.InterruptDisable);
        (await eventfd.WaitAsync()).Should().Be(1);
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.UnmaskIntxAsync();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        (await Interrupts.OfAsync(edu.Vfio)).Should().Equal($"vfio-intx({edu.Vfio})");
    }

    private static async Task ReloadAsync(KernelSession session, string parameters)
    {
        foreach (PciFunction function in await PciFunction.ListAsync(session))
        {
            if (await function.DriverAsync(session) == "vfio-pci")
            {
                Expect(await function.TryUnbindAsync(session), $"unbinding {function}");
            }
        }

        CallResult removed = await session.Agent.CallAsync(new SystemCall(session.Numbers.DeleteModule, "delete_module(vfio_pci)").In("vfio_pci\0"u8).Arg(0x800));
        Expect((Errno)removed.Errno, "delete_module(vfio_pci)");
        await using KernelFd module = await session.OpenAsync("/modules/vfio-pci.ko", writable: false);
        CallResult loaded = await session.Agent.CallAsync(new SystemCall(session.Numbers.FinitModule, $"finit_module(vfio-pci, \"{parameters}\")")
            .Arg(module.Number).In([.. System.Text.Encoding.ASCII.GetBytes(parameters), 0]).Arg(0));
        Expect((Errno)loaded.Errno, "finit_module(vfio-pci)");
    }

    private static void Expect(Errno error, string call)
    {
        if (error != Errno.None)
        {
            throw new KvmException(call, error);
        }
    }
}

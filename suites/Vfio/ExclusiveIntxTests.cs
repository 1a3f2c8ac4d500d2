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
        await WithoutDisIntxAsync(ExerciseAsync);
    }

    [Fact]
    [Clause("vfio-irqs/intx/exclusive-line-is-taken")]
    public async Task ExclusiveLineThatIsTakenIsRefusedAndLeavesTheDeviceIdle()
    {
        await WithoutDisIntxAsync(async () =>
        {
            (E1000eDevice nic, EduDevice edu) = await kernel.OpenSharedLineAsync();
            await using E1000eDevice _ = nic;
            await using EduDevice __ = edu;
            EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
            await nic.PrepareAsync(IrqIndex.Intx);
            await edu.PrepareAsync(IrqIndex.Intx);
            await nic.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfds[0]);

            for (int i = 0; i < 2; i++)
            {
                (await edu.Vfio.TryAttachAsync(IrqIndex.Intx, 0, eventfds[1])).Should().Be(Errno.EBUSY);
                (await edu.Vfio.TryTriggerAsync(IrqIndex.Intx)).Should().Be(Errno.EINVAL, "INTx is not in use");
            }

            await new ReleasedEventfds(edu.Session).ExpectAsync("refused", async e =>
                (await edu.Vfio.TryAttachAsync(IrqIndex.Intx, 0, e)).Should().Be(Errno.EBUSY));
            await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfds[1]);
            await edu.RaiseAsync(IrqIndex.Msi);
            (await eventfds[1].WaitAsync()).Should().Be(1, "another index can be used");
            await edu.AcknowledgeAsync(IrqIndex.Msi);
            await edu.Vfio.DisableAsync(IrqIndex.Msi);

            await nic.RaiseAsync(IrqIndex.Intx);
            (await eventfds[0].WaitAsync()).Should().Be(1, "the owner of the line notices nothing");
            await nic.AcknowledgeAsync(IrqIndex.Intx);
            await nic.Vfio.DisableAsync(IrqIndex.Intx);
            await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfds[1]);
            await edu.RaiseAsync(IrqIndex.Intx);
            (await eventfds[1].WaitAsync()).Should().Be(1, "the line is free");
        });
    }

    private async Task WithoutDisIntxAsync(Func<Task> body)
    {
        KernelSession session = await kernel.SessionAsync();
        await ReloadAsync(session, "nointxmask=1");
        try
        {
            await body();
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
        // It is not masked: enabling it once more would be a warning of the kernel's.
        await edu.Vfio.UnmaskIntxAsync();

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
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.DisableAsync(IrqIndex.Intx);

        // The same without an interrupt while the bit is set: taking it back enables what was disabled once.
        await edu.Vfio.SetCommandAsync(PciConfiguration.InterruptDisable);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        await edu.Vfio.SetCommandAsync(0, PciConfiguration.InterruptDisable);
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1);
        (await Interrupts.OfAsync(edu.Vfio)).Should().Equal($"vfio-intx({edu.Vfio})");
    }

    private static async Task ReloadAsync(KernelSession session, string parameters)
    {
        const string File = "/modules/vfio-pci.ko";
        (Errno missing, KernelFd? found) = await session.TryOpenAsync(File, writable: false);
        Skipping.UnlessHardware(found is not null, "vfio-pci as a module that this test may unload", $"{File}: {missing}");
        await using KernelFd module = found!;
        foreach (PciFunction function in await PciFunction.ListAsync(session))
        {
            if (await function.DriverAsync(session) == "vfio-pci")
            {
                Expect(await function.TryUnbindAsync(session), $"unbinding {function}");
            }
        }

        CallResult removed = await session.Agent.CallAsync(new SystemCall(session.Numbers.DeleteModule, "delete_module(vfio_pci)").In("vfio_pci\0"u8).Arg(0x800));
        Expect((Errno)removed.Errno, "delete_module(vfio_pci)");
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

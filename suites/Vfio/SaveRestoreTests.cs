// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>What a user of VFIO and KVM carries from one process to the next: entries, their messages, and which are masked.</summary>
public sealed class SaveRestoreTests(KernelUnderTest kernel)
{
    private const uint FirstGsi = 24;
    private static readonly ApicVector Fence = new(0x31);

    private sealed record SavedEntry(uint Entry, MsiMessage Message, bool Masked);

    [Fact]
    [Clause("vfio-irqs/restore/fresh-vm")]
    public async Task SetUpBroughtToAFreshVmAndAReopenedDeviceDeliversAsBefore()
    {
        SavedEntry[] saved =
        [
            new(0, MsiMessage.Fixed(0, new ApicVector(0x61)), Masked: false),
            new(2, MsiMessage.Fixed(0, new ApicVector(0x72)), Masked: true),
            new(4, MsiMessage.Fixed(0, new ApicVector(0x83)), Masked: false),
        ];
        (await DeliveredAsync(saved)).Should().Equal(await DeliveredAsync(saved));
    }

    private async Task<string[]> DeliveredAsync(SavedEntry[] saved)
    {
        await kernel.SessionAsync();
        // Ended with everything in it: a mapped BAR keeps its device open.
        await using KernelSession session = await kernel.CreateSessionAsync();
        await using E1000eDevice nic = await E1000eDevice.OpenAsync(kernel, session);
        await using Vm vm = await Vm.CreateAsync(await KvmSystem.OpenAsync(session), VmOptions.Default);
        var eventfds = new EventFd?[5];
        await vm.SetGsiRoutingAsync([.. saved.Select(s => GsiRoute.Msi(FirstGsi + s.Entry, s.Message))]);
        foreach (SavedEntry entry in saved)
        {
            EventFd eventfd = await session.CreateEventFdAsync();
            await vm.AssignIrqfdAsync(FirstGsi + entry.Entry, eventfd);
            eventfds[entry.Entry] = eventfd;
        }

        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nic.PrepareAsync(IrqIndex.Msix);
        MsixTable table = await MsixTable.MapAsync(nic.Vfio);
        foreach (SavedEntry entry in saved.Where(s => s.Masked))
        {
            await table.MaskAsync(entry.Entry);
        }

        await vm.RunUntilHaltedAsync();
        // The masked one last: this device drops pending bits when its causes are written.
        foreach (SavedEntry entry in saved.OrderBy(s => s.Masked))
        {
            await nic.RaiseAsync(IrqIndex.Msix, entry.Entry);
            if (entry.Masked)
            {
                await table.WaitUntilPendingAsync(entry.Entry);
            }
            else
            {
                await vm.ReadInterruptLogAsync(new ApicVector((byte)entry.Message.Data));
            }
        }

        foreach (SavedEntry entry in saved.Where(s => s.Masked))
        {
            await table.UnmaskAsync(entry.Entry);
            await vm.ReadInterruptLogAsync(new ApicVector((byte)entry.Message.Data));
        }

        foreach (SavedEntry entry in saved)
        {
            await vm.DeassignIrqfdAsync(FirstGsi + entry.Entry, eventfds[entry.Entry]!);
        }

        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Fence));
        string[] taken = [.. (await vm.ReadInterruptLogAsync(Fence)).Select(v => v.ToString())];
        taken.Should().Equal("0x61", "0x83", "0x72", "0x31");
        return taken;
    }
}

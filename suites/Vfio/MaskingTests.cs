// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Snapshots;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>The MSI-X table that user space can map: vector control, pending bits, and what writing messages into it does.</summary>
public sealed class MaskingTests(KernelUnderTest kernel)
{
    private async Task<(E1000eDevice Nic, EventFd[] Eventfds, MsixTable Table)> AttachAsync()
    {
        E1000eDevice nic = await kernel.OpenNicAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync((int)E1000eDevice.Entries);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nic.PrepareAsync(IrqIndex.Msix);
        return (nic, eventfds, await MsixTable.MapAsync(nic.Vfio));
    }

    private static async Task DeliversAsync(E1000eDevice nic, EventFd[] eventfds, uint entry)
    {
        await nic.RaiseAsync(IrqIndex.Msix, entry);
        (await eventfds[entry].WaitAsync()).Should().Be(1);
        (await eventfds.CountsAsync()).Should().Be("- - - - -");
    }

    [Fact]
    [Clause("vfio-irqs/masking/vector-control")]
    [Clause("vfio-irqs/masking/others-unaffected")]
    public async Task MaskedEntryIsPendingAndDeliveredOnceWhenUnmasked()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        await DeliversAsync(nic, eventfds, 2);

        await table.MaskAsync(2);
        await DeliversAsync(nic, eventfds, 3);
        (await table.IsPendingAsync(3)).Should().BeFalse();
        // Nothing else is raised from here on: this device drops pending bits when its causes are written.
        await nic.RaiseAsync(IrqIndex.Msix, 2);
        await table.WaitUntilPendingAsync(2);
        (await eventfds.CountsAsync()).Should().Be("- - - - -");

        await table.UnmaskAsync(2);
        (await eventfds[2].WaitAsync()).Should().Be(1);
        (await table.IsPendingAsync(2)).Should().BeFalse();
        await DeliversAsync(nic, eventfds, 2);
    }

    [Fact]
    [Clause("vfio-irqs/table/region-is-shut")]
    public async Task TableIsShutInTheRegionAndOpenInTheMapping()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        (MsiMessage message, uint control) = await table.ReadAsync(1);
        message.Address.Should().BeInRange(0xfee00000, 0xfeefffff);
        control.Should().Be(0, "an entry with an eventfd is not masked");

        (await table.Bar.ReadAsync(table.Offset, 80)).Should().OnlyContain(b => b == 0xff);
        await table.Bar.WriteAsync(table.Offset + 16, [.. Enumerable.Repeat((byte)1, 16)]);

        (await table.ReadAsync(1)).Should().Be((message, 0u));
        await DeliversAsync(nic, eventfds, 1);
    }

    [Fact]
    [Clause("vfio-irqs/table/foreign-message")]
    [Clause("vfio-irqs/table/set-irqs-repairs")]
    public async Task MessageOfAnotherDeviceReachesNobodyUntilSetIrqsRepairsTheEntry()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        await using VfioDevice other = await kernel.OpenXhciAsync();
        (EventFd[] others, MsiMessage foreign) = await AttachTwoAsync(other);
        (MsiMessage own, uint ownControl) = await table.ReadAsync(1);
        foreign.Should().NotBe(own);

        await table.WriteMessageAsync(1, foreign);
        await nic.RaiseAsync(IrqIndex.Msix, 1);
        await DeliversAsync(nic, eventfds, 2);
        (await others.CountsAsync()).Should().Be("- -");

        await nic.Vfio.AttachAsync(IrqIndex.Msix, 1, eventfds[1]);
        (await table.ReadAsync(1)).Should().Be((own, 0u), "the message is written anew");
        await DeliversAsync(nic, eventfds, 1);
        await DeliversAsync(nic, eventfds, 2);
        (await others.CountsAsync()).Should().Be("- -");
        ownControl.Should().Be(0);
    }

    [Fact]
    [Clause("vfio-irqs/table/own-message")]
    public async Task MessageOfAnotherEntrySignalsThatEntrysEventfd()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        (MsiMessage second, uint control) = await table.ReadAsync(2);

        await table.WriteMessageAsync(1, second);
        await nic.RaiseAsync(IrqIndex.Msix, 1);

        (await eventfds[2].WaitAsync()).Should().Be(1);
        control.Should().Be(0);
        await DeliversAsync(nic, eventfds, 2);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 1, eventfds[1]);
        await DeliversAsync(nic, eventfds, 1);
    }

    [Fact]
    [Clause("vfio-irqs/table/set-irqs-repairs")]
    public async Task ClearedMessageIsWrittenAnewByEveryWayToAttach()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        (MsiMessage own, uint control) = await table.ReadAsync(4);
        foreach (bool detached in new[] { false, true })
        {
            await table.WriteMessageAsync(4, new MsiMessage(0, 0));
            if (detached)
            {
                await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, (KernelFd?)null);
            }

            await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, eventfds[4]);
            (await table.ReadAsync(4)).Should().Be((own, control));
            await DeliversAsync(nic, eventfds, 4);
        }
    }

    [Fact]
    [Clause("vfio-irqs/table/set-irqs-repairs")]
    public async Task TableIsWrittenWhileMemoryDecodingIsOff()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        (MsiMessage own, uint control) = await table.ReadAsync(4);
        await table.WriteMessageAsync(4, new MsiMessage(0, 0));

        await nic.Vfio.SetCommandAsync(0, PciConfiguration.MemorySpace);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, (KernelFd?)null);
        await nic.Vfio.AttachAsync(IrqIndex.Msix, 4, eventfds[4]);
        VfioRegion config = await nic.Vfio.ConfigAsync();
        ((await config.ReadUInt16Async(PciConfiguration.Command)) & PciConfiguration.MemorySpace).Should().Be(0);
        (await (await nic.Vfio.RegionAsync(0)).TryReadAsync(0, 4)).Error.Should().Be(Errno.EIO, "decoding is off again");
        await nic.Vfio.SetCommandAsync(PciConfiguration.MemorySpace);

        (await table.ReadAsync(4)).Should().Be((own, control));
        await DeliversAsync(nic, eventfds, 4);
    }

    [Fact]
    [Clause("vfio-irqs/table/decoding-off")]
    public async Task EntriesAreEnabledAddedAndTakenAwayWhileMemoryDecodingIsOff()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync((int)E1000eDevice.Entries);
        await nic.PrepareAsync(IrqIndex.Msix);
        MsixTable table = await MsixTable.MapAsync(nic.Vfio);
        uint added = kernel.Has("vfio-dynamic-msix") ? 4u : 1u;

        await WithoutDecodingAsync(() => nic.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds[0], eventfds[1]));
        await DeliversAsync(nic, eventfds, 0);
        await DeliversAsync(nic, eventfds, 1);
        await WithoutDecodingAsync(() => nic.Vfio.AttachAsync(IrqIndex.Msix, added, eventfds[added]));
        await DeliversAsync(nic, eventfds, added);
        await WithoutDecodingAsync(() => nic.Vfio.AttachAsync(IrqIndex.Msix, added, (KernelFd?)null));
        (await table.IsMaskedAsync(added)).Should().BeTrue("an entry without eventfd is masked in the device");
        (await table.IsMaskedAsync(0)).Should().BeFalse();
        await DeliversAsync(nic, eventfds, 0);
        await WithoutDecodingAsync(() => nic.Vfio.DisableAsync(IrqIndex.Msix));
        (await table.IsMaskedAsync(0)).Should().BeTrue();
        await WithoutDecodingAsync(async () => (await nic.Vfio.TryAttachAsync(IrqIndex.Msix, 0)).Should().Be(Errno.ERANGE));

        async Task WithoutDecodingAsync(Func<Task> body)
        {
            await nic.Vfio.SetCommandAsync(0, PciConfiguration.MemorySpace);
            await body();
            (await nic.Vfio.Function.ReadCommandAsync(nic.Session) & PciConfiguration.MemorySpace).Should().Be(0, "decoding is off in the device again");
            await nic.Vfio.SetCommandAsync(PciConfiguration.MemorySpace);
        }
    }

    [Fact]
    [Clause("vfio-irqs/table/foreign-message")]
    [Clause("vfio-irqs/table/own-message")]
    [Clause("vfio-irqs/table/region-is-shut")]
    [Clause("vfio-irqs/table/set-irqs-repairs")]
    [Clause("vfio-irqs/masking/vector-control")]
    public async Task WhoGetsAnInterruptWhoseEntryTheUserHasWritten()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        await using VfioDevice other = await kernel.OpenXhciAsync();
        (EventFd[] others, MsiMessage foreign) = await AttachTwoAsync(other);
        (MsiMessage second, uint _) = await table.ReadAsync(2);
        var page = new List<string> { $"e1000e: {table.Entries} entries in BAR {table.Bar.Index}, which can be mapped", "", "  written to entry 1                     its interrupt is seen by" };

        await RowAsync(1, "nothing", () => Task.CompletedTask);
        await RowAsync(1, "through the region: 16 bytes of 1", () => table.Bar.WriteAsync(table.Offset + 16, [.. Enumerable.Repeat((byte)1, 16)]));
        await RowAsync(2, "mapped: the message of entry 2", () => table.WriteMessageAsync(1, second));
        await RowAsync(null, "mapped: another device's message", () => table.WriteMessageAsync(1, foreign));
        await RowAsync(1, "SET_IRQS with its eventfd", () => nic.Vfio.AttachAsync(IrqIndex.Msix, 1, eventfds[1]));
        await RowAsync(null, "mapped: the mask bit", () => table.MaskAsync(1));
        await RowAsync(1, "mapped: no mask bit", () => table.UnmaskAsync(1));

        Snapshot.Verify(string.Join('\n', page) + "\n", null);

        // Interrupts of two entries are not taken in their order on two processors: what is expected is waited for, and only the rest is fenced off.
        async Task RowAsync(int? expected, string written, Func<Task> write)
        {
            await write();
            await nic.RaiseAsync(IrqIndex.Msix, 1);
            List<string> seen = expected is { } entry ? [$"eventfd {entry}, {await eventfds[entry].WaitAsync()} time(s)"] : [];
            await nic.RaiseAsync(IrqIndex.Msix, 4);
            (await eventfds[4].WaitAsync()).Should().Be(1);
            for (int i = 0; i < eventfds.Length; i++)
            {
                if (await eventfds[i].ReadAsync() is { } count)
                {
                    seen.Add($"eventfd {i}, {count} time(s) more");
                }
            }

            if (await others.CountsAsync() != "- -")
            {
                seen.Add("the other device's eventfds");
            }

            page.Add($"  {written,-38} {string.Join(", ", seen.DefaultIfEmpty("nobody"))}");
        }
    }

    [Fact]
    [Clause("vfio-irqs/masking/function-mask")]
    public async Task ControlOfTheMsixCapabilityCannotBeWritten()
    {
        (E1000eDevice nic, EventFd[] eventfds, MsixTable table) = await AttachAsync();
        await using E1000eDevice _ = nic;
        const ushort Enable = 0x8000, FunctionMask = 0x4000;
        ulong at = (await nic.Vfio.FindCapabilityAsync(PciConfiguration.MsixCapability))!.Value + 2u;
        VfioRegion config = await nic.Vfio.ConfigAsync();
        const ushort InUse = Enable | (ushort)(E1000eDevice.Entries - 1);
        (await config.ReadUInt16Async(at)).Should().Be(InUse);

        foreach (ushort written in new ushort[] { InUse | FunctionMask, 0, FunctionMask })
        {
            await config.WriteUInt16Async(at, written);
            (await config.ReadUInt16Async(at)).Should().Be(InUse);
            (await nic.Vfio.Function.ReadConfigAsync(nic.Session, at)).Should().Be(InUse);
            await DeliversAsync(nic, eventfds, 2);
        }

        table.Entries.Should().Be(E1000eDevice.Entries);
        await nic.Vfio.DisableAsync(IrqIndex.Msix);
        (await config.ReadUInt16Async(at)).Should().Be(InUse & ~Enable, "the capability follows the index");
        await config.WriteUInt16Async(at, InUse);
        (await config.ReadUInt16Async(at)).Should().Be(InUse & ~Enable, "and only that");
    }

    /// <summary>Puts two entries of a device in use; with them the message of the first.</summary>
    private async Task<(EventFd[] Eventfds, MsiMessage Message)> AttachTwoAsync(VfioDevice device)
    {
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await device.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await device.SetCommandAsync(PciConfiguration.MemorySpace);
        (MsiMessage message, uint control) = await (await MsixTable.MapAsync(device)).ReadAsync(0);
        control.Should().Be(0);
        return (eventfds, message);
    }
}

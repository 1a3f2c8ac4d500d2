// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>What is raced or counted, at the speed of the kernel under test.</summary>
public sealed class StormTests(KernelUnderTest kernel)
{
    private const int Rounds = 500;

    private static async Task<ulong> PlaceAsync(Mapping memory, ulong offset, IrqSet set)
    {
        await memory.WriteAsync(offset, set.ToBytes());
        return memory.Address + offset;
    }

    private static ProgramThread Ioctl(ProgramThread thread, VfioDevice device, ulong argument) => thread.Call(
        device.Session.Numbers.Ioctl, [(ulong)device.Fd.Number, VfioIoctl.VFIO_DEVICE_SET_IRQS.Number, argument]);

    [Theory]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [Clause("vfio-irqs/storm/accounted")]
    public async Task EveryTriggerOfAStormIsCounted(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(16);
        await device.AttachAsync(index, 0, eventfds);
        Mapping memory = await device.Session.MapAnonymousAsync(4096, "requests");
        ulong all = await PlaceAsync(memory, 0, IrqSet.None(index, IrqAction.Trigger, 0, 16));
        ulong some = await PlaceAsync(memory, 64, IrqSet.Bools(index, IrqAction.Trigger, 4, 1, 0, 1));

        var program = new AgentProgram("trigger from two threads");
        Ioctl(program.Thread(0), device, all).Loop(0, Rounds - 1);
        Ioctl(program.Thread(1), device, some).Loop(0, Rounds - 1);
        ProgramOutcome outcome = await device.Session.Agent.RunProgramAsync(program);

        outcome.Threads.Should().OnlyContain(t => t[0].Failures == 0 && t[0].Runs == Rounds);
        (await eventfds.CountsAsync()).Should().Be(string.Join(' ', Enumerable.Range(0, 16).Select(i => i is 4 or 6 ? 2 * Rounds : Rounds)));
    }

    [Fact]
    [Clause("vfio-irqs/eventfd/replaces")]
    [Clause("vfio-irqs/storm/accounted")]
    public async Task ReplacingWhileTriggeringLosesAndDoublesNothing()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(3);
        await device.AttachAsync(IrqIndex.Msix, 0, eventfds[0], eventfds[2]);
        Mapping memory = await device.Session.MapAnonymousAsync(4096, "requests");
        ulong trigger = await PlaceAsync(memory, 0, IrqSet.None(IrqIndex.Msix, IrqAction.Trigger, 0, 2));
        ulong first = await PlaceAsync(memory, 64, IrqSet.Eventfds(IrqIndex.Msix, IrqAction.Trigger, 0, eventfds[0]));
        ulong second = await PlaceAsync(memory, 128, IrqSet.Eventfds(IrqIndex.Msix, IrqAction.Trigger, 0, eventfds[1]));

        var program = new AgentProgram("trigger while replacing");
        Ioctl(program.Thread(0), device, trigger).Loop(0, Rounds - 1);
        Ioctl(Ioctl(program.Thread(1), device, second), device, first).Loop(0, 50);
        ProgramOutcome outcome = await device.Session.Agent.RunProgramAsync(program);

        outcome.Threads.Should().OnlyContain(t => t[0].Failures == 0);
        ulong taken = (await eventfds[0].ReadAsync() ?? 0) + (await eventfds[1].ReadAsync() ?? 0);
        taken.Should().Be(Rounds, "each trigger hits whichever eventfd is attached");
        (await eventfds[2].ReadAsync()).Should().Be(Rounds);
    }

    [Fact]
    [Clause("vfio-irqs/intx/disint")]
    [FixedBy("fe9a7082684e", "vfio/pci: Disable auto-enable of exclusive INTx IRQ")]
    [FixedBy("810cd4bb5345", "vfio/pci: Lock external INTx masking ops")]
    public async Task LineSurvivesMaskingFromTheIoctlAndFromConfigSpaceAtOnce()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await edu.PrepareAsync(IrqIndex.Intx);
        await edu.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        KernelSession session = edu.Session;
        Mapping memory = await session.MapAnonymousAsync(4096, "requests");
        Mapping bar = await (await edu.Vfio.RegionAsync(0)).MapAsync();
        VfioRegion config = await edu.Vfio.ConfigAsync();
        ushort command = await config.ReadUInt16Async(PciConfiguration.Command);
        await memory.WriteUInt32Async(0, (uint)command | PciConfiguration.InterruptDisable);
        await memory.WriteUInt32Async(8, command);
        ulong mask = await PlaceAsync(memory, 64, IrqSet.None(IrqIndex.Intx, IrqAction.Mask));
        ulong unmask = await PlaceAsync(memory, 128, IrqSet.None(IrqIndex.Intx, IrqAction.Unmask));

        var program = new AgentProgram("mask by ioctl and by config space while the line moves");
        Ioctl(Ioctl(program.Thread(0), edu.Vfio, mask), edu.Vfio, unmask).Loop(0, 100);
        program.Thread(1)
            .Call(session.Numbers.Pwrite64, [(ulong)edu.Vfio.Fd.Number, memory.Address, 2, config.Offset + PciConfiguration.Command])
            .Call(session.Numbers.Pwrite64, [(ulong)edu.Vfio.Fd.Number, memory.Address + 8, 2, config.Offset + PciConfiguration.Command])
            .Loop(0, 100);
        program.Thread().Store(bar.Address + 0x60, 4, 1).Store(bar.Address + 0x64, 4, 1).Loop(0, 100);
        ProgramOutcome outcome = await session.Agent.RunProgramAsync(program);

        outcome.End.Should().Be(ProgramEnd.Finished);
        await edu.AcknowledgeAsync(IrqIndex.Intx);
        await edu.Vfio.UnmaskIntxAsync();
        await edu.Vfio.TriggerAsync(IrqIndex.Intx);
        (await eventfd.ReadAsync()).Should().BePositive();
        await edu.RaiseAsync(IrqIndex.Intx);
        (await eventfd.WaitAsync()).Should().Be(1, "the line works as before");
    }

    [Fact]
    [Clause("vfio-irqs/storm/device")]
    public async Task InterruptsOfADeviceStormAreDeliveredOrCoalescedAndTheLastIsDelivered()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await edu.PrepareAsync(IrqIndex.Msi);
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfd);
        Mapping bar = await (await edu.Vfio.RegionAsync(0)).MapAsync();

        var program = new AgentProgram("raise");
        program.Thread().Store(bar.Address + 0x60, 4, 1).Loop(0, Rounds - 1);
        await edu.Session.Agent.RunProgramAsync(program);
        ulong counted = await eventfd.WaitAsync();
        counted += await eventfd.ReadAsync() ?? 0;

        counted.Should().BeInRange(1, Rounds);
        await edu.RaiseAsync(IrqIndex.Msi);
        (await eventfd.WaitAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("vfio-irqs/delivery/msix")]
    [Clause("vfio-irqs/storm/device")]
    public async Task EachOfSixtyFourEntriesIsDeliveredAloneAndInAStorm()
    {
        const uint Queues = 63;
        const int Commands = 8;
        await using NvmeDevice nvme = await kernel.OpenNvmeAsync(Queues);
        EventFd[] eventfds = await kernel.CreateEventFdsAsync((int)Queues + 1);
        await nvme.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfds);
        await nvme.PrepareAsync(IrqIndex.Msix);
        (await eventfds[0].WaitAsync()).Should().BePositive("the queues were made by commands of entry 0");

        for (uint entry = 1; entry <= Queues; entry++)
        {
            await nvme.RaiseAsync(IrqIndex.Msix, entry);
            (await eventfds[entry].WaitAsync()).Should().Be(1, $"entry {entry} interrupts");
        }

        (await eventfds[1..].CountsAsync()).Should().Be(string.Join(' ', Enumerable.Repeat("-", (int)Queues)), "no other entry was signalled");

        // The queues hold all of it: nothing is taken while the storm lasts.
        Mapping bar = await (await nvme.Vfio.RegionAsync(nvme.RegisterBar)).MapAsync();
        var program = new AgentProgram("commands for every queue");
        ProgramThread[] threads = [program.Thread(0), program.Thread(1)];
        for (int i = 0; i < Commands; i++)
        {
            for (uint entry = 1; entry <= Queues; entry++)
            {
                (ulong offset, uint value) = nvme.RaisingWrites(IrqIndex.Msix, entry)[^1];
                threads[entry % 2].Store(bar.Address + offset, 4, value);
            }
        }

        (await nvme.Session.Agent.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);
        for (uint entry = 1; entry <= Queues; entry++)
        {
            ulong counted = await eventfds[entry].WaitAsync();
            // It interrupts as before.
            await nvme.RaiseAsync(IrqIndex.Msix, entry);
            counted += await eventfds[entry].WaitAsync();
            counted += await eventfds[entry].ReadAsync() ?? 0;
            counted.Should().BeInRange(2, Commands + 1, $"entry {entry} had {Commands + 1} commands");
        }
    }
}

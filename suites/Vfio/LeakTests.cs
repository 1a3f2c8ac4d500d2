// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>What is done hundreds of times leaves nothing behind: the kernel's own count of its small objects, before and after.</summary>
public sealed class LeakTests(KernelUnderTest kernel)
{
    private const ulong Rounds = 600;

    // Processors keep slabs of their own, each of which counts whole, with 128 objects of the smallest: the count is not exact.
    private const long Tolerated = 400;

    public static TheoryData<IrqIndex> Indexes => [IrqIndex.Intx, IrqIndex.Msix];

    [Theory, MemberData(nameof(Indexes))]
    [Clause("vfio-irqs/leak/attach-and-detach")]
    public async Task AttachingRefusingAndTakingAwayLeaveNothing(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        KernelSession session = device.Session;
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        Mapping memory = await session.MapAnonymousAsync(4096, "requests");
        bool ranged = index is IrqIndex.Msi or IrqIndex.Msix;
        if (ranged)
        {
            // Another entry keeps the index in use.
            await device.AttachAsync(index, 0, [null, null, null, null, null, null, null, null, eventfds[1]]);
        }

        int[] Numbers(params int[] first) => ranged ? [.. first, .. Enumerable.Repeat(-1, 8 - first.Length)] : first[^1..];
        IrqSet[] requests =
        [
            IrqSet.Descriptors(index, IrqAction.Trigger, 0, Numbers(eventfds[0].Number)),
            IrqSet.Descriptors(index, IrqAction.Trigger, 0, Numbers(eventfds[0].Number, 9999)),
            index == IrqIndex.Intx ? IrqSet.None(index, IrqAction.Trigger, 0, 0) : IrqSet.Descriptors(index, IrqAction.Trigger, 0, Numbers(-1)),
        ];
        for (int i = 0; i < requests.Length; i++)
        {
            await memory.WriteAsync((ulong)i * 64, requests[i].ToBytes());
        }

        await RunAsync(100);
        long before = await session.CountSmallObjectsAsync(copies: true);
        await RunAsync(Rounds);

        long growth = await session.CountSmallObjectsAsync(copies: true) - before;
        growth.Should().BeLessThan(Tolerated, "{0} rounds leave nothing behind", Rounds);

        async Task RunAsync(ulong rounds)
        {
            var program = new AgentProgram($"{rounds} rounds of {index}") { Deadline = TimeSpan.FromSeconds(40) };
            ProgramThread thread = program.Thread();
            for (int i = 0; i < requests.Length; i++)
            {
                thread.Call(session.Numbers.Ioctl, [(ulong)device.Fd.Number, VfioIoctl.VFIO_DEVICE_SET_IRQS.Number, memory.Address + ((ulong)i * 64)]);
            }

            thread.Loop(0, rounds - 1);
            ProgramOutcome outcome = await session.Agent.RunProgramAsync(program);
            outcome.End.Should().Be(ProgramEnd.Finished);
            outcome.Threads[0].Take(3).Select(s => s.Failures).Should().Equal(0, rounds, 0);
        }
    }
}

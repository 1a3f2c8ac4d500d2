// SPDX-License-Identifier: MIT
using Conformance.Kvm;
using FluentAssertions;

namespace Conformance.Vfio;

/// <summary>
/// Tells whether the kernel let go of an eventfd: the number in its fdinfo is given to the next one when nobody holds it any more.
/// </summary>
internal sealed class ReleasedEventfds(KernelSession session)
{
    public async Task ExpectAsync(string when, Func<EventFd, Task> use)
    {
        EventFd used = await session.CreateEventFdAsync();
        int number = await used.ReadIdAsync();
        await use(used);
        await used.CloseAsync();
        // Some are let go of only after an RCU grace period, which nothing here can wait for: ask until it is over.
        using var patience = new CancellationTokenSource(session.EventPatience);
        int next;
        do
        {
            await using EventFd again = await session.CreateEventFdAsync();
            next = await again.ReadIdAsync();
        }
        while (next != number && !patience.IsCancellationRequested);
        next.Should().Be(number, $"an eventfd that was {when} is released");
    }
}

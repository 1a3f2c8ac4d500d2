// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>
/// Two devices on one line. An interrupt of the line asks every handler in the order in which they were installed: what the first does is done
/// when the second one's eventfd is signalled.
/// </summary>
public sealed class SharedIntxTests(KernelUnderTest kernel)
{
    private async Task<(InterruptingDevice First, EventFd FirstEventfd, InterruptingDevice Second, EventFd SecondEventfd)> AttachAsync(bool nicFirst)
    {
        (E1000eDevice nic, EduDevice edu) = await kernel.OpenSharedLineAsync();
        InterruptingDevice first = nicFirst ? nic : edu, second = nicFirst ? edu : nic;
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        foreach ((InterruptingDevice device, EventFd eventfd) in new[] { (first, eventfds[0]), (second, eventfds[1]) })
        {
            await device.PrepareAsync(IrqIndex.Intx);
            await device.Vfio.AttachAsync(IrqIndex.Intx, 0, eventfd);
        }

        return (first, eventfds[0], second, eventfds[1]);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("vfio-irqs/intx/shared-line")]
    public async Task InterruptOfOneDeviceSignalsNothingForTheOther(bool nicFirst)
    {
        (InterruptingDevice first, EventFd firstEventfd, InterruptingDevice second, EventFd secondEventfd) = await AttachAsync(nicFirst);
        await using InterruptingDevice _ = first;
        await using InterruptingDevice __ = second;

        await second.RaiseAsync(IrqIndex.Intx);
        (await secondEventfd.WaitAsync()).Should().Be(1);
        (await firstEventfd.ReadAsync()).Should().BeNull("its device is silent");
        await second.AcknowledgeAsync(IrqIndex.Intx);
        await second.Vfio.UnmaskIntxAsync();

        // The silent one was not masked by that.
        await first.RaiseAsync(IrqIndex.Intx);
        (await firstEventfd.WaitAsync()).Should().Be(1);
        (await secondEventfd.ReadAsync()).Should().BeNull();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("vfio-irqs/intx/shared-line-masked")]
    public async Task LineThatIsUpAndMaskedSignalsNothingWhenTheOtherDeviceInterrupts(bool nicFirst)
    {
        (InterruptingDevice first, EventFd firstEventfd, InterruptingDevice second, EventFd secondEventfd) = await AttachAsync(nicFirst);
        await using InterruptingDevice _ = first;
        await using InterruptingDevice __ = second;
        await first.RaiseAsync(IrqIndex.Intx);
        (await firstEventfd.WaitAsync()).Should().Be(1);

        for (int i = 0; i < 2; i++)
        {
            await second.RaiseAsync(IrqIndex.Intx);
            (await secondEventfd.WaitAsync()).Should().Be(1);
            (await firstEventfd.ReadAsync()).Should().BeNull("it is masked since it signalled");
            await second.AcknowledgeAsync(IrqIndex.Intx);
            await second.Vfio.UnmaskIntxAsync();
        }

        await first.Vfio.UnmaskIntxAsync();
        (await firstEventfd.WaitAsync()).Should().Be(1, "its line is still up");
    }
}

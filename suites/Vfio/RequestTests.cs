// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>Somebody wants a device back that is in use.</summary>
public sealed class RequestTests(KernelUnderTest kernel)
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("vfio-irqs/err-req/request")]
    [Clause("vfio-irqs/teardown/hot-unplug")]
    public async Task DeviceThatIsTakenAwaySignalsReqAndIsGoneWhenClosed(bool removed)
    {
        await kernel.SessionAsync();
        KernelSession owner = await kernel.CreateSessionAsync();
        EduDevice edu = await kernel.OpenEduAsync();
        PciFunction function = edu.Vfio.Function;
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(3);
        await edu.PrepareAsync(IrqIndex.Msi);
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfds[0]);
        await edu.Vfio.AttachAsync(IrqIndex.Req, 0, eventfds[1]);

        Task<Errno> gone = removed ? function.TryRemoveAsync(owner) : function.TryUnbindAsync(owner);
        (await eventfds[1].WaitAsync()).Should().BePositive();
        gone.IsCompleted.Should().BeFalse("the device is still open");
        await edu.RaiseAsync(IrqIndex.Msi);
        (await eventfds[0].WaitAsync()).Should().Be(1, "it works until it is closed");

        await edu.DisposeAsync();
        (await gone).Should().Be(Errno.None);
        if (removed)
        {
            await PciFunction.RescanAsync(owner);
        }

        await using EduDevice again = await kernel.OpenEduAsync();
        await again.PrepareAsync(IrqIndex.Msi);
        await again.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfds[2]);
        await again.RaiseAsync(IrqIndex.Msi);
        (await eventfds[2].WaitAsync()).Should().Be(1);
        (await eventfds[0].ReadAsync()).Should().BeNull();
    }
}

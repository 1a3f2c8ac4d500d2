// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>A device that comes and goes as the machine does it: the slot tells the kernel.</summary>
public sealed class HotPlugTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private static readonly ApicVector Firing = new(0x51), Asked = new(0x61), Closed = new(0x71), Fence = new(0x31);

    [Fact]
    [Clause("vfio-irqs/err-req/request")]
    [Clause("vfio-irqs/teardown/hot-unplug")]
    [Clause("vfio-irqs/teardown/close-while-firing")]
    public async Task DeviceThatIsUnpluggedWhileItFiresIsAskedForAndGoneWhenClosed()
    {
        await using PluggedDevice plugged = await PluggedDevice.PlugAsync(kernel, "edu");
        await using EduDevice edu = await kernel.OpenPluggedEduAsync();
        PciFunction function = edu.Vfio.Function;
        await using Vm vm = await kernel.CreateVmAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(2);
        await RouteToAsync(Firing);
        await vm.AssignIrqfdAsync(Gsi, eventfds[0]);
        await vm.RunUntilHaltedAsync();
        await edu.PrepareAsync(IrqIndex.Msi);
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfds[0]);
        await edu.Vfio.AttachAsync(IrqIndex.Req, 0, eventfds[1]);
        Mapping registers = await (await edu.Vfio.RegionAsync(edu.RegisterBar)).MapAsync();
        var raise = new AgentProgram("raise while the slot is emptied");
        ProgramThread thread = raise.Thread();
        foreach ((ulong offset, uint value) in edu.RaisingWrites(IrqIndex.Msi))
        {
            thread.Store(registers.Address + offset, 4, value);
        }

        thread.Loop(0, 500);
        Task<ProgramOutcome> raising = edu.Session.Agent.RunProgramAsync(raise);

        await plugged.UnplugAsync();
        (await eventfds[1].WaitAsync()).Should().BePositive();
        await raising;
        plugged.IsGone.Should().BeFalse("the device is still open");
        await RouteToAsync(Asked);
        await edu.RaiseAsync(IrqIndex.Msi);
        await vm.Vcpus[0].ReadInterruptLogAsync(Asked);

        await registers.UnmapAsync();
        await edu.DisposeAsync();
        await plugged.WaitUntilGoneAsync();
        (await PciFunction.ListAsync(edu.Session)).Should().NotContain(function);
        await RouteToAsync(Closed);
        await eventfds[0].SignalAsync();
        await vm.Vcpus[0].ReadInterruptLogAsync(Closed);
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Fence));
        ApicVector[] taken = await vm.Vcpus[0].ReadInterruptLogAsync(Fence);
        taken.SkipWhile(v => v == Firing).Should().Equal(Asked, Closed, Fence);

        Task RouteToAsync(ApicVector vector) => vm.SetGsiRoutingAsync([GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, vector))]);
    }
}

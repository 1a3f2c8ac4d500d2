// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>
/// A device model in a process of its own. The VMM passes it the doorbell's eventfd, the interrupt's eventfd and the memory; the guest
/// writes a request into the ring and rings, the backend answers into the ring and interrupts.
/// </summary>
public sealed class BackendProcessTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private const ulong Doorbell = 0xd0000000;
    private const ulong Ring = 0x08000000;
    private const ulong RingSize = 0x10000;
    private static readonly ApicVector Vector = Vectors.A;

    // What the guest and the backend agree on: a request and its answer per slot of 16 bytes.
    private static ulong Slot(uint request) => request % 64 * 16;

    private sealed class Frontend(Vm vm, EventFd kick, EventFd call, KernelFd memory) : IAsyncDisposable
    {
        private uint _requests;

        public Vm Vm { get; } = vm;

        public EventFd Kick { get; set; } = kick;

        public EventFd Call { get; set; } = call;

        public KernelFd Memory { get; } = memory;

        /// <summary>One request through the whole chain; what the guest read as its answer.</summary>
        public async Task<ulong> AskAsync(Backend backend, uint value)
        {
            Vcpu vcpu = Vm.Vcpus[0];
            ulong slot = Ring + Slot(_requests++);
            await vcpu.StartAsync(new GuestScript
            {
                GuestCommand.Store(slot, value), GuestCommand.Store(Doorbell, _requests), GuestCommand.HaltUntilTaken(Vector, _requests), GuestCommand.Load(slot + 8),
            });
            await backend.ServeAsync(_requests - 1);
            return (await vcpu.FinishAsync())[3].Value;
        }

        public async Task RouteAsync()
        {
            await Vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vector)));
            await Vm.AssignIrqfdAsync(Gsi, Call);
            await Vm.AssignIoeventfdAsync(new Ioeventfd(Doorbell, 4), Kick);
        }

        public ValueTask DisposeAsync() => Vm.DisposeAsync();
    }

    private sealed class Backend(KernelSession session, EventFd kick, EventFd call, Mapping ring)
    {
        public KernelSession Session { get; } = session;

        public EventFd Kick { get; } = kick;

        public EventFd Call { get; } = call;

        public async Task ServeAsync(uint request)
        {
            (await Kick.WaitAsync()).Should().Be(1, "the guest rang once");
            uint value = await ring.ReadUInt32Async(Slot(request));
            await ring.WriteUInt32Async(Slot(request) + 8, ~value);
            await Call.SignalAsync();
        }
    }

    private async Task<Frontend> CreateAsync()
    {
        Vm vm = await kernel.CreateVmAsync();
        KernelFd memory = await vm.Session.CreateSharedMemoryAsync(RingSize, "ring");
        Mapping mapping = await vm.Session.MapAsync(memory, RingSize, 0, "ring");
        await vm.SetMemoryRegionAsync(1, Ring, RingSize, mapping.Address);
        var frontend = new Frontend(vm, await kernel.CreateEventFdAsync(), await kernel.CreateEventFdAsync(), memory);
        await frontend.RouteAsync();
        await vm.BootAsync();
        return frontend;
    }

    private async Task<Backend> ConnectAsync(Frontend frontend)
    {
        KernelSession session = await kernel.CreateSessionAsync();
        (DescriptorChannel vmm, DescriptorChannel device) = await DescriptorChannel.ConnectAsync(frontend.Vm.Session, session);
        await using DescriptorChannel first = vmm, second = device;
        await vmm.SendAsync(frontend.Kick, frontend.Call);
        EventFd[] eventfds = await device.ReceiveEventFdsAsync("kick", "call");
        await vmm.SendAsync(frontend.Memory);
        KernelFd memory = await device.ReceiveAsync("ring");
        return new Backend(session, eventfds[0], eventfds[1], await session.MapAsync(memory, RingSize, 0, "ring"));
    }

    [Fact]
    [Clause("backend-process/kick-reaches-the-backend")]
    [Clause("backend-process/completion-reaches-the-guest")]
    public async Task RequestsAreServedByAnotherProcess()
    {
        await using Frontend frontend = await CreateAsync();
        Backend backend = await ConnectAsync(frontend);

        foreach (uint value in new uint[] { 0x12345678, 1, 0, 0xffffffff, 0xdeadbeef })
        {
            (await frontend.AskAsync(backend, value)).Should().Be(~value);
        }

        (await frontend.Vm.Vcpus[0].ReadLogAsync()).Vectors.Should().Equal(Vector, Vector, Vector, Vector, Vector);
    }

    [Fact]
    [Clause("backend-process/vmm-may-close-its-copies")]
    public async Task VmmMayCloseItsCopies()
    {
        await using Frontend frontend = await CreateAsync();
        Backend backend = await ConnectAsync(frontend);

        await frontend.Kick.CloseAsync();
        await frontend.Call.CloseAsync();
        await frontend.Memory.CloseAsync();

        (await frontend.AskAsync(backend, 0x1111)).Should().Be(~0x1111u);
        (await frontend.AskAsync(backend, 0x2222)).Should().Be(~0x2222u);
    }

    [Fact]
    [Clause("backend-process/death-releases")]
    [Clause("backend-process/replacement")]
    [Clause("kvm-irqfd/close/signaller-may-die")]
    public async Task DeadBackendIsReplaced()
    {
        await using Frontend frontend = await CreateAsync();
        Vm vm = frontend.Vm;
        Backend backend = await ConnectAsync(frontend);
        (await frontend.AskAsync(backend, 0x1111)).Should().Be(~0x1111u);
        int callId = await frontend.Call.ReadIdAsync();
        await frontend.Call.CloseAsync();

        await backend.Session.DisposeAsync();

        // The last holder of the interrupt's eventfd is gone, so its irqfd went; deassigning anything waits for that.
        await using (EventFd fence = await kernel.CreateEventFdAsync())
        {
            await vm.DeassignIrqfdAsync(99, fence);
        }

        EventFd call = await kernel.CreateEventFdAsync();
        (await call.ReadIdAsync()).Should().Be(callId, "nothing holds the old one");
        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Doorbell, 1))).Should().BeEmpty("the doorbell is still there");
        (await frontend.Kick.ReadAsync()).Should().Be(1);

        await vm.DeassignIoeventfdAsync(new Ioeventfd(Doorbell, 4), frontend.Kick);
        frontend.Kick = await kernel.CreateEventFdAsync();
        frontend.Call = call;
        await frontend.RouteAsync();
        Backend replacement = await ConnectAsync(frontend);
        (await frontend.AskAsync(replacement, 0x3333)).Should().Be(~0x3333u);
    }

    [Fact]
    [Clause("backend-process/liar")]
    public async Task BackendThatLiesHarmsOnlyItsOwnInterrupt()
    {
        await using Frontend frontend = await CreateAsync();
        Vm vm = frontend.Vm;
        Backend backend = await ConnectAsync(frontend);
        await using EventFd innocent = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vector)), GsiRoute.Msi(Gsi + 1, MsiMessage.Fixed(0, Vectors.D)));
        await vm.AssignIrqfdAsync(Gsi + 1, innocent);

        // The doorbell rung by the wrong side, then a flood of completions nobody asked for.
        await backend.Kick.SignalAsync(3);
        Mapping one = await backend.Session.MapAnonymousAsync(4096, "one");
        await one.WriteUInt64Async(0, 1);
        var flood = new AgentProgram("flood of completions");
        flood.Thread().Call(backend.Session.Numbers.Write, [(ulong)backend.Call.Number, one.Address, 8]).Loop(0, 5000);
        (await backend.Session.Agent.RunProgramAsync(flood)).Threads[0][0].Failures.Should().Be(0);
        await vm.DeassignIrqfdAsync(Gsi, frontend.Call);

        (await vm.TakeAsync()).Should().Be("0x41", "pending is pending, however often");
        await innocent.SignalAsync();
        (await vm.TakeAsync()).Should().Be("0x74");
        (await frontend.Kick.ReadAsync()).Should().Be(3);
    }
}

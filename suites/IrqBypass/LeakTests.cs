// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>What is done hundreds of times leaves nothing behind: the kernel's own count of its small objects, before and after.</summary>
public sealed class LeakTests(KernelUnderTest kernel)
{
    private const ulong Rounds = 600;

    // Processors keep slabs of their own, which grow once and for all: a leak grows in every batch, by an object per round at least.
    private const int Batches = 4;
    private const long Tolerated = (long)Rounds / 2;

    private static async Task ExpectNoGrowthAsync(KernelSession session, long tolerated, Func<Task> batch)
    {
        var growths = new List<long>();
        do
        {
            long before = await session.CountSmallObjectsAsync();
            await batch();
            growths.Add(await session.CountSmallObjectsAsync() - before);
        }
        while (growths[^1] >= tolerated && growths.Count < Batches);

        growths[^1].Should().BeLessThan(tolerated, "nothing is left behind by one of the batches, which grew by {0}", string.Join(", ", growths));
    }

    private sealed class Arguments(Mapping memory)
    {
        private ulong _used;

        public async Task<ulong> AddAsync(byte[] argument)
        {
            ulong at = _used;
            _used += ((ulong)argument.Length + 63) / 64 * 64;
            await memory.WriteAsync(at, argument);
            return memory.Address + at;
        }

        public Task<ulong> AddAsync<T>(T argument)
            where T : unmanaged => AddAsync(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in argument)).ToArray());
    }

    private static async Task<Arguments> MapAsync(Vm vm) => new(await vm.Session.MapAnonymousAsync(1 << 20, "arguments"));

    private static async Task ExpectNoGrowthAsync(Vm vm, Ioctl request, params (ulong Argument, Errno Error)[] calls)
    {
        async Task RunAsync(ulong rounds)
        {
            var program = new AgentProgram($"{rounds} rounds of {request.Name}") { Deadline = TimeSpan.FromSeconds(40) };
            ProgramThread thread = program.Thread();
            foreach ((ulong argument, _) in calls)
            {
                thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, request.Number, argument]);
            }

            thread.Loop(0, rounds - 1);
            ProgramOutcome outcome = await vm.Session.Agent.RunProgramAsync(program);
            outcome.End.Should().Be(ProgramEnd.Finished);
            for (int i = 0; i < calls.Length; i++)
            {
                StepOutcome step = outcome.Threads[0][i];
                step.Failures.Should().Be(calls[i].Error == Errno.None ? 0 : rounds, "call {0} answers {1}", i, calls[i].Error);
                step.Errnos.Keys.Should().BeSubsetOf([(int)calls[i].Error]);
            }
        }

        await RunAsync(50);
        await ExpectNoGrowthAsync(vm.Session, Tolerated, () => RunAsync(Rounds));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-irqfd/leak/assign-and-deassign")]
    public async Task AssignAndDeassignLeaveNothing(bool resample)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        Arguments arguments = await MapAsync(vm);
        var assign = new kvm_irqfd { fd = (uint)eventfd.Number, gsi = 5, resamplefd = (uint)resamplefd.Number, flags = resample ? KvmConst.KVM_IRQFD_FLAG_RESAMPLE : 0 };

        await ExpectNoGrowthAsync(vm, KvmIoctl.KVM_IRQFD,
            (await arguments.AddAsync(assign), Errno.None),
            (await arguments.AddAsync(assign with { gsi = 6, flags = KvmConst.KVM_IRQFD_FLAG_RESAMPLE }), Errno.EBUSY),
            (await arguments.AddAsync(assign with { gsi = 6, flags = 0 }), Errno.EBUSY),
            (await arguments.AddAsync(assign with { fd = 999 }), Errno.EBADF),
            (await arguments.AddAsync(assign with { fd = (uint)vm.Fd.Number }), Errno.EINVAL),
            (await arguments.AddAsync(assign with { flags = KvmConst.KVM_IRQFD_FLAG_RESAMPLE, resamplefd = 999 }), Errno.EBADF),
            (await arguments.AddAsync(assign with { flags = KvmConst.KVM_IRQFD_FLAG_DEASSIGN }), Errno.None));
    }

    [Fact]
    [Clause("kvm-ioeventfd/leak/assign-and-deassign")]
    public async Task IoeventfdsLeaveNothing()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        Arguments arguments = await MapAsync(vm);
        var assign = new kvm_ioeventfd { addr = 0xd0000000, len = 0, fd = eventfd.Number };

        await ExpectNoGrowthAsync(vm, KvmIoctl.KVM_IOEVENTFD,
            (await arguments.AddAsync(assign), Errno.None),
            (await arguments.AddAsync(assign), Errno.EEXIST),
            (await arguments.AddAsync(assign with { len = 4 }), Errno.EEXIST),
            (await arguments.AddAsync(assign with { fd = 999 }), Errno.EBADF),
            (await arguments.AddAsync(assign with { flags = KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN }), Errno.None));
    }

    [Fact]
    [Clause("gsi-routing/set/releases-the-old-table")]
    public async Task RoutingTablesLeaveNothing()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        Arguments arguments = await MapAsync(vm);
        GsiRoute[] good = [GsiRoute.Msi(0, MsiMessage.Fixed(0, Vectors.A)), GsiRoute.Msi(9, MsiMessage.Fixed(0, Vectors.A)), GsiRoute.IoApic(40, 4), GsiRoute.Irqchip(40, 0, 4)];

        await ExpectNoGrowthAsync(vm, KvmIoctl.KVM_SET_GSI_ROUTING,
            (await arguments.AddAsync(Vm.RoutingTable(0, good)), Errno.None),
            (await arguments.AddAsync(Vm.RoutingTable(0, [.. good, GsiRoute.Raw(new kvm_irq_routing_entry { gsi = 41, type = 7 })])), Errno.EINVAL),
            (await arguments.AddAsync(Vm.RoutingTable(0, [.. good, GsiRoute.Raw(new kvm_irq_routing_entry { gsi = 41, type = 1, flags = 1 })])), Errno.EINVAL),
            (await arguments.AddAsync(Vm.RoutingTable(0, [.. good, GsiRoute.Raw(new kvm_irq_routing_entry { gsi = 41, type = 2, flags = 2 })])), Errno.EINVAL),
            (await arguments.AddAsync(Vm.RoutingTable(0, [.. good, good[0]])), Errno.EINVAL),
            (await arguments.AddAsync(Vm.RoutingTable(0, [])), Errno.None));
    }

    [Fact]
    [Clause("kvm-irqfd/close/vm-releases-its-irqfds")]
    [Clause("kvm-ioeventfd/close/vm-releases")]
    public async Task VmsThatCameAndWentLeaveNothing()
    {
        const int Vms = 6, Each = 60;
        EventFd[] eventfds = new EventFd[Each];
        for (int i = 0; i < Each; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
        }

        async Task RoundAsync()
        {
            Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
            Mapping memory = await vm.Session.MapAnonymousAsync(1 << 16, "arguments");
            var program = new AgentProgram("irqfds and ioeventfds");
            ProgramThread thread = program.Thread();
            for (int i = 0; i < Each; i++)
            {
                await memory.WriteAsync((ulong)i * 128, MemoryMarshal.AsBytes(new ReadOnlySpan<kvm_irqfd>([new kvm_irqfd { fd = (uint)eventfds[i].Number, gsi = (uint)i % 24, flags = i % 2 == 0 ? KvmConst.KVM_IRQFD_FLAG_RESAMPLE : 0, resamplefd = (uint)eventfds[i].Number }])).ToArray());
                await memory.WriteAsync(((ulong)i * 128) + 64, MemoryMarshal.AsBytes(new ReadOnlySpan<kvm_ioeventfd>([new kvm_ioeventfd { addr = 0xd0000000 + ((ulong)i * 8), len = 0, fd = eventfds[i].Number }])).ToArray());
                thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IRQFD.Number, memory.Address + ((ulong)i * 128)], stopOnFailure: true);
                thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IOEVENTFD.Number, memory.Address + ((ulong)i * 128) + 64], stopOnFailure: true);
            }

            (await vm.Session.Agent.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);
            await memory.UnmapAsync();
            await vm.DisposeAsync();
        }

        await RoundAsync();
        await ExpectNoGrowthAsync(eventfds[0].Session, Vms * Each / 2, async () =>
        {
            for (int i = 0; i < Vms; i++)
            {
                await RoundAsync();
            }
        });
    }
}

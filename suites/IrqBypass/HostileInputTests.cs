// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Arguments no sensible VMM or guest gives. The kernel's own warnings fail a test; afterwards a new signal still arrives.</summary>
public sealed class HostileInputTests(KernelUnderTest kernel)
{
    private static readonly uint[] Awkward =
        [0, 1, 2, 3, 4, 7, 8, 15, 16, 23, 24, 0x7f, 0xff, 0x100, 4095, 4096, 0x7fffffff, 0x80000000, 0xfee00000, 0xffff0000, uint.MaxValue];

    private static uint Pick(Random random) => random.Next(4) == 0 ? (uint)random.NextInt64(1L << 32) : Awkward[random.Next(Awkward.Length)];

    private async Task<(Vm Vm, EventFd[] EventFds)> CreateAsync()
    {
        Vm vm = await kernel.CreateVmAsync(2);
        await vm.BootAsync();
        EventFd[] eventfds = new EventFd[3];
        for (int i = 0; i < eventfds.Length; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
        }

        return (vm, eventfds);
    }

    private async Task ExpectStillWorksAsync(Vm vm)
    {
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(77, MsiMessage.Fixed(1, Vectors.A)));
        await vm.AssignIrqfdAsync(77, eventfd);
        await vm.Vcpus[1].UpdateLapicAsync(l =>
        {
            l[LapicState.SpuriousVector] = LapicState.SoftwareEnable;
            l[LapicState.TaskPriority] = 0;
            l.Registers.AsSpan(LapicState.InService, 0x80).Clear();
            l.Registers.AsSpan(LapicState.Request, 0x80).Clear();
        });
        await eventfd.SignalAsync();
        (await vm.Vcpus[1].ReadLapicAsync()).Vectors(LapicState.Request).Should().Equal(Vectors.A);
    }

    // A sequence and then the very same again on a VM that is as new: every answer is the same.
    private async Task RunTwiceAsync(int seed, int calls, Func<Random, Vm, EventFd[], Task<(string Call, Errno Error)>> step, params Errno[] known)
    {
        var first = new List<string>();
        for (int run = 0; run < 2; run++)
        {
            (Vm vm, EventFd[] eventfds) = await CreateAsync();
            await using Vm disposed = vm;
            var random = new Random(seed);
            for (int n = 0; n < calls; n++)
            {
                (string call, Errno error) = await step(random, vm, eventfds);
                error.Should().BeOneOf([Errno.None, .. known], "of {0}", call);
                if (run == 0)
                {
                    first.Add($"{call} = {error}");
                }
                else
                {
                    first[n].Should().Be($"{call} = {error}", "the same call to the same state");
                }
            }

            await ExpectStillWorksAsync(vm);
        }
    }

    private static int Descriptor(Random random, Vm vm, EventFd[] eventfds) =>
        random.Next(8) switch { 0 => -1, 1 => 999, 2 => vm.Fd.Number, _ => eventfds[random.Next(eventfds.Length)].Number };

    // Descriptor numbers differ from run to run; what they name does not.
    private static string Name(int fd, Vm vm, EventFd[] eventfds) => fd == vm.Fd.Number ? "vm" : Array.FindIndex(eventfds, e => e.Number == fd) is >= 0 and var index ? $"eventfd {index}" : fd.ToString();

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [Clause("irq-hostile/no-crash")]
    [Clause("irq-hostile/same-answer-twice")]
    public async Task NoIrqfdArgumentBreaksTheKernel(int seed) => await RunTwiceAsync(seed, 100, async (random, vm, eventfds) =>
    {
        int fd = Descriptor(random, vm, eventfds), resamplefd = Descriptor(random, vm, eventfds);
        uint gsi = Pick(random), flags = random.Next(6) == 0 ? Pick(random) : (uint)random.Next(4);
        Errno error = await vm.TryIrqfdAsync(new kvm_irqfd { fd = (uint)fd, gsi = gsi, flags = flags, resamplefd = (uint)resamplefd }, $"seed {seed}");
        if (random.Next(3) == 0)
        {
            await eventfds[random.Next(3)].SignalAsync();
        }

        return ($"irqfd {Name(fd, vm, eventfds)} gsi {gsi} flags {flags} {Name(resamplefd, vm, eventfds)}", error);
    }, Errno.EINVAL, Errno.EBADF, Errno.EBUSY);

    [Theory]
    [InlineData(3)]
    [InlineData(4)]
    [Clause("irq-hostile/no-crash")]
    [Clause("irq-hostile/same-answer-twice")]
    public async Task NoRoutingTableBreaksTheKernel(int seed) => await RunTwiceAsync(seed, 50, async (random, vm, eventfds) =>
    {
        GsiRoute[] table = [.. Enumerable.Range(0, random.Next(6)).Select(_ => GsiRoute.Raw(new kvm_irq_routing_entry
        {
            gsi = Pick(random) & (random.Next(3) == 0 ? uint.MaxValue : 0x3f),
            type = random.Next(5) == 0 ? Pick(random) : (uint)random.Next(1, 3),
            flags = random.Next(6) == 0 ? Pick(random) : 0,
            pad = Pick(random),
            msi_address_lo = random.Next(2) == 0 ? (uint)random.Next(3) : Pick(random),
            msi_address_hi = random.Next(2) == 0 ? (uint)random.Next(24) : Pick(random),
            msi_data = Pick(random),
            msi_devid = Pick(random),
        }))];
        Errno error = await vm.TrySetGsiRoutingAsync(random.Next(10) == 0 ? Pick(random) : 0, table);
        await vm.TryIrqLineAsync(Pick(random), random.Next(2) == 0);
        return (string.Join("; ", table), error);
    }, Errno.EINVAL);

    [Theory]
    [InlineData(5)]
    [InlineData(6)]
    [Clause("irq-hostile/no-crash")]
    [Clause("irq-hostile/same-answer-twice")]
    public async Task NoIoeventfdArgumentBreaksTheKernel(int seed) => await RunTwiceAsync(seed, 100, async (random, vm, eventfds) =>
    {
        int fd = Descriptor(random, vm, eventfds);
        ulong address = random.Next(3) == 0 ? ((ulong)Pick(random) << 32) | Pick(random) : 0xd0000000 + (ulong)random.Next(4);
        uint length = random.Next(4) == 0 ? Pick(random) : (uint)(1 << random.Next(5)) & 0xf, flags = random.Next(6) == 0 ? Pick(random) : (uint)random.Next(8);
        ulong data = (ulong)random.Next(3);
        Errno error = await vm.TryIoeventfdAsync(new kvm_ioeventfd { addr = address, len = length, fd = fd, flags = flags, datamatch = data }, $"seed {seed}");
        return ($"ioeventfd {Name(fd, vm, eventfds)} 0x{address:x} {length} flags {flags} data {data}", error);
    }, Errno.EINVAL, Errno.EBADF, Errno.EEXIST, Errno.ENOENT);

    [Theory]
    [InlineData(7)]
    [InlineData(8)]
    [Clause("irq-hostile/no-crash")]
    public async Task NoMessageBreaksTheKernel(int seed) => await RunTwiceAsync(seed, 100, async (random, vm, _) =>
    {
        // INIT and start-up messages change what a vCPU is; they have tests of their own.
        uint data = Pick(random) & ~0x700u | (random.Next(3) switch { 0 => 0u, 1 => 0x100u, _ => 0x400u });
        var msi = new kvm_msi { address_lo = Pick(random), address_hi = Pick(random), data = data, flags = random.Next(5) == 0 ? Pick(random) : 0, devid = Pick(random) };
        IoctlAnswer answer = await vm.TrySignalMsiAsync(msi, $"seed {seed}");
        return ($"msi 0x{msi.address_lo:x} 0x{msi.address_hi:x} 0x{msi.data:x} {msi.flags} -> {answer.Result}", answer.Error);
    }, Errno.EINVAL, Errno.EPERM);

    [Theory]
    [InlineData(9)]
    [InlineData(10)]
    [Clause("irq-hostile/no-crash")]
    public async Task NoControllerStateBreaksTheKernel(int seed)
    {
        var random = new Random(seed);
        (Vm vm, _) = await CreateAsync();
        await using Vm disposed = vm;
        byte[] state = new byte[520];
        for (int n = 0; n < 40; n++)
        {
            random.NextBytes(state);
            uint chip = random.Next(5) == 0 ? Pick(random) : (uint)random.Next(3);
            BitConverter.TryWriteBytes(state, chip);
            // No INIT, start-up or SMI out of random entries: those change what the vCPU is.
            for (int pin = 0; chip == 2 && pin < 24; pin++)
            {
                state[8 + 24 + (pin * 8) + 1] &= 0xf9;
                state[8 + 24 + (pin * 8) + 1] |= (byte)(random.Next(3) == 0 ? 4 : 0);
                state[8 + 24 + (pin * 8) + 1] &= 0xfc;
            }

            (await vm.TrySetIrqchipAsync(state)).Should().Be(chip < 3 ? Errno.None : Errno.EINVAL);
            (await vm.TryGetIrqchipAsync(chip)).Error.Should().Be(chip < 3 ? Errno.None : Errno.EINVAL);
            await vm.TryIrqLineAsync((uint)random.Next(24), random.Next(2) == 0);
        }

        await ExpectStillWorksAsync(vm);
    }

    [Theory]
    [InlineData(11)]
    [InlineData(12)]
    [Clause("irq-hostile/no-crash")]
    public async Task NoRegisterAccessOfTheGuestBreaksTheKernel(int seed)
    {
        var random = new Random(seed);
        (Vm vm, _) = await CreateAsync();
        await using Vm disposed = vm;
        await vm.MaskPicsAsync();
        AccessWidth[] widths = [AccessWidth.Byte, AccessWidth.Word, AccessWidth.Dword, AccessWidth.Qword];
        var commands = new List<GuestCommand>();
        for (int n = 0; n < 120; n++)
        {
            AccessWidth width = widths[random.Next(4)];
            ulong offset = (ulong)(random.Next(2) == 0 ? random.Next(2) * 0x10 : random.Next(0x100 / (int)width) * (int)width);
            // Entries stay masked: what the registers hold is random, what the vCPU is told is not.
            ulong value = (Pick(random) & ~0x700u) | 0x10000;
            commands.Add(random.Next(3) == 0 ? GuestCommand.Load(IoApicRegisters.Select + offset, width)
                : GuestCommand.Store(IoApicRegisters.Select + offset, offset == 0 ? (ulong)random.Next(0x48) : value, offset == 0x10 && width < AccessWidth.Dword ? AccessWidth.Dword : width));
        }

        await vm.Vcpus[0].ExecuteAsync([.. commands]);
        await ExpectStillWorksAsync(vm);
    }
}

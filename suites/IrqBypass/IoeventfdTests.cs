// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Which guest writes signal, with real writes of every width, and what the ioctl takes.</summary>
public sealed class IoeventfdTests(KernelUnderTest kernel)
{
    private const ulong Gpa = 0xd0000000;
    private const ushort Port = 0x510;
    private static readonly AccessWidth[] MemoryWidths = [AccessWidth.Byte, AccessWidth.Word, AccessWidth.Dword, AccessWidth.Qword];
    private static readonly AccessWidth[] PortWidths = [AccessWidth.Byte, AccessWidth.Word, AccessWidth.Dword];

    private Task<Vm> CreateAsync() => kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.None });

    private Task<Vm> CreateBareAsync() => kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });

    private static GuestCommand Write(bool pio, ulong offset, ulong value, AccessWidth width) =>
        pio ? GuestCommand.Out((ushort)(Port + offset), (uint)value, width) : GuestCommand.Store(Gpa + offset, value, width);

    private static Ioeventfd Match(bool pio, uint length, ulong? datamatch = null, ulong offset = 0) =>
        new((pio ? Port : Gpa) + offset, length) { Pio = pio, Datamatch = datamatch };

    private static string Exit(bool pio, ulong offset, AccessWidth width, ulong value) =>
        $"{(pio ? "port" : "gpa")} 0x{(pio ? Port : Gpa) + offset:x} write {(int)width} 0x{value:x}";

    private static ulong Value(AccessWidth width) => 0x8877665544332211ul & (width == AccessWidth.Qword ? ulong.MaxValue : (1ul << ((int)width * 8)) - 1);

    [Theory]
    [InlineData(false, 1u)]
    [InlineData(false, 2u)]
    [InlineData(false, 4u)]
    [InlineData(false, 8u)]
    [InlineData(false, 0u)]
    [InlineData(true, 1u)]
    [InlineData(true, 2u)]
    [InlineData(true, 4u)]
    [InlineData(true, 0u)]
    [Clause("kvm-ioeventfd/match/signals-and-does-not-exit")]
    [Clause("kvm-ioeventfd/match/exact-length")]
    [Clause("kvm-ioeventfd/match/exact-address")]
    [Clause("kvm-ioeventfd/match/any-length")]
    [Clause("kvm-ioeventfd/match/no-match-exits")]
    [Clause("kvm-ioeventfd/assign/needs-no-irqchip")]
    public async Task WriteMatchesByExactAddressAndLength(bool pio, uint length)
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(pio, length, offset: 8), eventfd);

        foreach (AccessWidth width in pio ? PortWidths : MemoryWidths)
        {
            for (ulong offset = 0; offset <= 16; offset++)
            {
                if (offset is not (0 or 4 or 6 or 7 or 8 or 9 or 10 or 12 or 16))
                {
                    continue;
                }

                bool matches = offset == 8 && (length == 0 || length == (uint)width);
                IReadOnlyList<string> exits = await vcpu.ExecuteExitingAsync(Write(pio, offset, Value(width), width));
                exits.Should().Equal(matches ? [] : [Exit(pio, offset, width, Value(width))]);
                (await eventfd.ReadAsync()).Should().Be(matches ? 1ul : null);
            }
        }
    }

    [Theory]
    [InlineData(false, AccessWidth.Byte)]
    [InlineData(false, AccessWidth.Word)]
    [InlineData(false, AccessWidth.Dword)]
    [InlineData(false, AccessWidth.Qword)]
    [InlineData(true, AccessWidth.Byte)]
    [InlineData(true, AccessWidth.Word)]
    [InlineData(true, AccessWidth.Dword)]
    [Clause("kvm-ioeventfd/match/datamatch")]
    public async Task DatamatchComparesEveryBit(bool pio, AccessWidth width)
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        ulong value = Value(width);
        await vm.AssignIoeventfdAsync(Match(pio, (uint)width, value), eventfd);

        (await vcpu.ExecuteExitingAsync(Write(pio, 0, value, width))).Should().BeEmpty();
        (await eventfd.ReadAsync()).Should().Be(1);
        for (int bit = 0; bit < (int)width * 8; bit += 7)
        {
            ulong other = value ^ (1ul << bit);
            (await vcpu.ExecuteExitingAsync(Write(pio, 0, other, width))).Should().Equal(Exit(pio, 0, width, other));
        }

        ulong top = value ^ (1ul << (((int)width * 8) - 1));
        (await vcpu.ExecuteExitingAsync(Write(pio, 0, top, width))).Should().Equal(Exit(pio, 0, width, top));
        (await eventfd.ReadAsync()).Should().BeNull();

        await vm.AssignIoeventfdAsync(Match(pio, (uint)width, top), eventfd);
        (await vcpu.ExecuteExitingAsync(Write(pio, 0, top, width))).Should().BeEmpty("data are not signed");
        (await eventfd.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/datamatch")]
    public async Task DatamatchBeyondTheLengthNeverMatches()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(false, 4, 0x1_00000001), eventfd);

        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Gpa, 1))).Should().HaveCount(1);

        (await eventfd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/datamatch")]
    public async Task DatamatchIsIgnoredWithoutItsFlag()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        (await vm.TryIoeventfdAsync(new kvm_ioeventfd { addr = Gpa, len = 4, fd = eventfd.Number, datamatch = 0x77 }, "datamatch without its flag")).Should().Be(Errno.None);

        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Gpa, 0x12345678))).Should().BeEmpty();

        (await eventfd.ReadAsync()).Should().Be(1);
        (await vm.TryIoeventfdAsync(new kvm_ioeventfd
        {
            addr = Gpa, len = 4, fd = eventfd.Number, datamatch = 0x99, flags = KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN,
        }, "deassign with another datamatch")).Should().Be(Errno.None, "both match all data");
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/each-to-its-own")]
    public async Task EachWriteSignalsExactlyItsOwn()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        (Ioeventfd Match, GuestCommand Write)[] all =
        [
            (Match(false, 1), GuestCommand.Store(Gpa, 0x55, AccessWidth.Byte)),
            (Match(false, 2, 0x1111), GuestCommand.Store(Gpa, 0x1111, AccessWidth.Word)),
            (Match(false, 2, 0x2222), GuestCommand.Store(Gpa, 0x2222, AccessWidth.Word)),
            (Match(false, 4, 0x3333), GuestCommand.Store(Gpa, 0x3333)),
            (Match(false, 4, 0x4444), GuestCommand.Store(Gpa, 0x4444)),
            (Match(false, 8), GuestCommand.Store(Gpa, 0x5555, AccessWidth.Qword)),
            (Match(false, 4, offset: 4), GuestCommand.Store(Gpa + 4, 0x4444)),
            (Match(true, 2), GuestCommand.Out(Port, 0x1111, AccessWidth.Word)),
            (Match(true, 4), GuestCommand.Out(Port, 0x1111, AccessWidth.Dword)),
        ];
        var eventfds = new List<EventFd>();
        foreach ((Ioeventfd match, _) in all)
        {
            eventfds.Add(await kernel.CreateEventFdAsync());
            await vm.AssignIoeventfdAsync(match, eventfds[^1]);
        }

        for (int i = 0; i < all.Length; i++)
        {
            (await vcpu.ExecuteExitingAsync(all[i].Write)).Should().BeEmpty();
            for (int j = 0; j < all.Length; j++)
            {
                (await eventfds[j].ReadAsync()).Should().Be(i == j ? 1ul : null, "{0} was written, {1} asked", all[i].Match, all[j].Match);
            }
        }

        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 0x5555), GuestCommand.Store(Gpa, 0x1112, AccessWidth.Word))).Should().HaveCount(2);
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/reads-exit")]
    public async Task ReadsExit()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(false, 4), eventfd);
        await vm.AssignIoeventfdAsync(Match(true, 1), eventfd);

        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Load(Gpa), GuestCommand.In(Port))).Should().Equal($"gpa 0x{Gpa:x} read 4", $"port 0x{Port:x} read 1");

        (await eventfd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/buses-are-separate")]
    public async Task PortAndAddressOfOneNumberAreTwoPlaces()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        // No memory lies where the port number would be: guest memory ends below.
        const ulong Number = 0xf000;
        await vm.AssignIoeventfdAsync(new Ioeventfd(Number, 4), eventfd);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Out((ushort)Number, 1, AccessWidth.Dword))).Should().HaveCount(1);
        (await eventfd.ReadAsync()).Should().BeNull();
        await vm.DeassignIoeventfdAsync(new Ioeventfd(Number, 4), eventfd);

        await vm.AssignIoeventfdAsync(new Ioeventfd(Gpa, 4) { Pio = true }, eventfd);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1))).Should().HaveCount(1);
        (await eventfd.ReadAsync()).Should().BeNull();
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/one-eventfd-many-places")]
    public async Task OneEventfdServesManyPlacesAndVms()
    {
        await using Vm first = await CreateAsync();
        await using Vm second = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await first.AssignIoeventfdAsync(Match(false, 4), eventfd);
        await first.AssignIoeventfdAsync(Match(false, 4, offset: 4), eventfd);
        await first.AssignIoeventfdAsync(Match(true, 1), eventfd);
        await second.AssignIoeventfdAsync(Match(false, 4), eventfd);

        (await first.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Store(Gpa + 4, 1), GuestCommand.Out(Port, 1))).Should().BeEmpty();
        (await second.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Gpa, 1))).Should().BeEmpty();

        (await eventfd.ReadAsync()).Should().Be(4);
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/count-is-exact")]
    public async Task CountIsTheNumberOfWrites()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd memory = await kernel.CreateEventFdAsync();
        await using EventFd port = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(false, 0), memory);
        await vm.AssignIoeventfdAsync(Match(true, 2), port);

        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Label("again").Add(GuestCommand.Store(Gpa, 1)).Add(GuestCommand.Out(Port, 2, AccessWidth.Word)).Repeat("again", 250));

        (await memory.ReadAsync()).Should().Be(250);
        (await port.ReadAsync()).Should().Be(250);
    }

    [Theory]
    [InlineData(AccessWidth.Byte)]
    [InlineData(AccessWidth.Word)]
    [InlineData(AccessWidth.Dword)]
    [Clause("kvm-ioeventfd/match/string-io")]
    public async Task StringOutSignalsPerElement(AccessWidth width)
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(true, (uint)width), eventfd);

        await vm.Vcpus[0].ExecuteAsync(GuestCommand.OutString(Port, GuestLayout.Scratch, 5, width));

        (await eventfd.ReadAsync()).Should().Be(5);
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/string-io")]
    public async Task StringOutShowsUserSpaceWhatDidNotMatch()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(true, 2, 0x1111), eventfd);
        await vm.WriteMemoryAsync(GuestLayout.Scratch, new byte[] { 0x11, 0x11, 0x11, 0x11, 0x34, 0x12, 0x11, 0x11 });

        IReadOnlyList<string> exits = await vcpu.ExecuteExitingAsync(GuestCommand.OutString(Port, GuestLayout.Scratch, 4, AccessWidth.Word));

        ulong signalled = await eventfd.ReadAsync() ?? 0;
        exits.Should().HaveCount(1);
        exits[0].Should().StartWith($"port 0x{Port:x} write 2 0x1234");
        // From the element that did not match on, the rest of the batch goes to user space.
        (signalled + (exits[0].EndsWith(" x 2", StringComparison.Ordinal) ? 2ul : 1ul)).Should().Be(4);
    }

    [Fact]
    [Clause("kvm-ioeventfd/match/drives-an-irqfd")]
    public async Task GuestWriteBecomesTheGuestsInterrupt()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(24, MsiMessage.Fixed(0, Vectors.A)));
        await vm.AssignIrqfdAsync(24, eventfd);
        await vm.AssignIoeventfdAsync(Match(false, 4), eventfd);
        await vm.BootAsync();

        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1))).Should().BeEmpty();

        (await vcpu.TakeAsync()).Should().Be("0x41");
        (await eventfd.ReadAsync()).Should().Be(kernel.Left(1));
    }

    [Theory]
    [InlineData(3u)]
    [InlineData(5u)]
    [InlineData(7u)]
    [InlineData(9u)]
    [InlineData(16u)]
    [InlineData(0x80000000u)]
    [InlineData(uint.MaxValue)]
    [Clause("kvm-ioeventfd/assign/length")]
    public async Task LengthThatNoWriteHasIsInvalid(uint length)
    {
        await using Vm vm = await CreateBareAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        foreach (bool pio in new[] { false, true })
        {
            (await vm.TryAssignIoeventfdAsync(Match(pio, length), eventfd)).Should().Be(Errno.EINVAL);
        }
    }

    [Theory]
    [InlineData(ulong.MaxValue, 1u, Errno.EINVAL)]
    [InlineData(ulong.MaxValue - 1, 1u, Errno.None)]
    [InlineData(ulong.MaxValue - 1, 2u, Errno.EINVAL)]
    [InlineData(ulong.MaxValue - 7, 8u, Errno.EINVAL)]
    [InlineData(ulong.MaxValue - 8, 8u, Errno.None)]
    [InlineData(ulong.MaxValue, 0u, Errno.None)]
    [InlineData(0ul, 8u, Errno.None)]
    [Clause("kvm-ioeventfd/assign/wrap")]
    public async Task RangeMustNotWrapAround(ulong address, uint length, Errno error)
    {
        await using Vm vm = await CreateBareAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await vm.TryAssignIoeventfdAsync(new Ioeventfd(address, length), eventfd)).Should().Be(error);
    }

    [Theory]
    [InlineData(0x20u)]
    [InlineData(0x21u)]
    [InlineData(0x80000000u)]
    [Clause("kvm-ioeventfd/assign/unknown-flags")]
    public async Task UnknownFlagsAreInvalid(uint flags)
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await vm.TryIoeventfdAsync(new kvm_ioeventfd { addr = Gpa, len = 4, fd = eventfd.Number, flags = flags }, $"flags 0x{flags:x}")).Should().Be(Errno.EINVAL);

        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Gpa, 0))).Should().HaveCount(1);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("kvm-ioeventfd/assign/length-0-and-datamatch")]
    public async Task LengthZeroHasNoDatamatch(bool pio)
    {
        await using Vm vm = await CreateBareAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await vm.TryAssignIoeventfdAsync(Match(pio, 0, 0), eventfd)).Should().Be(Errno.EINVAL);
        (await vm.TryAssignIoeventfdAsync(Match(pio, 1, 0), eventfd)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-ioeventfd/assign/bad-fd")]
    [Clause("kvm-ioeventfd/deassign/bad-fd")]
    public async Task DescriptorMustBeAnEventfd()
    {
        await using Vm vm = await CreateBareAsync();
        foreach (uint flags in new uint[] { 0, KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN })
        {
            foreach ((int fd, Errno error) in new[] { (-1, Errno.EBADF), (999, Errno.EBADF), (vm.Fd.Number, Errno.EINVAL) })
            {
                (await vm.TryIoeventfdAsync(new kvm_ioeventfd { addr = Gpa, len = 4, fd = fd, flags = flags }, $"fd {fd} flags {flags}")).Should().Be(error);
            }
        }

        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IOEVENTFD, 8)).Error.Should().Be(Errno.EFAULT);
    }

    [Theory]
    [InlineData(4u, null, 4u, null)]
    [InlineData(4u, null, 4u, 1ul)]
    [InlineData(4u, 1ul, 4u, null)]
    [InlineData(4u, 1ul, 4u, 1ul)]
    [InlineData(0u, null, 4u, null)]
    [InlineData(0u, null, 4u, 1ul)]
    [InlineData(4u, null, 0u, null)]
    [InlineData(4u, 1ul, 0u, null)]
    [InlineData(0u, null, 0u, null)]
    [InlineData(8u, null, 0u, null)]
    [Clause("kvm-ioeventfd/assign/collision")]
    [Clause("kvm-ioeventfd/assign/refused-changes-nothing")]
    public async Task CollidingRegistrationExists(uint first, ulong? firstData, uint second, ulong? secondData)
    {
        await using Vm vm = await CreateAsync();
        foreach (bool pio in new[] { false, true })
        {
            await using EventFd eventfd = await kernel.CreateEventFdAsync();
            await using EventFd other = await kernel.CreateEventFdAsync();
            await vm.AssignIoeventfdAsync(Match(pio, first, firstData), eventfd);

            (await vm.TryAssignIoeventfdAsync(Match(pio, second, secondData), eventfd)).Should().Be(Errno.EEXIST);
            (await vm.TryAssignIoeventfdAsync(Match(pio, second, secondData), other)).Should().Be(Errno.EEXIST);

            // A refused one is not half there: what the first does not match still exits.
            if (first == 4)
            {
                (await vm.Vcpus[0].ExecuteExitingAsync(Write(pio, 0, 1, AccessWidth.Word))).Should().HaveCount(1);
            }

            (await other.ReadAsync()).Should().BeNull();
            (await vm.TryDeassignIoeventfdAsync(Match(pio, second, secondData), other)).Should().Be(Errno.ENOENT);
        }
    }

    [Theory]
    [InlineData(4u, 1ul, 4u, 2ul, 0)]
    [InlineData(4u, null, 2u, null, 0)]
    [InlineData(4u, null, 8u, null, 0)]
    [InlineData(4u, 1ul, 2u, 1ul, 0)]
    [InlineData(4u, null, 4u, null, 1)]
    [InlineData(4u, null, 4u, null, 4)]
    [InlineData(0u, null, 0u, null, 1)]
    [InlineData(0u, null, 4u, null, -4)]
    [Clause("kvm-ioeventfd/assign/no-collision")]
    public async Task DifferentRegistrationDoesNotCollide(uint first, ulong? firstData, uint second, ulong? secondData, int offset)
    {
        await using Vm vm = await CreateBareAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIoeventfdAsync(Match(false, first, firstData), eventfd);

        (await vm.TryAssignIoeventfdAsync(Match(false, second, secondData, (ulong)offset), eventfd)).Should().Be(Errno.None);
        (await vm.TryAssignIoeventfdAsync(new Ioeventfd(Gpa, first) { Pio = true, Datamatch = firstData }, eventfd)).Should().Be(Errno.None, "ports are another bus");
    }

    public static TheoryData<bool, uint, ulong?> Registrations { get; } = new()
    {
        { false, 4, null },
        { false, 4, 0x1111 },
        { false, 0, null },
        { true, 2, null },
        { true, 2, 0x1111 },
        { true, 0, null },
    };

    [Theory]
    [MemberData(nameof(Registrations))]
    [Clause("kvm-ioeventfd/deassign/exact")]
    [Clause("kvm-ioeventfd/deassign/exits-again")]
    [Clause("kvm-ioeventfd/deassign/then-assign")]
    public async Task DeassignMustNameItExactly(bool pio, uint length, ulong? datamatch)
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd other = await kernel.CreateEventFdAsync();
        Ioeventfd match = Match(pio, length, datamatch);
        GuestCommand write = Write(pio, 0, 0x1111, length == 2 ? AccessWidth.Word : AccessWidth.Dword);
        await vm.AssignIoeventfdAsync(match, eventfd);

        (await vm.TryDeassignIoeventfdAsync(match, other)).Should().Be(Errno.ENOENT, "the eventfd is another");
        (await vm.TryDeassignIoeventfdAsync(match with { Pio = !pio }, eventfd)).Should().Be(Errno.ENOENT, "the bus is another");
        (await vm.TryDeassignIoeventfdAsync(match with { Address = match.Address + 1 }, eventfd)).Should().Be(Errno.ENOENT, "the address is another");
        foreach (uint wrong in new uint[] { 0, 1, 2, 4, 8, 3 }.Where(l => l != length))
        {
            (await vm.TryDeassignIoeventfdAsync(match with { Length = wrong }, eventfd)).Should().Be(Errno.ENOENT, "the length is {0}", wrong);
        }

        (await vm.TryDeassignIoeventfdAsync(match with { Datamatch = 0x1112 }, eventfd)).Should().Be(Errno.ENOENT, "the data is other");
        if (datamatch is not null)
        {
            (await vm.TryDeassignIoeventfdAsync(match with { Datamatch = null }, eventfd)).Should().Be(Errno.ENOENT, "it does not match all data");
        }
        else
        {
            (await vm.TryDeassignIoeventfdAsync(match with { Datamatch = 0 }, eventfd)).Should().Be(Errno.ENOENT, "it matches all data");
        }

        (await vcpu.ExecuteExitingAsync(write)).Should().BeEmpty();
        (await eventfd.ReadAsync()).Should().Be(1);

        (await vm.TryDeassignIoeventfdAsync(match, eventfd)).Should().Be(Errno.None);
        (await vcpu.ExecuteExitingAsync(write)).Should().HaveCount(1);
        (await eventfd.ReadAsync()).Should().BeNull();
        (await vm.TryDeassignIoeventfdAsync(match, eventfd)).Should().Be(Errno.ENOENT);

        (await vm.TryAssignIoeventfdAsync(match, other)).Should().Be(Errno.None);
        (await vcpu.ExecuteExitingAsync(write)).Should().BeEmpty();
        (await other.ReadAsync()).Should().Be(1);
    }

    [Fact]
    [Clause("kvm-ioeventfd/deassign/exact")]
    public async Task DeassignOfOneLeavesItsNeighbours()
    {
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        for (ulong data = 0; data < 5; data++)
        {
            await vm.AssignIoeventfdAsync(Match(false, 4, data), eventfd);
        }

        await vm.DeassignIoeventfdAsync(Match(false, 4, 2), eventfd);

        for (ulong data = 0; data < 5; data++)
        {
            (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, data))).Should().HaveCount(data == 2 ? 1 : 0);
        }

        (await eventfd.ReadAsync()).Should().Be(4);
    }

    [Theory]
    [MemberData(nameof(Registrations))]
    [Clause("kvm-ioeventfd/deassign/releases-the-eventfd")]
    [Clause("kvm-ioeventfd/assign/refused-changes-nothing")]
    public async Task NoReferenceIsKept(bool pio, uint length, ulong? datamatch)
    {
        await using Vm vm = await CreateBareAsync();
        EventFd eventfd = await kernel.CreateEventFdAsync(), refused = await kernel.CreateEventFdAsync();
        int[] ids = [await eventfd.ReadIdAsync(), await refused.ReadIdAsync()];
        Ioeventfd match = Match(pio, length, datamatch);

        await vm.AssignIoeventfdAsync(match, eventfd);
        (await vm.TryAssignIoeventfdAsync(match, refused)).Should().Be(Errno.EEXIST);
        (await vm.TryAssignIoeventfdAsync(match with { Length = 3 }, refused)).Should().Be(Errno.EINVAL);
        (await vm.TryDeassignIoeventfdAsync(match, refused)).Should().Be(Errno.ENOENT);
        await vm.DeassignIoeventfdAsync(match, eventfd);
        await eventfd.CloseAsync();
        await refused.CloseAsync();

        await using EventFd next = await kernel.CreateEventFdAsync();
        await using EventFd after = await kernel.CreateEventFdAsync();
        new[] { await next.ReadIdAsync(), await after.ReadIdAsync() }.Should().BeEquivalentTo(ids);
    }

    [Fact]
    [Clause("kvm-ioeventfd/close/eventfd-stays-registered")]
    [Clause("kvm-ioeventfd/close/vm-releases")]
    public async Task ClosedEventfdStaysRegisteredAsLongAsTheVm()
    {
        Vm vm = await CreateAsync();
        EventFd eventfd = await kernel.CreateEventFdAsync();
        int id = await eventfd.ReadIdAsync();
        await vm.AssignIoeventfdAsync(Match(false, 0), eventfd);
        await vm.AssignIoeventfdAsync(Match(true, 4), eventfd);

        await eventfd.CloseAsync();

        (await vm.Vcpus[0].ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Out(Port, 1, AccessWidth.Dword))).Should().BeEmpty();
        await using (EventFd between = await kernel.CreateEventFdAsync())
        {
            (await between.ReadIdAsync()).Should().NotBe(id, "the VM holds it");
        }

        await vm.DisposeAsync();
        await using EventFd next = await kernel.CreateEventFdAsync();
        (await next.ReadIdAsync()).Should().Be(id);
    }

    [Fact]
    [Clause("kvm-ioeventfd/assign/many")]
    [Clause("kvm-ioeventfd/assign/device-limit")]
    public async Task TwoThousandRegistrationsAreFoundAndRemoved()
    {
        const int Count = 2000;
        await using Vm vm = await CreateAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd last = await kernel.CreateEventFdAsync();
        Mapping memory = await vm.Session.MapAnonymousAsync(Count * 64, "arguments");

        async Task RunAsync(uint flags)
        {
            byte[] arguments = new byte[Count * 64];
            for (int i = 0; i < Count; i++)
            {
                System.Runtime.InteropServices.MemoryMarshal.Write(arguments.AsSpan(i * 64), Match(false, 4, offset: (ulong)i * 4).Argument(i == Count - 1 ? last : eventfd, flags));
            }

            await memory.WriteAsync(0, arguments);
            var program = new AgentProgram($"{Count} x KVM_IOEVENTFD flags {flags}");
            ProgramThread thread = program.Thread();
            for (int i = 0; i < Count; i++)
            {
                thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_IOEVENTFD.Number, memory.Address + ((ulong)i * 64)], stopOnFailure: true);
            }

            (await vm.Session.Agent.RunProgramAsync(program)).Threads[0].Sum(s => (long)s.Failures).Should().Be(0);
        }

        await RunAsync(0);
        (await vm.TryRegisterCoalescedAsync(Gpa + 0x10000, 8)).Should().Be(Errno.None, "ioeventfds do not count against the limit of devices");
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Store(Gpa + 4000, 1), GuestCommand.Store(Gpa + ((Count - 1) * 4), 1))).Should().BeEmpty();
        (await eventfd.ReadAsync()).Should().Be(2);
        (await last.ReadAsync()).Should().Be(1);

        await RunAsync(KvmConst.KVM_IOEVENTFD_FLAG_DEASSIGN);
        (await vcpu.ExecuteExitingAsync(GuestCommand.Store(Gpa, 1), GuestCommand.Store(Gpa + 4000, 1), GuestCommand.Store(Gpa + ((Count - 1) * 4), 1))).Should().HaveCount(3);
    }

    // Coalesced zones, each a device of its own, until there is no room for another; how many there was room for.
    private static async Task<ulong> FillBusAsync(Vm vm)
    {
        Mapping zone = await vm.Session.MapAnonymousAsync(4096, "zone");
        await zone.WriteAsync(0, KernelSessionBytes(new kvm_coalesced_mmio_zone { addr = Gpa, size = 4 }));
        var program = new AgentProgram("coalesced zones until the limit");
        ProgramThread thread = program.Thread();
        thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_REGISTER_COALESCED_MMIO.Number, zone.Address]);
        thread.Loop(0, 1100);
        StepOutcome step = (await vm.Session.Agent.RunProgramAsync(program)).Threads[0][0];
        step.Errnos.Keys.Should().Equal((int)Errno.ENOSPC);
        return step.Runs - step.Failures;
    }

    [Fact]
    [Clause("kvm-ioeventfd/assign/device-limit")]
    public async Task IoeventfdsThatCameAndWentDoNotMoveTheDeviceLimit()
    {
        await using Vm used = await CreateBareAsync();
        await using Vm fresh = await CreateBareAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        for (ulong i = 0; i < 20; i++)
        {
            await used.AssignIoeventfdAsync(Match(false, 4, offset: i * 4), eventfd);
        }

        for (ulong i = 0; i < 20; i++)
        {
            await used.DeassignIoeventfdAsync(Match(false, 4, offset: i * 4), eventfd);
        }

        ulong limit = await FillBusAsync(fresh);
        limit.Should().Be(1000);
        (await FillBusAsync(used)).Should().Be(limit);
    }

    [Fact]
    [Clause("kvm-ioeventfd/assign/full-bus")]
    public async Task FullBusRefusesAnIoeventfdUntilThereIsRoom()
    {
        await using Vm vm = await CreateBareAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await FillBusAsync(vm);

        (await vm.TryAssignIoeventfdAsync(Match(false, 4), eventfd)).Should().Be(Errno.ENOSPC);
        (await vm.TryDeassignIoeventfdAsync(Match(false, 4), eventfd)).Should().Be(Errno.ENOENT);

        (await vm.TryUnregisterCoalescedAsync(Gpa, 4)).Should().Be(Errno.None);
        await vm.AssignIoeventfdAsync(Match(false, 4), eventfd);
    }

    [Fact]
    [Clause("kvm-ioeventfd/ioregionfd/absent")]
    public async Task IoregionfdIsNotOffered()
    {
        await using Vm vm = await CreateBareAsync();

        // The number and size of the proposed KVM_SET_IOREGION.
        IoctlAnswer answer = await vm.Session.IoctlAsync(vm.Fd, new Ioctl("KVM_SET_IOREGION", 0x4040AE49), new byte[64], "proposed");

        answer.Error.Should().Be(Errno.ENOTTY);
    }

    private static byte[] KernelSessionBytes(kvm_coalesced_mmio_zone zone) =>
        System.Runtime.InteropServices.MemoryMarshal.AsBytes(new ReadOnlySpan<kvm_coalesced_mmio_zone>(in zone)).ToArray();
}

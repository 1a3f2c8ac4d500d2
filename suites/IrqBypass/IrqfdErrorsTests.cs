// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>What KVM_IRQFD refuses, and that a refusal leaves nothing behind.</summary>
public sealed class IrqfdErrorsTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private const uint Deassign = KvmConst.KVM_IRQFD_FLAG_DEASSIGN;
    private const uint Resample = KvmConst.KVM_IRQFD_FLAG_RESAMPLE;

    private Task<Vm> CreateAsync(Irqchip irqchip = Irqchip.Full) =>
        kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = irqchip });

    private static Task<Errno> TryAsync(Vm vm, int fd, uint flags, int resamplefd = 0, uint gsi = Gsi) =>
        vm.TryIrqfdAsync(new kvm_irqfd { fd = (uint)fd, gsi = gsi, flags = flags, resamplefd = (uint)resamplefd }, $"fd {fd} gsi {gsi} flags 0x{flags:x} resamplefd {resamplefd}");

    // An eventfd that nothing is bound to keeps what is written to it.
    private static async Task ExpectUnboundAsync(EventFd eventfd)
    {
        await eventfd.SignalAsync();
        (await eventfd.ReadAsync()).Should().Be(1, "{0} is bound to nothing", eventfd);
    }

    [Theory]
    [InlineData(4u)]
    [InlineData(5u)]
    [InlineData(6u)]
    [InlineData(8u)]
    [InlineData(0x80000000u)]
    [InlineData(uint.MaxValue)]
    [Clause("kvm-irqfd/assign/unknown-flags")]
    [Clause("kvm-irqfd/assign/refused-changes-nothing")]
    public async Task UnknownFlagsAreInvalid(uint flags)
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await TryAsync(vm, eventfd.Number, flags, eventfd.Number)).Should().Be(Errno.EINVAL);

        await ExpectUnboundAsync(eventfd);
    }

    [Theory]
    [InlineData(Irqchip.None, 0u, Errno.EINVAL)]
    [InlineData(Irqchip.None, Resample, Errno.EINVAL)]
    [InlineData(Irqchip.None, Deassign, Errno.None)]
    [InlineData(Irqchip.Split, 0u, Errno.None)]
    [InlineData(Irqchip.Split, Resample, Errno.EINVAL)]
    [InlineData(Irqchip.Full, 0u, Errno.None)]
    [InlineData(Irqchip.Full, Resample, Errno.None)]
    [Clause("kvm-irqfd/assign/needs-an-irqchip")]
    [Clause("kvm-irqfd/assign/split-irqchip")]
    [Clause("kvm-irqfd/assign/resample-needs-the-full-irqchip")]
    [Clause("kvm-irqfd/deassign/needs-no-irqchip")]
    public async Task IrqchipDecidesWhatCanBeAssigned(Irqchip irqchip, uint flags, Errno error)
    {
        await using Vm vm = await CreateAsync(irqchip);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();

        (await TryAsync(vm, eventfd.Number, flags, resamplefd.Number)).Should().Be(error);

        if (error != Errno.None || flags == Deassign)
        {
            await ExpectUnboundAsync(eventfd);
        }
        else
        {
            await eventfd.SignalAsync();
            (await eventfd.ReadAsync()).Should().Be(kernel.Left(1), "it is bound");
        }
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(999)]
    [InlineData(int.MaxValue)]
    [InlineData(int.MinValue)]
    [Clause("kvm-irqfd/assign/bad-fd")]
    [Clause("kvm-irqfd/deassign/bad-fd")]
    public async Task DescriptorThatIsNotOpenIsBad(int fd)
    {
        await using Vm vm = await CreateAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();

        (await TryAsync(vm, fd, 0)).Should().Be(Errno.EBADF);
        (await TryAsync(vm, fd, Resample, resamplefd.Number)).Should().Be(Errno.EBADF);
        (await TryAsync(vm, fd, Deassign)).Should().Be(Errno.EBADF);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/not-an-eventfd")]
    [Clause("kvm-irqfd/deassign/bad-fd")]
    public async Task DescriptorOfAnotherKindIsInvalid()
    {
        await using Vm vm = await CreateAsync();
        await using KernelFd file = await vm.Session.OpenAsync("/dev/null");

        foreach (KernelFd fd in new[] { file, vm.Fd, vm.System.Fd })
        {
            (await TryAsync(vm, fd.Number, 0)).Should().Be(Errno.EINVAL, "{0} is no eventfd", fd);
            (await TryAsync(vm, fd.Number, Deassign)).Should().Be(Errno.EINVAL, "{0} is no eventfd", fd);
        }
    }

    [Fact]
    [Clause("kvm-irqfd/assign/bad-resamplefd")]
    [Clause("kvm-irqfd/assign/refused-changes-nothing")]
    public async Task ResamplefdIsCheckedToo()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using KernelFd file = await vm.Session.OpenAsync("/dev/null");

        (await TryAsync(vm, eventfd.Number, Resample, -1)).Should().Be(Errno.EBADF);
        (await TryAsync(vm, eventfd.Number, Resample, 999)).Should().Be(Errno.EBADF);
        (await TryAsync(vm, eventfd.Number, Resample, file.Number)).Should().Be(Errno.EINVAL);

        await ExpectUnboundAsync(eventfd);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/resamplefd-ignored-without-the-flag")]
    [Clause("kvm-irqfd/deassign/resample-flag-is-allowed")]
    public async Task ResamplefdIsIgnoredWhereItMeansNothing()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await TryAsync(vm, eventfd.Number, 0, resamplefd: -1)).Should().Be(Errno.None);
        (await TryAsync(vm, eventfd.Number, Deassign | Resample, resamplefd: -1)).Should().Be(Errno.None);

        await ExpectUnboundAsync(eventfd);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/resamplefd-may-be-the-eventfd")]
    public async Task ResamplefdMayBeTheEventfd()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await vm.TryAssignResampleIrqfdAsync(5, eventfd, eventfd)).Should().Be(Errno.None);
        (await vm.TryDeassignIrqfdAsync(5, eventfd)).Should().Be(Errno.None);

        await ExpectUnboundAsync(eventfd);
    }

    [Theory]
    [InlineData(23u)]
    [InlineData(24u)]
    [InlineData(4095u)]
    [InlineData(4096u)]
    [InlineData(99999u)]
    [InlineData(0x7fffffffu)]
    [InlineData(0x80000000u)]
    [InlineData(uint.MaxValue)]
    [Clause("kvm-irqfd/assign/gsi-is-not-validated")]
    [Clause("kvm-irqfd/signal/without-a-route-is-silent")]
    public async Task AnyGsiIsAccepted(uint gsi)
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.EnableLocalApicsAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (await vm.TryAssignIrqfdAsync(gsi, eventfd)).Should().Be(Errno.None);
        await eventfd.SignalAsync();
        (await eventfd.ReadAsync()).Should().Be(kernel.Left(1), "it is bound");
        (await vm.TryDeassignIrqfdAsync(gsi, eventfd)).Should().Be(Errno.None);

        (await vm.PendingAsync()).Should().Be("-");
        await ExpectUnboundAsync(eventfd);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/padding-is-ignored")]
    public async Task PaddingIsIgnored()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        byte[] argument = new byte[32];
        argument.AsSpan(16).Fill(0xee);
        BitConverter.TryWriteBytes(argument, eventfd.Number);
        BitConverter.TryWriteBytes(argument.AsSpan(4), Gsi);

        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQFD, argument, "padding 0xee")).Error.Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/bad-fd")]
    public async Task UnreadableArgumentFaults()
    {
        await using Vm vm = await CreateAsync();

        (await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_IRQFD, 8)).Error.Should().Be(Errno.EFAULT);
    }

    [Theory]
    [InlineData(Gsi)]
    [InlineData(Gsi + 1)]
    [Clause("kvm-irqfd/assign/one-irqfd-per-eventfd")]
    [Clause("kvm-irqfd/assign/refused-changes-nothing")]
    public async Task EventfdThatIsBoundIsBusy(uint second)
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.EnableLocalApicsAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)), GsiRoute.Msi(Gsi + 1, MsiMessage.Fixed(0, Vectors.B)));
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        (await vm.TryAssignIrqfdAsync(second, eventfd)).Should().Be(Errno.EBUSY);

        await eventfd.SignalAsync();
        (await vm.DrainPendingAsync()).Should().Be("0x41", "the first binding is as it was");
        await vm.DeassignIrqfdAsync(Gsi, eventfd);
        await ExpectUnboundAsync(eventfd);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/one-irqfd-per-eventfd")]
    public async Task DuplicateOfABoundDescriptorIsBusy()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using KernelFd duplicate = await eventfd.DuplicateAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        (await vm.TryAssignIrqfdAsync(Gsi + 1, duplicate)).Should().Be(Errno.EBUSY);
    }

    [Theory]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    [Clause("kvm-irqfd/assign/one-irqfd-per-eventfd")]
    public async Task ResampleOrNotABoundEventfdIsBusy(bool firstResamples, bool secondResamples)
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await using EventFd resamplefd = await kernel.CreateEventFdAsync();
        (await TryAsync(vm, eventfd.Number, firstResamples ? Resample : 0, resamplefd.Number, 5)).Should().Be(Errno.None);

        (await TryAsync(vm, eventfd.Number, secondResamples ? Resample : 0, resamplefd.Number, 6)).Should().Be(Errno.EBUSY);
    }

    [Fact]
    [Clause("kvm-irqfd/assign/exclusive-across-vms")]
    [FixedBy("2cdd64cbf990", "KVM: Disallow binding multiple irqfds to an eventfd with a priority waiter")]
    public async Task EventfdThatIsBoundInAnotherVmIsBusy()
    {
        await using Vm first = await CreateAsync();
        await using Vm second = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await first.AssignIrqfdAsync(Gsi, eventfd);

        Errno error = await second.TryAssignIrqfdAsync(Gsi, eventfd);

        error.Should().BeOneOf(kernel.Has("irqfd-exclusive") ? [Errno.EBUSY] : [Errno.EBUSY, Errno.None]);
        bool exclusive = error == Errno.EBUSY;
        await first.DeassignIrqfdAsync(Gsi, eventfd);
        (await second.TryAssignIrqfdAsync(Gsi, eventfd)).Should().Be(exclusive ? Errno.None : Errno.EBUSY);
        (await first.TryAssignIrqfdAsync(Gsi, eventfd)).Should().Be(exclusive ? Errno.EBUSY : Errno.None);
    }

    // The reference that a refused call must drop shows in the eventfd's number: it comes back when the last reference is gone.
    [Theory]
    [InlineData("unknown flags")]
    [InlineData("bad resamplefd")]
    [InlineData("resamplefd of another kind")]
    [InlineData("busy")]
    [InlineData("busy resampler")]
    [InlineData("deassign of another pair")]
    [Clause("kvm-irqfd/assign/refused-changes-nothing")]
    public async Task RefusedAssignKeepsNoReference(string why)
    {
        await using Vm vm = await CreateAsync();
        await using KernelFd file = await vm.Session.OpenAsync("/dev/null");
        EventFd eventfd = await kernel.CreateEventFdAsync(), resamplefd = await kernel.CreateEventFdAsync();
        int[] ids = [await eventfd.ReadIdAsync(), await resamplefd.ReadIdAsync()];

        switch (why)
        {
            case "unknown flags":
                (await TryAsync(vm, eventfd.Number, 4 | Resample, resamplefd.Number)).Should().Be(Errno.EINVAL);
                break;
            case "bad resamplefd":
                (await TryAsync(vm, eventfd.Number, Resample, -1)).Should().Be(Errno.EBADF);
                break;
            case "resamplefd of another kind":
                (await TryAsync(vm, eventfd.Number, Resample, file.Number)).Should().Be(Errno.EINVAL);
                break;
            case "busy":
                await vm.AssignIrqfdAsync(Gsi, eventfd);
                (await TryAsync(vm, eventfd.Number, 0, gsi: Gsi + 1)).Should().Be(Errno.EBUSY);
                await vm.DeassignIrqfdAsync(Gsi, eventfd);
                break;
            case "busy resampler":
                await vm.AssignIrqfdAsync(Gsi, eventfd);
                (await TryAsync(vm, eventfd.Number, Resample, resamplefd.Number, 5)).Should().Be(Errno.EBUSY);
                await vm.DeassignIrqfdAsync(Gsi, eventfd);
                break;
            default:
                await vm.DeassignIrqfdAsync(Gsi, eventfd);
                break;
        }

        await eventfd.CloseAsync();
        await resamplefd.CloseAsync();
        await using EventFd next = await kernel.CreateEventFdAsync();
        await using EventFd after = await kernel.CreateEventFdAsync();
        new[] { await next.ReadIdAsync(), await after.ReadIdAsync() }.Should().BeEquivalentTo(ids, "{0} left no reference", why);
    }
}

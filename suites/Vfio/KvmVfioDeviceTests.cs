// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>KVM_DEV_TYPE_VFIO: the groups that a VM knows of.</summary>
public sealed class KvmVfioDeviceTests(KernelUnderTest kernel)
{
    private const uint TypeVfio = 4;
    private const uint File = 1;
    private const ulong Add = 1;
    private const ulong Delete = 2;

    private static async Task<KvmDevice> CreateAsync(Vm vm)
    {
        (Errno error, KernelFd? fd) = await vm.TryCreateDeviceAsync(TypeVfio, "kvm-vfio");
        return new KvmDevice(fd ?? throw new KvmException("KVM_CREATE_DEVICE(vfio)", error));
    }

    private static Task<Errno> AskAsync(KvmDevice device, ulong attribute, int fd) => device.TrySetUInt32Async(File, attribute, (uint)fd, attribute == Add ? "add" : "delete");

    [Fact]
    [Clause("kvm-vfio/create/one-per-vm")]
    public async Task VmHasOneAtMost()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using Vm other = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Name = "other" });
        await using KvmDevice device = await CreateAsync(vm);

        (await vm.TryCreateDeviceAsync(TypeVfio, "second")).Error.Should().Be(Errno.EBUSY);
        await using KvmDevice ofOther = await CreateAsync(other);
    }

    [Fact]
    [Clause("kvm-vfio/create/again")]
    public async Task VmWhoseDeviceWasClosedHasOneAtMost()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using EduDevice edu = await kernel.OpenEduAsync();
        KvmDevice first = await CreateAsync(vm);
        (await AskAsync(first, Add, edu.Vfio.Group.Fd.Number)).Should().Be(Errno.None);
        await first.DisposeAsync();

        (Errno error, KernelFd? fd) = await vm.TryCreateDeviceAsync(TypeVfio, "second");
        // Kernels that keep a closed device until the VM ends go on refusing; the others start over.
        error.Should().BeOneOf(Errno.None, Errno.EBUSY);
        if (fd is not null)
        {
            await using var second = new KvmDevice(fd);
            (await AskAsync(second, Delete, edu.Vfio.Group.Fd.Number)).Should().Be(Errno.ENOENT, "it knows nothing of the first one's groups");
            (await AskAsync(second, Add, edu.Vfio.Group.Fd.Number)).Should().Be(Errno.None);
        }

        (await vm.TryCreateDeviceAsync(TypeVfio, "third")).Error.Should().Be(fd is null ? Errno.EBUSY : Errno.None);
    }

    [Fact]
    [Clause("kvm-vfio/has")]
    [Clause("kvm-vfio/set/unknown")]
    public async Task OnlyAddAndDeleteAreThere()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using KvmDevice device = await CreateAsync(vm);
        foreach ((uint group, ulong attribute, bool there) in new (uint, ulong, bool)[]
        {
            (File, Add, true), (File, Delete, true), (File, 0, false), (File, 3, false), (File, 4, false), (0, Add, false), (2, Add, false),
        })
        {
            (await device.TryHasAsync(group, attribute)).Should().Be(there ? Errno.None : Errno.ENXIO, $"group {group} attribute {attribute}");
            if (!there)
            {
                (await device.TrySetUInt32Async(group, attribute, uint.MaxValue, "unknown")).Should().Be(Errno.ENXIO, $"group {group} attribute {attribute}");
            }
        }
    }

    [Fact]
    [Clause("kvm-vfio/set/unreadable")]
    [Clause("kvm-vfio/add/bad-fd")]
    [Clause("kvm-vfio/add/not-vfio")]
    [Clause("kvm-vfio/del/absent")]
    public async Task WrongDescriptorsAreToldApart()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using KvmDevice device = await CreateAsync(vm);
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        foreach (ulong attribute in new[] { Add, Delete })
        {
            (await device.TrySetAtAsync(File, attribute, 8, "unreadable")).Should().Be(Errno.EFAULT);
            (await AskAsync(device, attribute, -1)).Should().Be(Errno.EBADF);
            (await AskAsync(device, attribute, 9999)).Should().Be(Errno.EBADF);
        }

        (await AskAsync(device, Add, eventfd.Number)).Should().Be(Errno.EINVAL);
        (await AskAsync(device, Add, edu.Vfio.Container.Fd.Number)).Should().Be(Errno.EINVAL);
        (await AskAsync(device, Delete, eventfd.Number)).Should().Be(Errno.ENOENT);
        (await AskAsync(device, Delete, edu.Vfio.Group.Fd.Number)).Should().Be(Errno.ENOENT);
    }

    [Fact]
    [Clause("kvm-vfio/add/twice")]
    [Clause("kvm-vfio/del/absent")]
    [Clause("kvm-vfio/del/again")]
    public async Task GroupIsAddedOnceAndCanComeBack()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
        await using KvmDevice device = await CreateAsync(vm);
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using VfioDevice xhci = await kernel.OpenXhciAsync();
        int group = edu.Vfio.Group.Fd.Number, second = xhci.Group.Fd.Number;
        for (int i = 0; i < 2; i++)
        {
            (await AskAsync(device, Add, group)).Should().Be(Errno.None);
            (await AskAsync(device, Add, group)).Should().Be(Errno.EEXIST);
            (await AskAsync(device, Delete, second)).Should().Be(Errno.ENOENT);
            (await AskAsync(device, Add, second)).Should().Be(Errno.None);
            (await AskAsync(device, Delete, group)).Should().Be(Errno.None);
            (await AskAsync(device, Delete, group)).Should().Be(Errno.ENOENT);
            (await AskAsync(device, Add, second)).Should().Be(Errno.EEXIST);
            (await AskAsync(device, Delete, second)).Should().Be(Errno.None);
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Clause("kvm-vfio/close/releases")]
    public async Task GroupIsFreeAgainWhenTheDeviceIsClosed(bool deletedFirst)
    {
        for (int i = 0; i < 2; i++)
        {
            await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
            // Opening a group that something still holds is EBUSY: the second round would fail.
            await using EduDevice edu = await kernel.OpenEduAsync();
            await using KvmDevice device = await CreateAsync(vm);
            (await AskAsync(device, Add, edu.Vfio.Group.Fd.Number)).Should().Be(Errno.None);
            if (deletedFirst)
            {
                (await AskAsync(device, Delete, edu.Vfio.Group.Fd.Number)).Should().Be(Errno.None);
            }
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>KVM_XEN_HVM_SET_ATTR and KVM_XEN_HVM_GET_ATTR, but for event channels.</summary>
public sealed class VmAttributeTests(KernelUnderTest kernel)
{
    private async Task<Vm> CreateBareVmAsync(uint needs = KVM_XEN_HVM_CONFIG_SHARED_INFO)
    {
        await kernel.RequireXenAsync(needs);
        return await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });
    }

    private async Task<XenDomain> CreateDomainAsync()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);
        return await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
    }

    private static async Task<(ulong Gfn, ulong Hva)> SharedInfoAsync(Vm vm) => (
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_SHARED_INFO)).shared_info_gfn,
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA)).shared_info_hva);

    [Fact]
    [Clause("kvm-xen/attr/defaults")]
    public async Task NewVmHasEveryAttributeUnset()
    {
        await using Vm vm = await CreateBareVmAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);

        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_LONG_MODE)).long_mode.Should().Be(0);
        (await SharedInfoAsync(vm)).Should().Be((KVM_XEN_INVALID_GFN, 0UL));
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(0);
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_XEN_VERSION)).xen_version.Should().Be(0);
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG)).runstate_update_flag.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/attr/unknown")]
    public async Task UnknownAttributeIsNotFound()
    {
        await using Vm vm = await CreateBareVmAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);

        foreach (ushort type in new ushort[] { 0x00ff, 0x0100, 0x8000, ushort.MaxValue })
        {
            (await vm.Xen.TrySetAsync(new kvm_xen_hvm_attr { type = type }, $"type {type}")).Should().Be(Errno.ENOENT, $"type {type} is set");
            (await vm.Xen.TryGetAsync(type)).Error.Should().Be(Errno.ENOENT, $"type {type} is read");
        }
    }

    [Fact]
    [Clause("kvm-xen/attr/evtchn-not-readable")]
    public async Task EventChannelsCannotBeReadBack()
    {
        await using Vm vm = await CreateBareVmAsync(KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        await vm.Xen.BindPortAsync(5, EventChannelType.Interdomain, 6);

        (await vm.Xen.TryGetAsync(KVM_XEN_ATTR_TYPE_EVTCHN)).Error.Should().Be(Errno.ENOENT);
    }

    [Fact]
    [Clause("kvm-xen/attr/long-mode")]
    public async Task AnyNonZeroLongModeReadsAsOne()
    {
        await using Vm vm = await CreateBareVmAsync();

        foreach ((byte set, byte read) in new (byte, byte)[] { (1, 1), (0, 0), (2, 1), (0, 0), (0x80, 1), (0xff, 1), (0, 0) })
        {
            (await vm.Xen.TrySetLongModeAsync(set)).Should().Be(Errno.None);
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_LONG_MODE)).long_mode.Should().Be(read, $"{set} was set");
        }
    }

    [Fact]
    [Clause("kvm-xen/attr/upcall-vector")]
    public async Task UpcallVectorsBelowSixteenAreRefusedExceptZero()
    {
        await using Vm vm = await CreateBareVmAsync();
        (await vm.Xen.TrySetUpcallVectorAsync(0x93)).Should().Be(Errno.None);

        for (byte vector = 1; vector < 0x10; vector++)
        {
            (await vm.Xen.TrySetUpcallVectorAsync(vector)).Should().Be(Errno.EINVAL, $"the vector is 0x{vector:x}");
        }

        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(0x93, "refused vectors change nothing");
        foreach (byte vector in new byte[] { 0x10, 0x11, 0x1f, 0x20, 0x80, 0xff, 0 })
        {
            (await vm.Xen.TrySetUpcallVectorAsync(vector)).Should().Be(Errno.None, $"the vector is 0x{vector:x}");
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(vector);
        }
    }

    [Fact]
    [Clause("kvm-xen/attr/xen-version")]
    public async Task XenVersionIsAnyNumber()
    {
        await using Vm vm = await CreateBareVmAsync(KVM_XEN_HVM_CONFIG_EVTCHN_SEND);

        foreach (uint version in new[] { 0x0004000au, 1u, 0x80000001u, uint.MaxValue, 0u })
        {
            (await vm.Xen.TrySetXenVersionAsync(version)).Should().Be(Errno.None);
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_XEN_VERSION)).xen_version.Should().Be(version);
        }
    }

    [Fact]
    [Clause("kvm-xen/attr/runstate-update-flag")]
    public async Task AnyNonZeroRunstateUpdateFlagReadsAsOne()
    {
        await using Vm vm = await CreateBareVmAsync(KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG);

        foreach ((byte set, byte read) in new (byte, byte)[] { (1, 1), (0, 0), (2, 1), (0xff, 1), (0, 0) })
        {
            (await vm.Xen.TrySetRunstateUpdateFlagAsync(set)).Should().Be(Errno.None);
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG)).runstate_update_flag.Should().Be(read, $"{set} was set");
        }
    }

    [Fact]
    [Clause("kvm-xen/attr/independent")]
    public async Task EachAttributeHasAPlaceOfItsOwn()
    {
        XenDomain domain = await CreateDomainAsync();
        Vm vm = domain.Vm;
        await vm.Xen.TrySetLongModeAsync(1);
        await vm.Xen.SetSharedInfoAsync(0x21);
        await vm.Xen.TrySetUpcallVectorAsync(0x93);
        await vm.Xen.TrySetXenVersionAsync(0x00040011);
        await vm.Xen.TrySetRunstateUpdateFlagAsync(1);

        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_LONG_MODE)).long_mode.Should().Be(1);
        (await SharedInfoAsync(vm)).Should().Be((0x21UL, 0UL));
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(0x93);
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_XEN_VERSION)).xen_version.Should().Be(0x00040011);
        (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG)).runstate_update_flag.Should().Be(1);
    }

    [Theory]
    [InlineData(KVM_XEN_ATTR_TYPE_LONG_MODE, 1)]
    [InlineData(KVM_XEN_ATTR_TYPE_SHARED_INFO, 8)]
    [InlineData(KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, 8)]
    [InlineData(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 1)]
    [InlineData(KVM_XEN_ATTR_TYPE_XEN_VERSION, 4)]
    [InlineData(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG, 1)]
    [Clause("kvm-xen/attr/get-writes-its-field")]
    public async Task ReadingWritesNothingButItsField(ushort type, int size)
    {
        await using Vm vm = await CreateBareVmAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);
        byte[] argument = [.. Enumerable.Repeat((byte)0x5a, Marshal.SizeOf<kvm_xen_hvm_attr>())];
        BitConverter.TryWriteBytes(argument, type);

        IoctlAnswer answer = await vm.Session.IoctlAsync(vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_GET_ATTR, argument, $"type {type}");

        answer.Error.Should().Be(Errno.None);
        answer.Data[..8].Should().Equal(argument[..8]);
        answer.Data[8..(8 + size)].Should().NotEqual(argument[8..(8 + size)]);
        answer.Data[(8 + size)..].Should().Equal(argument[(8 + size)..]);
    }

    // shared_info

    [Fact]
    [Clause("kvm-xen/attr/shared-info/gfn-and-hva")]
    [FixedBy("4e8436479ad3", "KVM: x86/xen: Fix get_attr of KVM_XEN_ATTR_TYPE_SHARED_INFO")]
    public async Task SharedInfoReadsBackTheWayItWasSet()
    {
        XenDomain domain = await CreateDomainAsync();
        Vm vm = domain.Vm;

        await vm.Xen.SetSharedInfoAsync(0x20);
        (await SharedInfoAsync(vm)).Should().Be((0x20UL, 0UL));

        await vm.Xen.SetSharedInfoHvaAsync(vm.Memory.Address + 0x22000);
        (await SharedInfoAsync(vm)).Should().Be((KVM_XEN_INVALID_GFN, vm.Memory.Address + 0x22000));

        await vm.Xen.SetSharedInfoAsync(0x23);
        (await SharedInfoAsync(vm)).Should().Be((0x23UL, 0UL));

        await vm.Xen.SetSharedInfoAsync(0);
        (await SharedInfoAsync(vm)).Should().Be((0UL, 0UL), "frame 0 is a frame like others");
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    [Clause("kvm-xen/attr/shared-info/disable")]
    public async Task EitherFormDisablesSharedInfo(bool setByHva, bool disableByHva)
    {
        XenDomain domain = await CreateDomainAsync();
        Vm vm = domain.Vm;
        if (setByHva)
        {
            await vm.Xen.SetSharedInfoHvaAsync(domain.SharedInfo.Hva);
        }
        else
        {
            await vm.Xen.SetSharedInfoAsync(0x20);
        }

        (disableByHva ? await vm.Xen.TrySetSharedInfoHvaAsync(0) : await vm.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN)).Should().Be(Errno.None);

        (await SharedInfoAsync(vm)).Should().Be((KVM_XEN_INVALID_GFN, 0UL));
        (await vm.Xen.TrySendAsync(5)).Should().Be(Errno.EINVAL, "there is nowhere to deliver to");
        (disableByHva ? await vm.Xen.TrySetSharedInfoHvaAsync(0) : await vm.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN))
            .Should().Be(Errno.None, "disabling twice is no error");
    }

    [Fact]
    [Clause("kvm-xen/attr/shared-info/no-memory")]
    public async Task SharedInfoOutsideMemoryIsRefused()
    {
        XenDomain domain = await CreateDomainAsync();

        (await domain.Xen.TrySetSharedInfoAsync(0x7ffff)).Should().Be(Errno.EFAULT);
        (await domain.Xen.TrySetSharedInfoHvaAsync(0x1000)).Should().Be(Errno.EFAULT, "nothing is mapped there");
        (await domain.Xen.TrySendAsync(5)).Should().BeOneOf([Errno.EFAULT, Errno.EINVAL], "nothing can be delivered");
        (await domain.Xen.TrySetSharedInfoAsync(0x20)).Should().Be(Errno.None, "a refusal does not stand in the way");
        (await domain.Xen.TrySendAsync(5)).Should().Be(Errno.None);
    }

    [Theory]
    [InlineData(1UL)]
    [InlineData(8UL)]
    [InlineData(0x800UL)]
    [InlineData(0xfffUL)]
    [Clause("kvm-xen/attr/shared-info/hva-alignment")]
    public async Task UnalignedSharedInfoHvaIsRefused(ulong offset)
    {
        XenDomain domain = await CreateDomainAsync();
        await domain.Xen.SetSharedInfoAsync(0x20);

        (await domain.Xen.TrySetSharedInfoHvaAsync(domain.SharedInfo.Hva + offset)).Should().Be(Errno.EINVAL);

        (await SharedInfoAsync(domain.Vm)).Should().Be((0x20UL, 0UL), "a refusal changes nothing");
    }

    [Theory]
    [InlineData(0xffff888000000000UL)]
    [InlineData(0xfffffffffffff000UL)]
    [Clause("kvm-xen/attr/shared-info/hva-of-user-space")]
    public async Task SharedInfoHvaOutsideUserSpaceIsRefused(ulong hva)
    {
        XenDomain domain = await CreateDomainAsync();
        await domain.Xen.SetSharedInfoAsync(0x20);

        (await domain.Xen.TrySetSharedInfoHvaAsync(hva)).Should().Be(Errno.EINVAL);

        (await SharedInfoAsync(domain.Vm)).Should().Be((0x20UL, 0UL), "a refusal changes nothing");
    }

    [Fact]
    [Clause("kvm-xen/attr/shared-info/read-only-memory")]
    public async Task ReadOnlyMappingCannotHoldSharedInfo()
    {
        XenDomain domain = await CreateDomainAsync();
        KernelSession session = domain.Vm.Session;
        await using KernelFd zero = await session.OpenAsync("/dev/zero", writable: false);
        Mapping page = await session.MapAsync(zero, 0x1000, 0, "read-only page", writable: false);

        (await domain.Xen.TrySetSharedInfoHvaAsync(page.Address)).Should().Be(Errno.EFAULT);
    }
}

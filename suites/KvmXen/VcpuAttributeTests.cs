// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>KVM_XEN_VCPU_SET_ATTR and KVM_XEN_VCPU_GET_ATTR, but for the runstate's arithmetic and the timer's running.</summary>
public sealed class VcpuAttributeTests(KernelUnderTest kernel)
{
    private const ulong Page = 0x30000;

    private async Task<XenDomain> CreateDomainAsync(params uint[] ids)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA | KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        return await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Vcpus = Math.Max(1, ids.Length), VcpuIds = ids.Length == 0 ? null : ids });
    }

    private static async Task<(ulong Gpa, ulong Hva)> VcpuInfoAsync(XenDomain domain, int vcpu = 0) => (
        (await domain.Xen.GetAsync(domain.Vcpus[vcpu], KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO)).gpa,
        (await domain.Xen.GetAsync(domain.Vcpus[vcpu], KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA)).hva);

    private static async Task<ulong> TimeInfoAsync(XenDomain domain) =>
        (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO)).gpa;

    [Fact]
    [Clause("kvm-xen/vcpu-attr/defaults")]
    public async Task NewVcpuHasEveryAttributeUnset()
    {
        XenDomain domain = await CreateDomainAsync();

        (await VcpuInfoAsync(domain)).Should().Be((KVM_XEN_INVALID_GPA, 0UL));
        (await TimeInfoAsync(domain)).Should().Be(KVM_XEN_INVALID_GPA);
        (await domain.Xen.TryGetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)).Error.Should().Be(Errno.ENOENT, "this one has no value for unset");
        (await domain.Xen.GetTimerAsync(domain.Vcpu)).Should().Be(new XenTimer(0, XenHvm.TwoLevel, 0));
        (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(0);
        (await domain.Xen.GetRunstateAsync(domain.Vcpu)).Should().Be(default(XenRunstate));
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/unknown")]
    public async Task UnknownAttributeIsNotFound()
    {
        XenDomain domain = await CreateDomainAsync();

        foreach (ushort type in new ushort[] { 0x00ff, 0x0100, 0x8000, ushort.MaxValue })
        {
            (await domain.Xen.TrySetAsync(domain.Vcpu, new kvm_xen_vcpu_attr { type = type }, $"type {type}")).Should().Be(Errno.ENOENT, $"type {type} is set");
            (await domain.Xen.TryGetAsync(domain.Vcpu, type)).Error.Should().Be(Errno.ENOENT, $"type {type} is read");
        }
    }

    [Theory]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, 8)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, 8)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, 8)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, 8)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA, 48)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, 4)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_TIMER, 16)]
    [InlineData(KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 1)]
    [Clause("kvm-xen/vcpu-attr/get-writes-its-field")]
    public async Task ReadingWritesNothingButItsField(ushort type, int size)
    {
        XenDomain domain = await CreateDomainAsync();
        byte[] argument = [.. Enumerable.Repeat((byte)0x5a, Marshal.SizeOf<kvm_xen_vcpu_attr>())];
        BitConverter.TryWriteBytes(argument, type);

        IoctlAnswer answer = await domain.Vm.Session.IoctlAsync(domain.Vcpu.Fd, KvmX86Ioctl.KVM_XEN_VCPU_GET_ATTR, argument, $"type {type}");

        answer.Error.Should().Be(Errno.None);
        answer.Data[..8].Should().Equal(argument[..8]);
        answer.Data[8..(8 + size)].Should().NotContain(0x5a);
        answer.Data[(8 + size)..].Should().Equal(argument[(8 + size)..]);
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/independent")]
    public async Task EachAttributeOfEachVcpuHasAPlaceOfItsOwn()
    {
        XenDomain domain = await CreateDomainAsync(0, 1);
        for (int index = 0; index < 2; index++)
        {
            Vcpu vcpu = domain.Vcpus[index];
            ulong at = (ulong)index * 0x1000;
            await domain.Xen.SetVcpuInfoAsync(vcpu, 0x30000 + at);
            XenDomain.Expect(await domain.Xen.TrySetTimeInfoAsync(vcpu, 0x40040 + at), "VCPU_TIME_INFO");
            XenDomain.Expect(await domain.Xen.TrySetRunstateAddressAsync(vcpu, 0x50080 + at), "RUNSTATE_ADDR");
            XenDomain.Expect(await domain.Xen.TrySetVcpuIdAsync(vcpu, 17 + (uint)index), "VCPU_ID");
            XenDomain.Expect(await domain.Xen.TrySetTimerAsync(vcpu, new XenTimer(33 + (uint)index, XenHvm.TwoLevel, 0)), "TIMER");
            XenDomain.Expect(await domain.Xen.TrySetVcpuUpcallVectorAsync(vcpu, (byte)(0x91 + index)), "UPCALL_VECTOR");
        }

        for (int index = 0; index < 2; index++)
        {
            Vcpu vcpu = domain.Vcpus[index];
            ulong at = (ulong)index * 0x1000;
            (await VcpuInfoAsync(domain, index)).Should().Be((0x30000 + at, 0UL));
            (await domain.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO)).gpa.Should().Be(0x40040 + at);
            (await domain.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)).gpa.Should().Be(0x50080 + at);
            (await domain.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID)).vcpu_id.Should().Be(17 + (uint)index);
            (await domain.Xen.GetTimerAsync(vcpu)).Should().Be(new XenTimer(33 + (uint)index, XenHvm.TwoLevel, 0));
            (await domain.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be((byte)(0x91 + index));
        }
    }

    // vcpu_info

    [Fact]
    [Clause("kvm-xen/vcpu-attr/vcpu-info/gpa-and-hva")]
    public async Task VcpuInfoReadsBackTheWayItWasSet()
    {
        XenDomain domain = await CreateDomainAsync();
        ulong hva = domain.Vm.Memory.Address + 0x31040;

        await domain.Xen.SetVcpuInfoAsync(domain.Vcpu, Page);
        (await VcpuInfoAsync(domain)).Should().Be((Page, 0UL));

        (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, hva)).Should().Be(Errno.None);
        (await VcpuInfoAsync(domain)).Should().Be((KVM_XEN_INVALID_GPA, hva));

        (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, hva)).Should().Be(Errno.None, "the same place again is no error");
        (await VcpuInfoAsync(domain)).Should().Be((KVM_XEN_INVALID_GPA, hva));

        await domain.Xen.SetVcpuInfoAsync(domain.Vcpu, Page + 0x80);
        (await VcpuInfoAsync(domain)).Should().Be((Page + 0x80, 0UL));
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    [Clause("kvm-xen/vcpu-attr/vcpu-info/disable")]
    public async Task EitherFormDisablesVcpuInfo(bool setByHva, bool disableByHva)
    {
        XenDomain domain = await CreateDomainAsync();
        XenDomain.Expect(setByHva
            ? await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, domain.VcpuInfo.Hva)
            : await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, Page), "VCPU_INFO");

        (disableByHva
            ? await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, 0)
            : await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA)).Should().Be(Errno.None);

        (await VcpuInfoAsync(domain)).Should().Be((KVM_XEN_INVALID_GPA, 0UL));
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/vcpu-info/within-a-page")]
    public async Task VcpuInfoMustNotCrossAPage()
    {
        XenDomain domain = await CreateDomainAsync();
        ulong hva = domain.Vm.Memory.Address + Page;

        (await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, Page + 0xfc0)).Should().Be(Errno.None, "64 bytes fit");
        foreach (ulong offset in new ulong[] { 0xfc4, 0xfe0, 0xffc })
        {
            (await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, Page + offset)).Should().Be(Errno.EINVAL, $"it would begin at 0x{offset:x}");
            (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, hva + offset)).Should().Be(Errno.EINVAL, $"it would begin at 0x{offset:x}");
        }

        (await VcpuInfoAsync(domain)).Should().Be((Page + 0xfc0, 0UL), "a refusal changes nothing");
        (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, hva + 0xfc0)).Should().Be(Errno.None, "64 bytes fit");
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/vcpu-info/alignment")]
    public async Task MisalignedVcpuInfoIsRefused()
    {
        XenDomain domain = await CreateDomainAsync();
        kernel.RequireChange("xen-vcpu-info-alignment");
        await domain.Xen.SetVcpuInfoAsync(domain.Vcpu, Page + 4);

        foreach (ulong offset in new ulong[] { 1, 2, 3, 0x41 })
        {
            (await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, Page + offset)).Should().Be(Errno.ENXIO, $"the offset is 0x{offset:x}");
            (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, domain.Vm.Memory.Address + Page + offset)).Should().Be(Errno.ENXIO, $"the offset is 0x{offset:x}");
        }

        (await VcpuInfoAsync(domain)).Should().Be((Page + 4, 0UL), "a refusal changes nothing");
        (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, domain.Vm.Memory.Address + Page + 4)).Should().Be(Errno.None, "four bytes are alignment enough");
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/no-memory")]
    public async Task StructuresOutsideMemoryAreRefused()
    {
        XenDomain domain = await CreateDomainAsync();

        (await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, 0x7ffff000)).Should().Be(Errno.EFAULT);
        (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, 0x1000)).Should().Be(Errno.EFAULT);
        (await domain.Xen.TrySetVcpuInfoHvaAsync(domain.Vcpu, 0xffff888000000000)).Should().Be(Errno.EINVAL, "it is not an address of user space");
        (await domain.Xen.TrySetTimeInfoAsync(domain.Vcpu, 0x7ffff000)).Should().Be(Errno.EFAULT);
        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, 0x7ffff000)).Should().Be(Errno.EFAULT);
    }

    // VCPU_TIME_INFO

    [Fact]
    [Clause("kvm-xen/vcpu-attr/time-info")]
    public async Task TimeInfoReadsBackMustNotCrossAPageAndCanBeDisabled()
    {
        XenDomain domain = await CreateDomainAsync();

        (await domain.Xen.TrySetTimeInfoAsync(domain.Vcpu, 0x40fe0)).Should().Be(Errno.None, "32 bytes fit");
        foreach (ulong offset in new ulong[] { 0xfe1, 0xfe4, 0xff0, 0xfff })
        {
            (await domain.Xen.TrySetTimeInfoAsync(domain.Vcpu, 0x40000 + offset)).Should().Be(Errno.EINVAL, $"it would begin at 0x{offset:x}");
        }

        (await TimeInfoAsync(domain)).Should().Be(0x40fe0, "a refusal changes nothing");
        (await domain.Xen.TrySetTimeInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA)).Should().Be(Errno.None);
        (await TimeInfoAsync(domain)).Should().Be(KVM_XEN_INVALID_GPA);
    }

    // VCPU_ID

    [Fact]
    [Clause("kvm-xen/vcpu-attr/vcpu-id")]
    public async Task XenVcpuIdOfTheFirstVcpuIsZeroOrInvalidUntilItIsSet()
    {
        XenDomain domain = await CreateDomainAsync(5);

        // Of the others nothing is claimed: old kernels mean their index and, reading it before it is there, give 0 as well.
        (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID)).vcpu_id.Should().BeOneOf(kernel.Has("xen-vcpu-id-unset-is-invalid") ? [uint.MaxValue] : [0, uint.MaxValue]);
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/vcpu-id")]
    public async Task XenVcpuIdIsBelowTheMostVcpus()
    {
        XenDomain domain = await CreateDomainAsync();
        uint most = (uint)await domain.Vm.System.CheckExtensionAsync(KvmCap.MaxVcpus);

        (await domain.Xen.TrySetVcpuIdAsync(domain.Vcpu, most - 1)).Should().Be(Errno.None);
        foreach (uint id in new[] { most, most + 1, uint.MaxValue })
        {
            (await domain.Xen.TrySetVcpuIdAsync(domain.Vcpu, id)).Should().Be(Errno.EINVAL, $"the id is {id} and there can be {most} vCPUs");
        }

        (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID)).vcpu_id.Should().Be(most - 1, "a refusal changes nothing");
        (await domain.Xen.TrySetVcpuIdAsync(domain.Vcpu, 0)).Should().Be(Errno.None);
    }

    // UPCALL_VECTOR

    [Fact]
    [Clause("kvm-xen/vcpu-attr/upcall-vector")]
    public async Task UpcallVectorsBelowSixteenAreRefusedExceptZero()
    {
        XenDomain domain = await CreateDomainAsync();
        (await domain.Xen.TrySetVcpuUpcallVectorAsync(domain.Vcpu, 0x93)).Should().Be(Errno.None);

        for (byte vector = 1; vector < 0x10; vector++)
        {
            (await domain.Xen.TrySetVcpuUpcallVectorAsync(domain.Vcpu, vector)).Should().Be(Errno.EINVAL, $"the vector is 0x{vector:x}");
        }

        (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(0x93, "refused vectors change nothing");
        foreach (byte vector in new byte[] { 0x10, 0x1f, 0x20, 0xff, 0 })
        {
            (await domain.Xen.TrySetVcpuUpcallVectorAsync(domain.Vcpu, vector)).Should().Be(Errno.None, $"the vector is 0x{vector:x}");
            (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR)).vector.Should().Be(vector);
        }
    }

    // TIMER

    [Fact]
    [Clause("kvm-xen/vcpu-attr/timer/priority")]
    public async Task TimerWithAnotherPriorityIsRefused()
    {
        XenDomain domain = await CreateDomainAsync();
        var armed = new XenTimer(9, XenHvm.TwoLevel, 1UL << 60);
        (await domain.Xen.TrySetTimerAsync(domain.Vcpu, armed)).Should().Be(Errno.None);

        foreach (uint priority in new uint[] { 0, 1, 0x7fffffff, 0xfffffffe })
        {
            (await domain.Xen.TrySetTimerAsync(domain.Vcpu, new XenTimer(10, priority, 1UL << 61))).Should().Be(Errno.EINVAL, $"the priority is 0x{priority:x}");
        }

        (await domain.Xen.GetTimerAsync(domain.Vcpu)).Should().Be(armed, "a refusal leaves the timer running");
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/timer/port-zero-disables")]
    public async Task PortZeroDisablesTheTimerWhateverElseIsGiven()
    {
        XenDomain domain = await CreateDomainAsync();
        (await domain.Xen.TrySetTimerAsync(domain.Vcpu, new XenTimer(9, XenHvm.TwoLevel, 1UL << 60))).Should().Be(Errno.None);

        (await domain.Xen.TrySetTimerAsync(domain.Vcpu, new XenTimer(0, 5, 1UL << 61))).Should().Be(Errno.None);

        (await domain.Xen.GetTimerAsync(domain.Vcpu)).Should().Be(new XenTimer(0, XenHvm.TwoLevel, 0));
    }

    // The runstate's attributes that are no arithmetic

    [Fact]
    [Clause("kvm-xen/vcpu-attr/runstate-address")]
    public async Task RunstateAddressReadsBackAndIsNotFoundOnceDisabled()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE);
        XenDomain domain = await CreateDomainAsync();

        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, 0x50ff1)).Should().Be(Errno.None, "neither alignment nor a page's end matter");
        (await domain.Xen.GetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)).gpa.Should().Be(0x50ff1);
        (await domain.Xen.TrySetRunstateAddressAsync(domain.Vcpu, KVM_XEN_INVALID_GPA)).Should().Be(Errno.None);
        (await domain.Xen.TryGetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)).Error.Should().Be(Errno.ENOENT);
    }

    [Fact]
    [Clause("kvm-xen/vcpu-attr/runstate-adjust-not-readable")]
    public async Task RunstateAdjustmentCannotBeRead()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_RUNSTATE);
        XenDomain domain = await CreateDomainAsync();

        (await domain.Xen.TryGetAsync(domain.Vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST)).Error.Should().Be(Errno.EINVAL);
    }
}

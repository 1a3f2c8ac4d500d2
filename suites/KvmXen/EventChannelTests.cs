// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>What an event does to shared_info and vcpu_info. Sent by KVM_XEN_HVM_EVTCHN_SEND to a vCPU that does not run meanwhile.</summary>
public sealed class EventChannelTests(KernelUnderTest kernel)
{
    private static readonly byte[] Poison = [.. Enumerable.Range(0, XenSharedInfo.Size).Select(i => (byte)(i * 13))];

    private Task<XenDomain> CreateAsync(XenAbi abi, bool byHva = false) =>
        XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, ByHva = byHva });

    // Everything outside the bits that an event sets is filled, so that a stray write shows wherever it goes.
    private static byte[] CleanSharedInfo(XenLayout layout)
    {
        byte[] page = (byte[])Poison.Clone();
        int bitmap = (int)layout.Ports / 8;
        page.AsSpan(layout.PendingOffset, bitmap).Clear();
        page.AsSpan(layout.MaskOffset, bitmap).Clear();
        return page;
    }

    private static byte[] CleanVcpuInfo(XenLayout layout)
    {
        byte[] info = Poison[..XenVcpuInfo.Size];
        info[0] = 0;
        info.AsSpan(layout.SelectorOffset, layout.WordBits / 8).Clear();
        return info;
    }

    public static TheoryData<XenAbi, bool> Layouts { get; } = new()
    {
        { XenAbi.Bits64, false },
        { XenAbi.Bits64, true },
        { XenAbi.Bits32, false },
        { XenAbi.Bits32, true },
    };

    public static uint[] PortsOf(XenLayout layout) => layout.Abi == XenAbi.Bits64
        ? [1, 31, 32, 63, 64, 127, 1023, 1024, 2048, 4032, 4095]
        : [1, 31, 32, 33, 63, 64, 511, 992, 1023];

    [Theory]
    [MemberData(nameof(Layouts))]
    [Clause("kvm-xen/evtchn/sets-exactly")]
    public async Task UnmaskedEventSetsItsBitsAndNothingElse(XenAbi abi, bool byHva)
    {
        XenDomain domain = await CreateAsync(abi, byHva);
        byte[] page = CleanSharedInfo(domain.Layout);
        byte[] info = CleanVcpuInfo(domain.Layout);

        foreach (uint port in PortsOf(domain.Layout))
        {
            await domain.SharedInfo.WriteAsync(page);
            await domain.VcpuInfo.WriteAsync(info);

            (await domain.Xen.TrySendAsync(port)).Should().Be(Errno.None);

            byte[] wantedPage = (byte[])page.Clone();
            wantedPage[domain.Layout.PendingOffset + (port / 8)] = (byte)(1 << (int)(port % 8));
            byte[] wantedInfo = (byte[])info.Clone();
            wantedInfo[0] = 1;
            int word = (int)port / domain.Layout.WordBits;
            wantedInfo[domain.Layout.SelectorOffset + (word / 8)] = (byte)(1 << (word % 8));
            Difference((await domain.SharedInfo.ReadAsync()).Bytes, wantedPage).Should().BeEmpty($"port {port} was raised");
            Difference((await domain.VcpuInfo.ReadAsync()).Bytes, wantedInfo).Should().BeEmpty($"port {port} was raised");
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/masked")]
    public async Task MaskedEventSetsPendingWithoutUpcall(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        byte[] info = CleanVcpuInfo(domain.Layout);
        foreach (uint port in PortsOf(domain.Layout))
        {
            byte[] page = CleanSharedInfo(domain.Layout);
            page[domain.Layout.MaskOffset + (port / 8)] = (byte)(1 << (int)(port % 8));
            await domain.SharedInfo.WriteAsync(page);
            await domain.VcpuInfo.WriteAsync(info);

            (await domain.Xen.TrySendAsync(port)).Should().Be(Errno.None);

            page[domain.Layout.PendingOffset + (port / 8)] = (byte)(1 << (int)(port % 8));
            Difference((await domain.SharedInfo.ReadAsync()).Bytes, page).Should().BeEmpty($"masked port {port} was raised");
            Difference((await domain.VcpuInfo.ReadAsync()).Bytes, info).Should().BeEmpty($"masked port {port} was raised");
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/masked")]
    public async Task MaskOfEveryOtherPortDoesNotMask(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        int bitmap = (int)domain.Layout.Ports / 8;
        foreach (uint port in PortsOf(domain.Layout))
        {
            byte[] page = CleanSharedInfo(domain.Layout);
            page.AsSpan(domain.Layout.MaskOffset, bitmap).Fill(0xff);
            page[domain.Layout.MaskOffset + (port / 8)] ^= (byte)(1 << (int)(port % 8));
            await domain.SharedInfo.WriteAsync(page);
            await domain.VcpuInfo.WriteAsync(CleanVcpuInfo(domain.Layout));

            await domain.Xen.SendAsync(port);

            (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(1, $"port {port} is the only one that is not masked");
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/already-pending")]
    public async Task PendingEventIsNotRaisedAgain(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        foreach (uint port in PortsOf(domain.Layout))
        {
            byte[] page = CleanSharedInfo(domain.Layout);
            page[domain.Layout.PendingOffset + (port / 8)] = (byte)(1 << (int)(port % 8));
            byte[] info = CleanVcpuInfo(domain.Layout);
            await domain.SharedInfo.WriteAsync(page);
            await domain.VcpuInfo.WriteAsync(info);

            (await domain.Xen.TrySendAsync(port)).Should().Be(Errno.None);

            Difference((await domain.SharedInfo.ReadAsync()).Bytes, page).Should().BeEmpty($"port {port} was pending");
            Difference((await domain.VcpuInfo.ReadAsync()).Bytes, info).Should().BeEmpty($"port {port} was pending");
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/selector-already-set")]
    public async Task SelectedWordIsNotUpcalledAgain(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        uint bits = (uint)domain.Layout.WordBits;

        // The guest has cleared upcall_pending and has yet to look at words 1 and 3.
        await domain.VcpuInfo.SetSelectorAsync(0b1010);
        await domain.Xen.SendAsync(bits);
        XenVcpuInfoState state = await domain.VcpuInfo.ReadAsync();
        state.UpcallPending.Should().Be(0, "the guest is going to look at word 1 anyway");
        state.Selector.Should().Be(0b1010);

        await domain.Xen.SendAsync(2 * bits);
        state = await domain.VcpuInfo.ReadAsync();
        state.UpcallPending.Should().Be(1);
        state.Selector.Should().Be(0b1110);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(bits, 2 * bits);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/accumulate")]
    public async Task EventsOfSeveralPortsAccumulate(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        uint[] ports = PortsOf(domain.Layout);
        foreach (uint port in ports)
        {
            await domain.Xen.SendAsync(port);
        }

        (await domain.SharedInfo.PendingAsync()).Should().Equal(ports);
        (await domain.VcpuInfo.ReadAsync()).Selector.Should().Be(ports.Aggregate(0UL, (s, p) => s | (1UL << ((int)p / domain.Layout.WordBits))));
    }

    [Fact]
    [Clause("kvm-xen/evtchn/upcall-mask-is-the-guests")]
    public async Task UpcallMaskIsNotLookedAt()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);
        await domain.VcpuInfo.SetUpcallMaskAsync(1);

        await domain.Xen.SendAsync(15);

        XenVcpuInfoState state = await domain.VcpuInfo.ReadAsync();
        (state.UpcallPending, state.UpcallMask, state.Selector).Should().Be((1, 1, 1UL));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/port-range")]
    public async Task PortOutOfRangeIsRefused(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        uint ports = domain.Layout.Ports;

        foreach (uint port in new uint[] { 0, ports, ports + 1, 0x80000000, uint.MaxValue })
        {
            (await domain.Xen.TrySendAsync(port)).Should().Be(Errno.EINVAL, $"the port is {port}");
        }

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);
        (await domain.Xen.TrySendAsync(ports - 1)).Should().Be(Errno.None, "it is the last port");
        (await domain.Xen.TrySendAsync(1)).Should().Be(Errno.None, "it is the first port");
    }

    [Fact]
    [Clause("kvm-xen/evtchn/port-range")]
    public async Task PortRangeFollowsLongMode()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);

        await domain.Xen.SetLongModeAsync(false);
        (await domain.Xen.TrySendAsync(1024)).Should().Be(Errno.EINVAL);
        await domain.Xen.SetLongModeAsync(true);
        (await domain.Xen.TrySendAsync(1024)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/priority")]
    public async Task OtherPrioritiesAreRefused()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);

        foreach (uint priority in new uint[] { 0, 1, KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL, 0x7fffffff, 0xfffffffe })
        {
            (await domain.Xen.TrySendAsync(15, priority: priority)).Should().Be(Errno.EINVAL, $"the priority is 0x{priority:x}");
        }

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("kvm-xen/evtchn/vcpu")]
    public async Task EventGoesToTheVcpuWithTheIdAndToNoOther()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 3, VcpuIds = [0, 2, 1] });

        foreach ((uint id, int index, uint port) in new (uint, int, uint)[] { (2, 1, 70), (1, 2, 130), (0, 0, 5) })
        {
            await domain.Xen.SendAsync(port, id);

            for (int other = 0; other < 3; other++)
            {
                XenVcpuInfoState state = await domain.VcpuInfos[other].ReadAsync();
                (state.UpcallPending, state.Selector).Should().Be(other == index ? ((byte)1, 1UL << (int)(port / 64)) : ((byte)0, 0UL), $"the vCPU with id {id} has index {index}");
            }

            await domain.VcpuInfos[index].ClearAsync();
        }
    }

    [Fact]
    [Clause("kvm-xen/evtchn/vcpu")]
    public async Task EventForAnAbsentVcpuIsRefused()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2, VcpuIds = [0, 5] });

        foreach (uint vcpu in new uint[] { 1, 4, 6, 1000, uint.MaxValue })
        {
            (await domain.Xen.TrySendAsync(15, vcpu)).Should().Be(Errno.EINVAL, $"there is no vCPU {vcpu}");
        }

        (await domain.SharedInfo.PendingAsync()).Should().BeEmpty();
        (await domain.Xen.TrySendAsync(15, 5)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/no-shared-info")]
    public async Task WithoutSharedInfoNothingIsDelivered()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);
        await domain.Xen.SendAsync(15);
        XenDomain.Expect(await domain.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN), "SHARED_INFO off");

        (await domain.Xen.TrySendAsync(16)).Should().Be(Errno.EINVAL);

        (await domain.SharedInfo.PendingAsync()).Should().Equal([15u], "the page is no longer shared");
        await domain.SetSharedInfoAsync();
        (await domain.Xen.TrySendAsync(16)).Should().Be(Errno.None);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u, 16u);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/moved-shared-info")]
    public async Task MovedSharedInfoIsUsedAtOnce()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);
        await domain.Xen.SendAsync(15);
        await domain.Xen.SetSharedInfoAsync(0x24);
        await domain.Xen.SendAsync(16);
        await domain.Xen.SetSharedInfoHvaAsync(domain.Vm.Memory.Address + 0x25000);
        await domain.Xen.SendAsync(17);

        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u);
        (await new XenSharedInfo(domain.Vm.Memory, 0x24000, domain.Layout).PendingAsync()).Should().Equal(16u);
        (await new XenSharedInfo(domain.Vm.Memory, 0x25000, domain.Layout).PendingAsync()).Should().Equal(17u);
    }

    // Memory that moves under the cached translations

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/stale-translation")]
    public async Task EventAfterAMemslotChangeIsDelivered(XenAbi abi)
    {
        XenDomain domain = await CreateAsync(abi);
        await domain.Xen.SendAsync(15);
        await domain.MakeTranslationsStaleAsync();

        (await domain.Xen.TrySendAsync(70)).Should().Be(Errno.None);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u, 70u);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/stale-translation")]
    public async Task EventAfterThePageWasDroppedIsDelivered()
    {
        XenDomain domain = await CreateAsync(XenAbi.Bits64);
        await domain.Xen.SendAsync(15);
        await domain.SharedInfo.DropAsync();

        (await domain.Xen.TrySendAsync(70)).Should().Be(Errno.None);
        (await domain.SharedInfo.PendingAsync()).Should().Equal([70u], "the old page, with port 15, is gone");
    }

    [Fact]
    [Clause("kvm-xen/evtchn/stale-translation")]
    public async Task EventFollowsAReplacedMapping()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true });
        await domain.Xen.SendAsync(15);
        await domain.RemoveSharedInfoSlotAsync();
        await domain.Vm.SetMemoryRegionAsync(XenDomain.SharedInfoSlot, XenDomain.SharedInfoApartGpa, 0x1000, domain.Vm.Memory.Address + GuestLayout.Scratch);

        (await domain.Xen.TrySendAsync(70)).Should().Be(Errno.None);

        (await domain.SharedInfo.PendingAsync()).Should().Equal([15u], "the slot is backed by other memory now");
        (await new XenSharedInfo(domain.Vm.Memory, GuestLayout.Scratch, domain.Layout).PendingAsync()).Should().Equal(70u);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/absent-shared-info")]
    public async Task EventWithoutTheSharedInfoSlotFailsUntilItIsBack()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true });
        await domain.RemoveSharedInfoSlotAsync();

        (await domain.Xen.TrySendAsync(15)).Should().Be(Errno.EFAULT);
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);

        await domain.AddSharedInfoSlotAsync();
        (await domain.Xen.TrySendAsync(15)).Should().Be(Errno.None);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/hva-needs-no-slot")]
    public async Task SharedInfoByHvaNeedsNoSlot()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true, ByHva = true });
        await domain.RemoveSharedInfoSlotAsync();

        (await domain.Xen.TrySendAsync(15)).Should().Be(Errno.None);
        (await domain.SharedInfo.PendingAsync()).Should().Equal(15u);
    }

    // vcpu_info that is not there when the event comes

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/deferred-selector")]
    [FixedBy("003d914220c9", "KVM: x86/xen: allow vcpu_info content to be 'safely' copied")]
    public async Task EventsBeforeVcpuInfoIsSetReachItWhenTheVcpuRuns(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel,
            XenDomainOptions.Default with { Abi = abi, WithoutVcpuInfo = true, Upcall = UpcallPath.None });
        uint[] ports = PortsOf(domain.Layout);
        foreach (uint port in ports)
        {
            (await domain.Xen.TrySendAsync(port)).Should().Be(Errno.None);
        }

        byte[] info = CleanVcpuInfo(domain.Layout);
        info.AsSpan(XenVcpuInfo.TimeOffset).Clear();
        await domain.VcpuInfo.WriteAsync(info);
        await domain.SetVcpuInfoAsync(0);
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0, "only the vCPU itself writes what was kept for it");
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        XenVcpuInfoState state = await domain.VcpuInfo.ReadAsync();
        state.UpcallPending.Should().Be(1);
        state.Selector.Should().Be(ports.Aggregate(0UL, (s, p) => s | (1UL << ((int)p / domain.Layout.WordBits))));
        state.Bytes[1].Should().Be(info[1], "upcall_mask is the guest's");

        // Once handed over it is forgotten.
        await domain.VcpuInfo.ClearAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        state = await domain.VcpuInfo.ReadAsync();
        (state.UpcallPending, state.Selector).Should().Be((0, 0UL), "nothing happened since");
    }

    [Fact]
    [Clause("kvm-xen/evtchn/deferred-selector")]
    public async Task EventsWhileVcpuInfoIsOffReachItAtItsNewPlace()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Upcall = UpcallPath.None });
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        XenDomain.Expect(await domain.Xen.TrySetVcpuInfoAsync(domain.Vcpu, KVM_XEN_INVALID_GPA), "VCPU_INFO off");
        await domain.Xen.SendAsync(130);
        await domain.Xen.SetVcpuInfoAsync(domain.Vcpu, 0x38000);
        var moved = new XenVcpuInfo(domain.Vm.Memory, 0x38000, domain.Layout);

        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(0);
        XenVcpuInfoState state = await moved.ReadAsync();
        (state.UpcallPending, state.Selector).Should().Be((1, 1UL << 2));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/evtchn/deferred-is-dirty")]
    public async Task HandingOverWhatWasKeptIsReportedDirty(XenAbi abi)
    {
        const int Pages = 16;
        const uint OtherSlot = 5;
        const ulong OtherGpa = 0x05000000;
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Abi = abi, WithoutVcpuInfo = true, Upcall = UpcallPath.None });
        await domain.Vm.SetMemoryRegionAsync(XenDomain.SpareSlot, XenDomain.SpareGpa, Pages * 0x1000, domain.Vm.Memory.Address + GuestLayout.Scratch,
            KvmConst.KVM_MEM_LOG_DIRTY_PAGES);
        await domain.Xen.SetVcpuInfoAsync(domain.Vcpu, XenDomain.SpareGpa + 0x3200);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        (await domain.Vm.GetDirtyLogAsync(XenDomain.SpareSlot, Pages)).Should().Equal([3], "the clock was written");
        await domain.Vm.SetMemoryRegionAsync(OtherSlot, OtherGpa, 0x1000, domain.Vm.Memory.Address + GuestLayout.Scratch + 0x20000);

        await domain.Xen.SendAsync(130);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        (await new XenVcpuInfo(domain.Vm.Memory, GuestLayout.Scratch + 0x3200, domain.Layout).ReadAsync()).Selector.Should().NotBe(0);
        (await domain.Vm.GetDirtyLogAsync(XenDomain.SpareSlot, Pages)).Should().Equal(3);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/absent-vcpu-info")]
    public async Task EventWithoutTheVcpuInfoSlotIsKeptUntilItIsBack()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { VcpuInfoApart = true, Upcall = UpcallPath.None });
        await domain.RemoveVcpuInfoSlotAsync();
        (await domain.Xen.TrySendAsync(130)).Should().Be(Errno.None);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        await domain.AddVcpuInfoSlotAsync();

        // What is kept is handed over between an exit that the kernel handles and the next entry: here the local APIC's.
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.ReadApic(0x20)));

        XenVcpuInfoState state = await domain.VcpuInfo.ReadAsync();
        (state.UpcallPending, state.Selector).Should().Be((1, 1UL << 2));
    }

    [Fact]
    [Clause("kvm-xen/evtchn/deferred-is-per-vcpu")]
    public async Task EventKeptForOneVcpuDoesNotHoldUpAnother()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2, WithoutVcpuInfo = true, Upcall = UpcallPath.None });
        await domain.SetVcpuInfoAsync(1);

        await domain.Xen.SendAsync(70, 0);
        await domain.Xen.SendAsync(130, 1);

        (await domain.VcpuInfos[1].ReadAsync()).Selector.Should().Be(1UL << 2);
        await domain.SetVcpuInfoAsync(0);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        (await domain.VcpuInfos[0].ReadAsync()).Selector.Should().Be(1UL << 1);
    }

    private static string Difference(byte[] seen, byte[] wanted) => string.Join(", ", Enumerable.Range(0, wanted.Length)
        .Where(i => seen[i] != wanted[i]).Select(i => $"0x{i:x3} is 0x{seen[i]:x2} and not 0x{wanted[i]:x2}"));
}

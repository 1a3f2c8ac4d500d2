// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>The page of hypercall stubs that a guest asks for by writing the configured MSR.</summary>
public sealed class HypercallPageTests(KernelUnderTest kernel)
{
    // Not one of Hyper-V's, which old kernels answer whether the guest knows Hyper-V or not.
    private const uint Msr = 0x40000200;
    private const int PageSize = 4096;
    private const int StubSize = 32;

    private async Task<XenDomain> CreateInterceptingAsync(XenAbi abi)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, Msr);
        return domain;
    }

    private static async Task<CommandStatus> WriteMsrAsync(XenDomain domain, ulong value)
    {
        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.WriteMsr(Msr, value).Expecting(X86Exception.GeneralProtection)));
        return results[^1].Status;
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall-page/stubs")]
    public async Task InterceptingPageHoldsAStubPerHypercall(XenAbi abi)
    {
        XenDomain domain = await CreateInterceptingAsync(abi);
        await domain.Vm.Memory.FillAsync(XenDomain.HypercallPageGpa - PageSize, 3 * PageSize, 0xa5);

        (await WriteMsrAsync(domain, XenDomain.HypercallPageGpa)).Should().Be(CommandStatus.Done);

        byte[] around = await domain.Vm.ReadMemoryAsync(XenDomain.HypercallPageGpa - PageSize, 3 * PageSize);
        byte[] page = around[PageSize..(2 * PageSize)];
        byte[] call = page[5..8];
        call[..2].Should().Equal([0x0f, 0x01], "vmcall and vmmcall begin so");
        call[2].Should().BeOneOf([0xc1, 0xd9], "it is vmcall or vmmcall");
        for (int number = 0; number < PageSize / StubSize; number++)
        {
            byte[] stub = [0xb8, 0, 0, 0, 0, .. call, 0xc3, .. Enumerable.Repeat((byte)0xcc, StubSize - 9)];
            BinaryPrimitives.WriteInt32LittleEndian(stub.AsSpan(1), number);
            page[(number * StubSize)..((number + 1) * StubSize)].Should().Equal(stub, $"it is the stub of hypercall {number}");
        }

        around[..PageSize].Should().OnlyContain(b => b == 0xa5, "the page before is not the guest's");
        around[(2 * PageSize)..].Should().OnlyContain(b => b == 0xa5, "the page after is not the guest's");
    }

    [Theory]
    [InlineData(XenAbi.Bits64, 0)]
    [InlineData(XenAbi.Bits64, 127)]
    [InlineData(XenAbi.Bits32, 55)]
    [Clause("kvm-xen/hypercall-page/calls")]
    public async Task StubMakesItsHypercall(XenAbi abi, int number)
    {
        XenDomain domain = await CreateInterceptingAsync(abi);
        await domain.Vcpu.StartAsync(domain.Script()
            .Add(GuestCommand.WriteMsr(Msr, XenDomain.HypercallPageGpa))
            .Add(GuestCommand.Hypercall(HypercallInstruction.Page, domain.KernelMode, (ulong)number, [1, 2, 3, 4, 5, 6], XenDomain.HypercallPageGpa)));

        GuestExit exit = await domain.Vcpu.NextExitAsync();

        exit.Reason.Should().Be(KvmExit.KVM_EXIT_XEN);
        exit.Run.xen_hcall_input.Should().Be((ulong)number);
        exit.XenParams.Should().Equal(1, 2, 3, 4, 5, 6);
        await domain.Vcpu.ResumeWithAsync(exit, 0x1234567);
        IReadOnlyList<CommandResult> results = await domain.Vcpu.FinishAsync();
        results[^1].Value.Should().Be(0x1234567);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(0x800)]
    [InlineData(0xfff)]
    [Clause("kvm-xen/hypercall-page/page-number")]
    public async Task PageNumberWithInterceptionFaults(int number)
    {
        XenDomain domain = await CreateInterceptingAsync(XenAbi.Bits64);
        await domain.Vm.Memory.FillAsync(XenDomain.HypercallPageGpa, PageSize, 0xa5);

        (await WriteMsrAsync(domain, XenDomain.HypercallPageGpa | (uint)number)).Should().Be(CommandStatus.Faulted);

        (await domain.Vm.ReadMemoryAsync(XenDomain.HypercallPageGpa, PageSize)).Should().OnlyContain(b => b == 0xa5);
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/no-memory")]
    public async Task PageOutsideMemoryFaults()
    {
        XenDomain domain = await CreateInterceptingAsync(XenAbi.Bits64);

        (await WriteMsrAsync(domain, 0x7ffff000)).Should().Be(CommandStatus.Faulted);
        (await WriteMsrAsync(domain, XenDomain.HypercallPageGpa)).Should().Be(CommandStatus.Done);
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/unconfigured")]
    public async Task WithoutConfigurationTheMsrFaults()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_HYPERCALL_MSR);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.WriteMsr(Msr, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int xen)
            .Add(GuestCommand.WriteMsr(0x4fffffff, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int last));
        results[xen].Status.Should().Be(CommandStatus.Faulted);
        results[last].Status.Should().Be(CommandStatus.Faulted);
    }

    // Blobs

    private async Task<(XenDomain Domain, byte[] Blob32, byte[] Blob64, Mapping Mapping)> CreateWithBlobsAsync(XenAbi abi)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_HYPERCALL_MSR);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Abi = abi });
        Mapping blobs = await domain.Vm.Session.MapAnonymousAsync(5 * PageSize, "blobs");
        byte[] blob32 = Pages(2, 0x32);
        byte[] blob64 = Pages(3, 0x64);
        await blobs.WriteAsync(0, blob32);
        await blobs.WriteAsync(2 * PageSize, blob64);
        XenDomain.Expect(await domain.Xen.TryConfigureAsync(new kvm_xen_hvm_config
        {
            msr = Msr,
            blob_addr_32 = blobs.Address,
            blob_size_32 = 2,
            blob_addr_64 = blobs.Address + (2 * PageSize),
            blob_size_64 = 3,
        }), "KVM_XEN_HVM_CONFIG");
        return (domain, blob32, blob64, blobs);
    }

    // Bytes that differ by page, by place in it, and by blob.
    private static byte[] Pages(int count, int seed) =>
        [.. Enumerable.Range(0, count * PageSize).Select(i => (byte)((seed * 31) + (i * 7) + (i / PageSize * 101) + (i >> 8)))];

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall-page/blob")]
    public async Task EachBlobPageIsCopiedWhole(XenAbi abi)
    {
        (XenDomain domain, byte[] blob32, byte[] blob64, _) = await CreateWithBlobsAsync(abi);
        byte[] blob = abi == XenAbi.Bits64 ? blob64 : blob32;
        for (int number = 0; number < blob.Length / PageSize; number++)
        {
            await domain.Vm.Memory.FillAsync(XenDomain.HypercallPageGpa - PageSize, 3 * PageSize, 0xa5);

            (await WriteMsrAsync(domain, XenDomain.HypercallPageGpa | (uint)number)).Should().Be(CommandStatus.Done);

            byte[] around = await domain.Vm.ReadMemoryAsync(XenDomain.HypercallPageGpa - PageSize, 3 * PageSize);
            around[PageSize..(2 * PageSize)].AsSpan().SequenceEqual(blob.AsSpan(number * PageSize, PageSize)).Should().BeTrue($"it is page {number} of the blob");
            around[..PageSize].Should().OnlyContain(b => b == 0xa5);
            around[(2 * PageSize)..].Should().OnlyContain(b => b == 0xa5);
        }
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall-page/blob-size")]
    public async Task BlobPageBeyondItsSizeFaults(XenAbi abi)
    {
        (XenDomain domain, _, _, _) = await CreateWithBlobsAsync(abi);
        uint size = abi == XenAbi.Bits64 ? 3u : 2u;
        await domain.Vm.Memory.FillAsync(XenDomain.HypercallPageGpa, PageSize, 0xa5);

        foreach (uint number in new[] { size, size + 1, 0xfffu })
        {
            (await WriteMsrAsync(domain, XenDomain.HypercallPageGpa | number)).Should().Be(CommandStatus.Faulted, $"the blob has {size} pages and {number} is asked for");
        }

        (await domain.Vm.ReadMemoryAsync(XenDomain.HypercallPageGpa, PageSize)).Should().OnlyContain(b => b == 0xa5);
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/blob-unreadable")]
    public async Task UnreadableBlobEndsTheRun()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        (XenDomain domain, _, _, Mapping blobs) = await CreateWithBlobsAsync(XenAbi.Bits64);

        // Only after the vCPU has been started: nothing else is mapped where the blob was.
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await blobs.UnmapAsync();
        await domain.Vcpu.StartAsync(domain.Script().Add(GuestCommand.WriteMsr(Msr, XenDomain.HypercallPageGpa)));

        (await domain.Vcpu.NextExitAsync()).Error.Should().Be(Errno.EFAULT);
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/no-memory")]
    public async Task BlobForAPageOutsideMemoryFaults()
    {
        (XenDomain domain, _, _, _) = await CreateWithBlobsAsync(XenAbi.Bits64);

        (await WriteMsrAsync(domain, 0x7ffff000)).Should().Be(CommandStatus.Faulted);
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/blob-is-freed")]
    [FixedBy("385407a69d51", "KVM: x86/xen: Fix memory leak in kvm_xen_write_hypercall_page()")]
    public async Task CopyingABlobManyTimesLeaksNothing()
    {
        (XenDomain domain, _, _, _) = await CreateWithBlobsAsync(XenAbi.Bits64);
        kernel.RequireChange("xen-hypercall-blob-freed");
        const int Writes = 4000;
        var slab = await Slab.ReadAsync(domain.Vm.Session, "kmalloc-4k");

        await domain.Vcpu.ExecuteAsync(domain.Script()
            .Label("again")
            .Add(GuestCommand.WriteMsr(Msr, XenDomain.HypercallPageGpa))
            .Repeat("again", Writes / 2)
            .Label("outside")
            .Add(GuestCommand.WriteMsr(Msr, 0x7ffff000).Expecting(X86Exception.GeneralProtection))
            .Repeat("outside", Writes / 2));

        (await slab.GrowthAsync()).Should().BeLessThan(Writes / 4, "each write copies a page of the blob and frees it");
    }

    // What else the write does

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall-page/latches-long-mode")]
    public async Task WritingLatchesTheGuestsWidth(XenAbi abi)
    {
        XenDomain domain = await CreateInterceptingAsync(abi);
        byte own = abi == XenAbi.Bits64 ? (byte)1 : (byte)0;
        await domain.Xen.SetLongModeAsync(abi != XenAbi.Bits64);

        await WriteMsrAsync(domain, XenDomain.HypercallPageGpa);

        (await domain.Xen.GetAsync(KVM_XEN_ATTR_TYPE_LONG_MODE)).long_mode.Should().Be(own);
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/hypercall-page/moves-the-wall-clock")]
    public async Task ChangeOfWidthMovesTheWallClock(XenAbi abi)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO);
        XenDomain domain = await CreateInterceptingAsync(abi);
        await domain.Xen.SetLongModeAsync(abi != XenAbi.Bits64);
        await domain.SetSharedInfoAsync();
        await domain.SharedInfo.FillAsync(0);

        await WriteMsrAsync(domain, XenDomain.HypercallPageGpa);
        (await domain.SharedInfo.ReadAsync()).WallClock.Version.Should().Be(2, "the guest's width differed from LONG_MODE");

        await WriteMsrAsync(domain, XenDomain.HypercallPageGpa);
        (await domain.SharedInfo.ReadAsync()).WallClock.Version.Should().Be(2, "the second write changed no width");
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/moves-the-wall-clock")]
    public async Task ChangeOfWidthWithoutItsSharedInfoFaults()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { SharedInfoApart = true });
        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, Msr);
        await domain.SetSharedInfoAsync();
        await domain.RemoveSharedInfoSlotAsync();

        (await WriteMsrAsync(domain, XenDomain.HypercallPageGpa)).Should().Be(CommandStatus.Faulted);

        (await domain.Vm.ReadMemoryAsync(XenDomain.HypercallPageGpa, 1))[0].Should().Be(0, "the page is written only after the wall clock");
    }

    [Fact]
    [Clause("kvm-xen/hypercall-page/host-write")]
    [FixedBy("3617c0ee7dec", "KVM: x86/xen: Only write Xen hypercall page for guest writes to MSR")]
    public async Task HostWriteFillsThePageOnOldKernelsOnly()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000200);

        bool taken = await domain.Vcpu.TrySetMsrAsync(0x40000200, XenDomain.HypercallPageGpa);

        if (kernel.Has("xen-hypercall-page-guest-write"))
        {
            taken.Should().BeFalse();
        }

        (await domain.Vm.ReadMemoryAsync(XenDomain.HypercallPageGpa, 1))[0].Should().Be(taken ? (byte)0xb8 : (byte)0);
    }
}

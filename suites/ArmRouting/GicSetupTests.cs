// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.ArmRouting;

public sealed class GicSetupTests(KernelUnderTest kernel)
{
    private const ulong Undefined = ulong.MaxValue;
    private const ulong Unmapped = 0x10;
    private const ulong Size64K = 0x10000;

    // KVM_VM_TYPE_ARM_IPA_SIZE 0: 40 bits.
    private const ulong IpaEnd = 1ul << 40;

    [Fact]
    [Clause("arm-vgic/create/once")]
    public async Task SecondGicIsRefused()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        await vm.CreateGicAsync();
        (await Vgic.TryCreateAsync(vm)).Error.Should().Be(Errno.EEXIST);
    }

    [Fact]
    [Clause("arm-vgic/create/before-any-vcpu-ran")]
    public async Task GicAfterAVcpuRanIsRefused()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(GuestCommand.Nop));
        (await Vgic.TryCreateAsync(vm)).Error.Should().Be(Errno.EBUSY);
    }

    [Fact]
    [Clause("arm-vgic/create/beside-the-most-vcpus")]
    public async Task GicIsCreatedBesideAsManyVcpusAsThereCanBe()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 0);
        int most = (int)await vm.CheckExtensionAsync(KvmCap.MaxVcpus);
        (Errno Error, KernelFd? Fd)[] created = await Task.WhenAll(Enumerable.Range(0, most).Select(id => vm.TryCreateVcpuFdAsync((uint)id)));
        created.Should().OnlyContain(c => c.Error == Errno.None);

        (await Vgic.TryCreateAsync(vm)).Error.Should().Be(Errno.None);
    }

    [Theory]
    [InlineData(KvmConst.KVM_DEV_TYPE_ARM_VGIC_V3, Errno.None)]
    [InlineData(KvmConst.KVM_DEV_TYPE_ARM_VGIC_ITS, Errno.None)]
    [InlineData(0xffu, Errno.ENODEV)]
    [Clause("arm-vgic/create/test-flag-only-asks")]
    public async Task TestFlagOnlyAsks(uint type, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        (await vm.TryCreateDeviceAsync(type, "asked for", KvmConst.KVM_CREATE_DEVICE_TEST)).Error.Should().Be(expected);
        if (type == KvmConst.KVM_DEV_TYPE_ARM_VGIC_V3)
        {
            // Nothing was made: it still can be.
            (await Vgic.TryCreateAsync(vm)).Error.Should().Be(Errno.None);
        }
    }

    [Fact]
    [Clause("arm-vgic/address/undefined-until-set")]
    public async Task AddressesReadAsUndefinedUntilSet()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST)).Should().Be((Errno.None, Undefined));
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST)).Should().Be((Errno.None, Undefined));
    }

    [Fact]
    [Clause("arm-vgic/address/reads-back")]
    public async Task AddressesReadBack()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST, 0x0801_0000)).Should().Be(Errno.None);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x0902_0000)).Should().Be(Errno.None);
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST)).Should().Be((Errno.None, 0x0801_0000ul));
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST)).Should().Be((Errno.None, 0x0902_0000ul));
    }

    [Theory]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST, 0x0800_1000ul, Errno.EINVAL)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST, 0x0800_8000ul, Errno.EINVAL)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST, IpaEnd - Size64K, Errno.None)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST, IpaEnd, Errno.E2BIG)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST, 0xffff_ffff_ffff_0000ul, Errno.EINVAL)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST, 0xffff_ffff_fffe_0000ul, Errno.E2BIG)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x0900_1000ul, Errno.EINVAL)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x0900_8000ul, Errno.EINVAL)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_REDIST, IpaEnd - (2 * Size64K), Errno.None)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_REDIST, IpaEnd - Size64K, Errno.E2BIG)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_REDIST, IpaEnd, Errno.E2BIG)]
    [InlineData(KVM_VGIC_V2_ADDR_TYPE_DIST, 0x0800_0000ul, Errno.ENXIO)]
    [InlineData(KVM_VGIC_V2_ADDR_TYPE_CPU, 0x0800_0000ul, Errno.ENXIO)]
    [InlineData(KVM_VGIC_ITS_ADDR_TYPE, 0x0800_0000ul, Errno.ENXIO)]
    [InlineData(6u, 0x0800_0000ul, Errno.ENXIO)]
    [Clause("arm-vgic/address/alignment")]
    [Clause("arm-vgic/address/range")]
    [Clause("arm-vgic/address/unknown-type")]
    public async Task AddressIsChecked(uint type, ulong address, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(type, address)).Should().Be(expected);
        if (type is KVM_VGIC_V3_ADDR_TYPE_DIST or KVM_VGIC_V3_ADDR_TYPE_REDIST)
        {
            (await gic.TryGetAddressAsync(type)).Value.Should().Be(expected == Errno.None ? address : Undefined, "a refused address changes nothing");
        }
        else
        {
            (await gic.TryGetAddressAsync(type)).Error.Should().Be(expected);
        }
    }

    [Fact]
    [Clause("arm-vgic/address/alignment")]
    public async Task MisalignedRedistributorsAreRefusedWithoutAVcpu()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 0);
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x0900_1000)).Should().Be(Errno.EINVAL);
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST)).Should().Be((Errno.None, Undefined));
    }

    [Theory]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_DIST)]
    [InlineData(KVM_VGIC_V3_ADDR_TYPE_REDIST)]
    [Clause("arm-vgic/address/once")]
    public async Task AddressIsSetOnce(uint type)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(type, 0x0800_0000)).Should().Be(Errno.None);
        // One vCPU's redistributor is 128 KiB: this one is beside it, not on it.
        (await gic.TrySetAddressAsync(type, 0x0a00_0000)).Should().Be(Errno.EEXIST);
        (await gic.TryGetAddressAsync(type)).Value.Should().Be(0x0800_0000);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_DIST)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_REDIST)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0ul)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Ctlr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (ulong)Gicr.Ctlr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32ul)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, (ulong)IccRegister.Pmr)]
    [Clause("arm-vgic/attribute/bad-pointer")]
    public async Task BadPointerIsAFault(uint group, ulong attribute)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        (await vm.Gic.TrySetAtAsync(group, attribute, Unmapped, "bad pointer")).Should().Be(Errno.EFAULT);
        (await vm.Gic.TryGetAtAsync(group, attribute, Unmapped, "bad pointer")).Should().Be(Errno.EFAULT);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/reads-back-by-index")]
    public async Task RedistributorRegionsReadBackByIndex()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        ulong first = Vgic.RedistributorRegion(0x0900_0000, count: 3, index: 0);
        ulong second = Vgic.RedistributorRegion(0x0a00_0000, count: 5, index: 1);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, first)).Should().Be(Errno.None);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, second)).Should().Be(Errno.None);
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, 0)).Should().Be((Errno.None, first));
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, 1)).Should().Be((Errno.None, second));
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, 2)).Error.Should().Be(Errno.ENOENT);
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST)).Should().Be((Errno.None, 0x0900_0000ul));
    }

    public static TheoryData<string, ulong[], Errno> Regions() => new()
    {
        { "no redistributors", [Vgic.RedistributorRegion(0x0900_0000, 0, 0)], Errno.EINVAL },
        { "flags", [Vgic.RedistributorRegion(0x0900_0000, 1, 0, flags: 1)], Errno.EINVAL },
        { "highest flag", [Vgic.RedistributorRegion(0x0900_0000, 1, 0, flags: 8)], Errno.EINVAL },
        { "first index is not 0", [Vgic.RedistributorRegion(0x0900_0000, 1, 1)], Errno.EINVAL },
        { "index left out", [Vgic.RedistributorRegion(0x0900_0000, 1, 0), Vgic.RedistributorRegion(0x0a00_0000, 1, 2)], Errno.EINVAL },
        { "index twice", [Vgic.RedistributorRegion(0x0900_0000, 1, 0), Vgic.RedistributorRegion(0x0a00_0000, 1, 0)], Errno.EINVAL },
        { "overlap by one", [Vgic.RedistributorRegion(0x0900_0000, 2, 0), Vgic.RedistributorRegion(0x0902_0000, 1, 1)], Errno.EINVAL },
        { "overlap from below", [Vgic.RedistributorRegion(0x0900_0000, 2, 0), Vgic.RedistributorRegion(0x08fe_0000, 2, 1)], Errno.EINVAL },
        { "directly above", [Vgic.RedistributorRegion(0x0900_0000, 2, 0), Vgic.RedistributorRegion(0x0904_0000, 1, 1)], Errno.None },
        { "directly below", [Vgic.RedistributorRegion(0x0900_0000, 2, 0), Vgic.RedistributorRegion(0x08fc_0000, 2, 1)], Errno.None },
        { "ends with the address space", [Vgic.RedistributorRegion(IpaEnd - 0x4_0000, 2, 0)], Errno.None },
        { "ends behind the address space", [Vgic.RedistributorRegion(IpaEnd - 0x4_0000, 3, 0)], Errno.E2BIG },
    };

    [Theory]
    [MemberData(nameof(Regions))]
    [Clause("arm-vgic/redist-region/count-and-flags")]
    [Clause("arm-vgic/redist-region/index-order")]
    [Clause("arm-vgic/redist-region/no-overlap")]
    [Clause("arm-vgic/address/range")]
    public async Task LastRedistributorRegionIsChecked(string what, ulong[] regions, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        foreach (ulong region in regions.SkipLast(1))
        {
            (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, region)).Should().Be(Errno.None);
        }

        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, regions[^1])).Should().Be(expected, what);
        uint index = (uint)regions.Length - 1;
        if (expected != Errno.None && (regions[^1] & 0xfff) == index)
        {
            (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, index)).Error.Should().Be(Errno.ENOENT, "a refused region is not there");
        }
    }

    [Fact]
    [Clause("arm-vgic/redist-region/not-beside-the-single-region")]
    public async Task SingleRegionAndCountedRegionsDoNotMix()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        await AddRegionAsync(gic, 0x0900_0000, 1, 0);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x0a00_0000)).Should().Be(Errno.EINVAL);
    }

    [Theory]
    [InlineData(0x0900_0000ul, Errno.EINVAL)]
    [InlineData(0x0901_0000ul, Errno.EINVAL)]
    [InlineData(0x0902_0000ul, Errno.None)]
    [InlineData(0x08ff_0000ul, Errno.None)]
    [Clause("arm-vgic/address/redistributors-beside-the-distributor")]
    public async Task DistributorInsideTheRedistributorsIsFoundAtTheFirstRun(ulong distributor, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x0900_0000)).Should().Be(Errno.None);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST, distributor)).Should().Be(Errno.None);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await FirstRunAsync(vm)).Should().Be(expected);
    }

    [Theory]
    [InlineData(0x08ff_0000ul, Errno.EINVAL)]
    [InlineData(0x0900_0000ul, Errno.EINVAL)]
    [InlineData(0x0901_0000ul, Errno.None)]
    [InlineData(0x08fe_0000ul, Errno.None)]
    [Clause("arm-vgic/address/redistributors-beside-the-distributor")]
    public async Task RedistributorsOverTheDistributorAreRefused(ulong redistributors, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST, 0x0900_0000)).Should().Be(Errno.None);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, redistributors)).Should().Be(expected);
    }

    [Fact]
    [Clause("arm-vgic/run/needs-a-redistributor")]
    public async Task RunWithTooFewRedistributorsFails()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 2);
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, Arm64Layout.Redistributors, 1, 0);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await FirstRunAsync(vm)).Should().Be(Errno.ENXIO);
    }

    [Fact]
    [Clause("arm-vgic/run/needs-a-distributor")]
    public async Task RunWithoutADistributorAddressFails()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await FirstRunAsync(vm)).Should().Be(Errno.ENXIO);
    }

    [Fact]
    [Clause("arm-vgic/run/needs-init")]
    public async Task RunBeforeInitFails()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
        (await FirstRunAsync(vm)).Should().Be(Errno.EBUSY);
    }

    [Fact]
    [Clause("arm-vgic/run/failure-is-final")]
    public async Task FailedFirstRunEndsTheVm()
    {
        kernel.RequireChange("arm-failed-run-is-final");
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(new Spi(40)), false)).Should().Be(Errno.None);
        (await FirstRunAsync(vm)).Should().Be(Errno.ENXIO);
        (await vm.TryIrqLineAsync(ArmIrqLine.Of(new Spi(40)), false)).Should().Be(Errno.EIO);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/filled-in-index-order")]
    public async Task VcpusFillTheRegionsInOrder()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 3);
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, 0x0900_0000, 2, 0);
        await AddRegionAsync(gic, 0x0980_0000, 4, 1);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(GuestCommand.Load(0x0900_0000 + Gicr.Typer, AccessWidth.Qword))
            .Add(GuestCommand.Load(0x0902_0000 + Gicr.Typer, AccessWidth.Qword))
            .Add(GuestCommand.Load(0x0980_0000 + Gicr.Typer, AccessWidth.Qword)));

        // Processor number in bits 23:8, Last in bit 4, affinity above 32. A full region is the last of its own range of addresses.
        results.Select(r => r.Value).Should().Equal(0x0000_0000_0000_0000ul, 0x0000_0001_0000_0110ul, 0x0000_0002_0000_0210ul);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/filled-in-index-order")]
    public async Task LaterVcpusFillTheRegionsInOrder()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        // Both have room when the second vCPU is created.
        await AddRegionAsync(gic, 0x0900_0000, 2, 0);
        await AddRegionAsync(gic, 0x0980_0000, 2, 1);
        await vm.CreateVcpuAsync(1);
        await vm.CreateVcpuAsync(2);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await ReadTypersAsync(vm, 0x0900_0000, 0x0902_0000, 0x0980_0000)).Should().Equal(0x000, 0x110, 0x210);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/last-of-adjacent-regions")]
    public async Task FullRegionWithANeighbourAboveIsNotTheLast()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 2);
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, 0x0900_0000, 1, 0);
        await AddRegionAsync(gic, 0x0902_0000, 1, 1);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await ReadTypersAsync(vm, 0x0900_0000, 0x0902_0000)).Should().Equal(0x000, 0x110);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/last-of-adjacent-regions")]
    public async Task FullRegionBelowAnEmptyOneIsTheLast()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, 0x0900_0000, 1, 0);
        await AddRegionAsync(gic, 0x0902_0000, 1, 1);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await ReadTypersAsync(vm, 0x0900_0000)).Should().Equal(0x010ul);
    }

    [Fact]
    [Clause("arm-vgic/address/redistributors-of-later-vcpus")]
    public async Task VcpuCreatedAfterTheAddressGetsARedistributor()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
        Vcpu second = await vm.CreateVcpuAsync(1);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        ScriptResults results = await second.ExecuteAsync(new GuestScript()
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Typer, AccessWidth.Qword))
            .Add(Arm64Command.LoadRedistributor(1, Gicr.Typer, AccessWidth.Qword)));
        results.Select(r => r.Value).Should().Equal(0ul, 0x0000_0001_0000_0110ul);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/refused-is-not-there")]
    public async Task RefusedRegionIsNotThere()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        // The overlap is found when the vCPU is to get its redistributor.
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, Vgic.RedistributorRegion(Arm64Layout.Distributor, 1, 0))).Should().Be(Errno.EINVAL);
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, 0)).Error.Should().Be(Errno.ENOENT);
        await AddRegionAsync(gic, 0x0900_0000, 1, 0);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await ReadTypersAsync(vm, 0x0900_0000)).Should().Equal(0x010ul);
    }

    [Fact]
    [Clause("arm-vgic/redist-region/refused-is-not-there")]
    public async Task RefusedRegionLeavesTheOnesBeforeItInPlace()
    {
        kernel.RequireChange("redist-refusal-keeps-others");
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 2);
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, 0x0900_0000, 1, 0);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, Vgic.RedistributorRegion(Arm64Layout.Distributor, 1, 1))).Should().Be(Errno.EINVAL);
        await AddRegionAsync(gic, 0x0980_0000, 1, 1);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await ReadTypersAsync(vm, 0x0900_0000, 0x0980_0000)).Should().Equal(0x010, 0x110);
    }

    [Fact]
    [Clause("arm-vgic/address/redistributor-of-a-failed-vcpu")]
    public async Task VcpuThatWasNotCreatedLeavesNoRedistributor()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, 0x0900_0000, 3, 0);
        (await vm.TryCreateVcpuFdAsync(0)).Error.Should().Be(Errno.EEXIST);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await vm.Vcpus[0].ExecuteExitingAsync(
            GuestCommand.Load(0x0900_0000 + Gicr.Typer),
            GuestCommand.Load(0x0902_0000 + Gicr.Typer))).Should().Equal("gpa 0x9020008 read 4");
    }

    [Fact]
    [Clause("arm-vgic/address/no-room-on-the-bus")]
    public async Task RedistributorsWithoutRoomOnTheBusAreRefused()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync(vcpus: 2);
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await FillBusAsync(vm, room: 1);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.ENOSPC);
        (await gic.TryGetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST)).Should().Be((Errno.None, Undefined));
        if (kernel.Has("redist-refusal-keeps-others"))
        {
            // The vCPU that had got one gave it back.
            await FreeOneAsync(vm, 1);
            (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
            (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
            await FreeOneAsync(vm, 2);
            ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
                .Add(Arm64Command.LoadRedistributor(0, Gicr.Typer))
                .Add(Arm64Command.LoadRedistributor(1, Gicr.Typer)));
            results.Select(r => r.Value).Should().Equal(0x000, 0x110);
        }
    }

    [Fact]
    [Clause("arm-vgic/address/no-room-on-the-bus")]
    public async Task VcpuWithoutRoomOnTheBusIsNotCreated()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        await AddRegionAsync(gic, 0x0900_0000, 2, 0);
        await FillBusAsync(vm, room: 0);
        (await vm.TryCreateVcpuFdAsync(1)).Error.Should().Be(Errno.ENOSPC);

        // The redistributor it would have got is the next one's.
        await FreeOneAsync(vm, 0);
        await vm.CreateVcpuAsync(1);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        await FreeOneAsync(vm, 1);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(GuestCommand.Load(0x0902_0000 + Gicr.Typer, AccessWidth.Qword)));
        results.Select(r => r.Value).Should().Equal(0x0000_0001_0000_0110ul);
    }

    [Fact]
    [Clause("arm-vgic/address/no-room-on-the-bus")]
    public async Task DistributorWithoutRoomOnTheBusFailsTheFirstRun()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        await FillBusAsync(vm, room: 0);
        (await FirstRunAsync(vm)).Should().Be(Errno.ENOSPC);
    }

    [Theory]
    [InlineData(0u, Errno.EINVAL)]
    [InlineData(32u, Errno.EINVAL)]
    [InlineData(63u, Errno.EINVAL)]
    [InlineData(64u, Errno.None)]
    [InlineData(65u, Errno.EINVAL)]
    [InlineData(80u, Errno.EINVAL)]
    [InlineData(96u, Errno.None)]
    [InlineData(992u, Errno.None)]
    [InlineData(1024u, Errno.EINVAL)]
    [InlineData(1056u, Errno.EINVAL)]
    [Clause("arm-vgic/nr-irqs/bounds")]
    public async Task InterruptCountIsBounded(uint count, Errno expected)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetIrqCountAsync(count)).Should().Be(expected);
        (await gic.TryGetIrqCountAsync()).Should().Be((Errno.None, expected == Errno.None ? count : 32));
    }

    [Fact]
    [Clause("arm-vgic/nr-irqs/once")]
    public async Task InterruptCountIsSetOnce()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetIrqCountAsync(96)).Should().Be(Errno.None);
        (await gic.TrySetIrqCountAsync(96)).Should().Be(Errno.EBUSY);
        (await gic.TryGetIrqCountAsync()).Value.Should().Be(96);
    }

    [Fact]
    [Clause("arm-vgic/nr-irqs/default")]
    [Clause("arm-vgic/nr-irqs/once")]
    public async Task InitSettlesTheInterruptCount()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        (await vm.Gic.TryGetIrqCountAsync()).Value.Should().Be(256);
        (await vm.Gic.TrySetIrqCountAsync(256)).Should().Be(Errno.EBUSY);
    }

    [Theory]
    [InlineData(64u, 1u)]
    [InlineData(96u, 2u)]
    [InlineData(256u, 7u)]
    [InlineData(992u, 30u)]
    [Clause("arm-vgic/nr-irqs/in-gicd-typer")]
    public async Task GuestSeesTheInterruptCount(uint count, uint lines)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(irqs: count);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LoadDistributor(Gicd.Typer)));
        (results[0].Value & 0x1f).Should().Be(lines);
    }

    [Fact]
    [Clause("arm-vgic/init/twice")]
    public async Task SecondInitChangesNothing()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        await vm.Gic.EnableAsync(new Spi(40));
        (await vm.Gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await vm.Gic.ReadDistributorAsync(Gicd.Bit(Gicd.Isenabler, new Spi(40)))).Should().Be(Gicd.Mask(new Spi(40)));
    }

    [Fact]
    [Clause("arm-vgic/init/beside-a-new-vcpu")]
    public async Task VcpuThatWasBeingCreatedDuringInitIsInitialised()
    {
        const ulong Size = 0x1000;
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await CreateGicWithDistributorAsync(vm);
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors)).Should().Be(Errno.None);
        Mapping memory = await vm.Session.MapAnonymousAsync(2 * Size, "memory, and what a program shares");
        (await vm.TrySetMemoryRegionAsync(1, 0x5000_0000, Size, memory.Address, KvmConst.KVM_MEM_LOG_DIRTY_PAGES)).Should().Be(Errno.None);
        ulong creator = memory.Address + Size, initialiser = creator + 8, go = creator + 16, attribute = creator + 64;
        var init = new kvm_device_attr { group = KVM_DEV_ARM_VGIC_GRP_CTRL, attr = KVM_DEV_ARM_VGIC_CTRL_INIT };
        await memory.WriteAsync(Size + 64, MemoryMarshal.AsBytes(new ReadOnlySpan<kvm_device_attr>(in init)).ToArray());

        // KVM_GET_DIRTY_LOG has the lock that a vCPU gets its redistributor under while it writes to user space.
        await using HeldPage page = await HeldPage.CreateAsync(vm.Session);
        Task<IoctlAnswer> log = vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_GET_DIRTY_LOG, new kvm_dirty_log { slot = 1, dirty_bitmap = page.Address }, "into the held page", offload: true);
        await page.WaitUntilTouchedAsync();
        var program = new AgentProgram("a vCPU is created, and INIT");
        program.Thread().Call(vm.Session.Numbers.Gettid, [], resultAt: creator).Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_CREATE_VCPU.Number, 1]);
        program.Thread().Call(vm.Session.Numbers.Gettid, [], resultAt: initialiser).Await(go, 8, MemoryCondition.Equal, 1)
            .Call(vm.Session.Numbers.Ioctl, [(ulong)gic.Fd.Number, KvmIoctl.KVM_SET_DEVICE_ATTR.Number, attribute]);
        Task<ProgramOutcome> both = vm.Session.Agent.RunProgramAsync(program);
        await WaitForThreadAsync(Size);
        await memory.WriteUInt64Async(Size + 16, 1);
        await WaitForThreadAsync(Size + 8);
        await page.ReleaseAsync();

        (await log).Error.Should().Be(Errno.None);
        ProgramOutcome outcome = await both;
        outcome.Threads[0][1].Failures.Should().Be(0);
        outcome.Threads[1][2].Errnos.Keys.Should().BeSubsetOf([(int)Errno.EBUSY]);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Igroupr0))
            .Add(Arm64Command.LoadRedistributor(1, Gicr.Igroupr0)));
        results.Select(r => r.Value).Should().Equal([uint.MaxValue, uint.MaxValue], "INIT puts private interrupts into group 1");

        async Task WaitForThreadAsync(ulong at)
        {
            ulong threadId;
            while ((threadId = await memory.ReadUInt64Async(at)) == 0)
            {
            }

            await vm.Session.WaitForThreadAsync((long)threadId, state => state is 'D' or 'X');
        }
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Ctlr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (ulong)Gicr.Ctlr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, (ulong)IccRegister.Pmr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32ul)]
    [Clause("arm-vgic/registers/need-init")]
    public async Task RegistersNeedInit(uint group, ulong attribute)
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetUInt64Async(group, attribute, 0, "before init")).Should().Be(Errno.EBUSY);
        (await gic.TryGetAsync(group, attribute, 8, "before init")).Error.Should().Be(Errno.EBUSY);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO)]
    [Clause("arm-vgic/registers/unknown-vcpu")]
    public async Task RegistersOfAVcpuThatIsNotThereAreRefused(uint group)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(vcpus: 2);
        ulong attribute = group == KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS ? (ulong)IccRegister.Pmr : group == KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO ? 32ul : 0;
        (await vm.Gic.TryGetAsync(group, (1ul << 32) | attribute, 8, "vCPU 1")).Error.Should().Be(Errno.None);
        (await vm.Gic.TryGetAsync(group, (2ul << 32) | attribute, 8, "vCPU 2")).Error.Should().Be(Errno.EINVAL);
        (await vm.Gic.TryGetAsync(group, (0x100ul << 32) | attribute, 8, "affinity 0.0.1.0")).Error.Should().Be(Errno.EINVAL);
        (await vm.Gic.TryGetAsync(group, (0x1_0000ul << 32) | attribute, 8, "affinity 0.1.0.0")).Error.Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("arm-vgic/registers/vcpu-by-affinity")]
    public async Task RegistersAreFoundByAffinity()
    {
        // vCPU id 17 has affinity 0.0.1.1.
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 2, VcpuIds = [0, 17] });
        await vm.Gic.WriteRedistributorAsync(17, Gicr.Ipriorityr0 + 4, 0xa0b0_c0d0);
        (await vm.Gic.TryGetUInt32Async(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (0x101ul << 32) | (Gicr.Ipriorityr0 + 4), "priority")).Should().Be((Errno.None, 0xa0b0_c0d0u));
        (await vm.Gic.ReadRedistributorAsync(0, Gicr.Ipriorityr0 + 4)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-vgic/registers/distributor-needs-no-vcpu")]
    public async Task DistributorRegistersIgnoreTheAffinity()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        (await vm.Gic.TryGetUInt32Async(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (0x33ul << 32) | Gicd.Typer, "GICD_TYPER")).Error.Should().Be(Errno.None);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Ctlr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (ulong)Gicr.Ctlr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, (ulong)IccRegister.Pmr)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32ul)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)]
    [Clause("arm-vgic/registers/busy-while-a-vcpu-runs")]
    public async Task RegistersAreBusyWhileAVcpuRuns(uint group, ulong attribute)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.EnableAsync(new Spi(40), vcpuId: 1);
        await vm.Vcpus[1].HaltUntilTakenAsync(new Spi(40));
        (await vm.Gic.TrySetUInt64Async(group, attribute, 0, "while vCPU 1 runs")).Should().Be(Errno.EBUSY);
        if (group != KVM_DEV_ARM_VGIC_GRP_CTRL)
        {
            (await vm.Gic.TryGetAsync(group, attribute, 8, "while vCPU 1 runs")).Error.Should().Be(Errno.EBUSY);
        }

        // Nothing was locked for good: the vCPU still runs, and afterwards the attribute is there.
        await vm.PulseAsync(new Spi(40));
        await vm.Vcpus[1].FinishAsync();
        (await vm.Gic.TryReadDistributorAsync(Gicd.Ctlr)).Error.Should().Be(Errno.None);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_DIST, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_REDIST, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_V2_ADDR_TYPE_DIST, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ADDR, (ulong)KVM_VGIC_ITS_ADDR_TYPE, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0ul, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_VGIC_CTRL_INIT, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_ITS_SAVE_TABLES, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, (ulong)KVM_DEV_ARM_ITS_CTRL_RESET, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Ctlr, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Pidr2, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Ctlr + 2, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Icfgr + 0x13c, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x0014ul, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Isenabler + 28, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, (ulong)Gicd.Isenabler + 32, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (ulong)Gicr.Ctlr, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (ulong)Gicr.Ipriorityr0, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (ulong)Gicr.Ipriorityr0 + 32, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x0018ul, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, (ulong)IccRegister.Pmr, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, (ulong)IccRegister.Mpidr, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32ul, Errno.None)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 0x420ul, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_REGS, 0ul, Errno.ENXIO)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, 0ul, Errno.ENXIO)]
    [InlineData(99u, 0ul, Errno.ENXIO)]
    [Clause("arm-vgic/attribute/has")]
    public async Task HasAttributeKnowsWhatThereIs(uint group, ulong attribute, Errno expected)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        (await vm.Gic.TryHasAsync(group, attribute)).Should().Be(expected);
    }

    [Theory]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, 1ul)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CTRL, 99ul)]
    [InlineData(KVM_DEV_ARM_VGIC_GRP_CPU_REGS, 0ul)]
    [InlineData(99u, 0ul)]
    [Clause("arm-vgic/attribute/unknown")]
    public async Task UnknownAttributeIsRefused(uint group, ulong attribute)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync();
        (await vm.Gic.TrySetUInt64Async(group, attribute, 0, "unknown")).Should().Be(Errno.ENXIO);
        (await vm.Gic.TryGetAsync(group, attribute, 8, "unknown")).Error.Should().Be(Errno.ENXIO);
    }

    [Fact]
    [Clause("arm-vgic/save-pending/needs-init")]
    public async Task PendingTablesAreNotSavedBeforeInit()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySavePendingTablesAsync()).Should().Be(Errno.ENXIO);
    }

    [Fact]
    [Clause("arm-vgic/irqfd/needs-init")]
    public async Task IrqfdBeforeInitIsToldToComeAgain()
    {
        await using Vm vm = await kernel.CreateVmWithoutGicAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        Vgic gic = await vm.CreateGicAsync();
        (await vm.TryAssignIrqfdAsync(8, eventfd)).Should().Be(Errno.EAGAIN);
        (await gic.TryInitialiseAsync()).Should().Be(Errno.None);
        (await vm.TryAssignIrqfdAsync(8, eventfd)).Should().Be(Errno.None);
    }

    private static async Task<Vgic> CreateGicWithDistributorAsync(Vm vm)
    {
        Vgic gic = await vm.CreateGicAsync();
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST, Arm64Layout.Distributor)).Should().Be(Errno.None);
        return gic;
    }

    private static async Task AddRegionAsync(Vgic gic, ulong address, uint count, uint index) =>
        (await gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, Vgic.RedistributorRegion(address, count, index))).Should().Be(Errno.None);

    /// <summary>The low words of GICR_TYPER of the redistributors at these addresses, as vCPU 0 reads them.</summary>
    private static async Task<ulong[]> ReadTypersAsync(Vm vm, params ulong[] redistributors)
    {
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync([.. redistributors.Select(r => GuestCommand.Load(r + Gicr.Typer))]);
        return [.. results.Select(r => r.Value)];
    }

    private static ulong Zone(int index) => Arm64Layout.Devices + ((ulong)index * 0x1000);

    /// <summary>Fills the VM's MMIO bus with coalesced zones but for so many places. Zones 0 to 2 are single ones.</summary>
    private static async Task FillBusAsync(Vm vm, int room)
    {
        for (int index = 0; index < 3; index++)
        {
            await vm.RegisterCoalescedAsync(Zone(index), 4);
        }

        Mapping zone = await vm.Session.MapAnonymousAsync(4096, "zone");
        var argument = new kvm_coalesced_mmio_zone { addr = Zone(3), size = 4 };
        await zone.WriteAsync(0, MemoryMarshal.AsBytes(new ReadOnlySpan<kvm_coalesced_mmio_zone>(in argument)).ToArray());
        var program = new AgentProgram("coalesced zones until the bus is full");
        ProgramThread thread = program.Thread();
        thread.Call(vm.Session.Numbers.Ioctl, [(ulong)vm.Fd.Number, KvmIoctl.KVM_REGISTER_COALESCED_MMIO.Number, zone.Address]);
        thread.Loop(0, 1100);
        (await vm.Session.Agent.RunProgramAsync(program)).Threads[0][0].Errnos.Keys.Should().Equal((int)Errno.ENOSPC);
        for (int index = 0; index < room; index++)
        {
            await FreeOneAsync(vm, index);
        }
    }

    private static async Task FreeOneAsync(Vm vm, int index) => (await vm.TryUnregisterCoalescedAsync(Zone(index), 4)).Should().Be(Errno.None);

    private static async Task<Errno> FirstRunAsync(Vm vm) => (await vm.Vcpus[0].BootAsync()).Error;
}

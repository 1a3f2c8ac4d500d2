// SPDX-License-Identifier: MIT
using System.Text;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Vfio;

/// <summary>An IOMMU address space of VFIO's group interface (/dev/vfio/vfio, type1 v2), with the groups put into it.</summary>
public sealed class VfioContainer : IAsyncDisposable
{
    private readonly List<VfioGroup> _groups = [];
    private bool _hasIommu;

    private VfioContainer(KernelFd fd) => Fd = fd;

    public KernelFd Fd { get; }

    public KernelSession Session => Fd.Session;

    public static async Task<VfioContainer> OpenAsync(KernelSession session) => new(await session.OpenAsync("/dev/vfio/vfio"));

    /// <summary>Opens a group and puts it in; the first one decides the IOMMU.</summary>
    public async Task<VfioGroup> AddGroupAsync(string number)
    {
        VfioGroup? known = _groups.Find(g => g.Number == number);
        if (known is not null)
        {
            return known;
        }

        var group = new VfioGroup(number, await Session.OpenAsync($"/dev/vfio/{number}"));
        byte[] container = BitConverter.GetBytes(Fd.Number);
        Vm.Expect((await Session.IoctlAsync(group.Fd, VfioIoctl.VFIO_GROUP_SET_CONTAINER, container, Fd.Name)).Error, "VFIO_GROUP_SET_CONTAINER");
        if (!_hasIommu)
        {
            Vm.Expect((await Session.IoctlAsync(Fd, VfioIoctl.VFIO_SET_IOMMU, VfioConst.VFIO_TYPE1v2_IOMMU)).Error, "VFIO_SET_IOMMU(type1 v2)");
            _hasIommu = true;
        }

        _groups.Add(group);
        return group;
    }

    public async Task<Errno> TryMapAsync(ulong iova, ulong address, ulong size) => (await Session.IoctlAsync(Fd, VfioIoctl.VFIO_IOMMU_MAP_DMA,
        new vfio_iommu_type1_dma_map
        {
            argsz = 32, flags = VfioConst.VFIO_DMA_MAP_FLAG_READ | VfioConst.VFIO_DMA_MAP_FLAG_WRITE, vaddr = address, iova = iova, size = size,
        }, $"iova 0x{iova:x} size 0x{size:x}")).Error;

    /// <summary>Lets the devices of the container reach memory of the session.</summary>
    public async Task MapAsync(ulong iova, ulong address, ulong size) => Vm.Expect(await TryMapAsync(iova, address, size), $"VFIO_IOMMU_MAP_DMA(0x{iova:x})");

    /// <returns>The bytes that are no longer reachable.</returns>
    public async Task<ulong> UnmapAsync(ulong iova, ulong size)
    {
        (Errno error, vfio_iommu_type1_dma_unmap value) = await Session.TryGetAsync(Fd, VfioIoctl.VFIO_IOMMU_UNMAP_DMA,
            new vfio_iommu_type1_dma_unmap { argsz = 24, iova = iova, size = size }, $"iova 0x{iova:x} size 0x{size:x}");
        Vm.Expect(error, $"VFIO_IOMMU_UNMAP_DMA(0x{iova:x})");
        return value.size;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (VfioGroup group in _groups)
        {
            await group.DisposeAsync();
        }

        await Fd.DisposeAsync();
    }
}

/// <summary>An IOMMU group: what VFIO gives to one user at a time.</summary>
public sealed class VfioGroup(string number, KernelFd fd) : IAsyncDisposable
{
    public string Number => number;

    public KernelFd Fd => fd;

    public async Task<(Errno Error, KernelFd? Fd)> TryGetDeviceFdAsync(string address)
    {
        KernelSession session = fd.Session;
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Ioctl, $"ioctl({fd.Name}, VFIO_GROUP_GET_DEVICE_FD, {address})")
            .Arg(fd.Number).Arg(VfioIoctl.VFIO_GROUP_GET_DEVICE_FD.Number).In([.. Encoding.ASCII.GetBytes(address), 0]), offload: true);
        return call.Errno == 0 ? (Errno.None, new KernelFd(session, (int)call.Result, address)) : ((Errno)call.Errno, null);
    }

    /// <returns>VFIO_GROUP_FLAGS_*.</returns>
    public async Task<uint> StatusAsync()
    {
        (Errno error, vfio_group_status status) = await fd.Session.TryGetAsync(fd, VfioIoctl.VFIO_GROUP_GET_STATUS, new vfio_group_status { argsz = 8 }, "");
        Vm.Expect(error, "VFIO_GROUP_GET_STATUS");
        return status.flags;
    }

    public ValueTask DisposeAsync() => fd.DisposeAsync();
}

// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;

#pragma warning disable CS8981, IDE1006 // C names, kept verbatim

namespace Conformance.Uapi;

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 20)]
public struct vfio_irq_set
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public uint index;
    [FieldOffset(12)] public uint start;
    [FieldOffset(16)] public uint count;
}

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 16)]
public struct vfio_irq_info
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public uint index;
    [FieldOffset(12)] public uint count;
}

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 32)]
public struct vfio_region_info
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public uint index;
    [FieldOffset(12)] public uint cap_offset;
    [FieldOffset(16)] public ulong size;
    [FieldOffset(24)] public ulong offset;
}

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 8)]
public struct vfio_device_feature
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
}

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 8)]
public struct vfio_group_status
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
}

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 32)]
public struct vfio_iommu_type1_dma_map
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public ulong vaddr;
    [FieldOffset(16)] public ulong iova;
    [FieldOffset(24)] public ulong size;
}

[CHeader("linux/vfio.h"), StructLayout(LayoutKind.Explicit, Size = 24)]
public struct vfio_iommu_type1_dma_unmap
{
    [FieldOffset(0)] public uint argsz;
    [FieldOffset(4)] public uint flags;
    [FieldOffset(8)] public ulong iova;
    [FieldOffset(16)] public ulong size;
}

/// <summary>VFIO ioctls (linux/vfio.h): the numbers carry no size, argsz does.</summary>
[CHeader("linux/vfio.h")]
public static class VfioIoctl
{
    public static readonly Ioctl VFIO_GET_API_VERSION = new(nameof(VFIO_GET_API_VERSION), 0x3B64);
    public static readonly Ioctl VFIO_CHECK_EXTENSION = new(nameof(VFIO_CHECK_EXTENSION), 0x3B65);
    public static readonly Ioctl VFIO_SET_IOMMU = new(nameof(VFIO_SET_IOMMU), 0x3B66);
    public static readonly Ioctl VFIO_GROUP_GET_STATUS = new(nameof(VFIO_GROUP_GET_STATUS), 0x3B67);
    public static readonly Ioctl VFIO_GROUP_SET_CONTAINER = new(nameof(VFIO_GROUP_SET_CONTAINER), 0x3B68);
    public static readonly Ioctl VFIO_GROUP_UNSET_CONTAINER = new(nameof(VFIO_GROUP_UNSET_CONTAINER), 0x3B69);
    public static readonly Ioctl VFIO_GROUP_GET_DEVICE_FD = new(nameof(VFIO_GROUP_GET_DEVICE_FD), 0x3B6A);
    public static readonly Ioctl VFIO_DEVICE_GET_INFO = new(nameof(VFIO_DEVICE_GET_INFO), 0x3B6B);
    public static readonly Ioctl VFIO_DEVICE_GET_REGION_INFO = new(nameof(VFIO_DEVICE_GET_REGION_INFO), 0x3B6C);
    public static readonly Ioctl VFIO_DEVICE_GET_IRQ_INFO = new(nameof(VFIO_DEVICE_GET_IRQ_INFO), 0x3B6D);
    public static readonly Ioctl VFIO_DEVICE_SET_IRQS = new(nameof(VFIO_DEVICE_SET_IRQS), 0x3B6E);
    public static readonly Ioctl VFIO_DEVICE_RESET = new(nameof(VFIO_DEVICE_RESET), 0x3B6F);
    public static readonly Ioctl VFIO_IOMMU_MAP_DMA = new(nameof(VFIO_IOMMU_MAP_DMA), 0x3B71);
    public static readonly Ioctl VFIO_IOMMU_UNMAP_DMA = new(nameof(VFIO_IOMMU_UNMAP_DMA), 0x3B72);
    public static readonly Ioctl VFIO_DEVICE_IOEVENTFD = new(nameof(VFIO_DEVICE_IOEVENTFD), 0x3B74);
    public static readonly Ioctl VFIO_DEVICE_FEATURE = new(nameof(VFIO_DEVICE_FEATURE), 0x3B75);
}

[CHeader("linux/vfio.h")]
public static class VfioConst
{
    public const uint VFIO_IRQ_SET_DATA_NONE = 1;
    public const uint VFIO_IRQ_SET_DATA_BOOL = 2;
    public const uint VFIO_IRQ_SET_DATA_EVENTFD = 4;
    public const uint VFIO_IRQ_SET_ACTION_MASK = 8;
    public const uint VFIO_IRQ_SET_ACTION_UNMASK = 16;
    public const uint VFIO_IRQ_SET_ACTION_TRIGGER = 32;
    public const uint VFIO_IRQ_INFO_EVENTFD = 1;
    public const uint VFIO_IRQ_INFO_MASKABLE = 2;
    public const uint VFIO_IRQ_INFO_AUTOMASKED = 4;
    public const uint VFIO_IRQ_INFO_NORESIZE = 8;
    public const uint VFIO_PCI_INTX_IRQ_INDEX = 0;
    public const uint VFIO_PCI_MSI_IRQ_INDEX = 1;
    public const uint VFIO_PCI_MSIX_IRQ_INDEX = 2;
    public const uint VFIO_PCI_ERR_IRQ_INDEX = 3;
    public const uint VFIO_PCI_REQ_IRQ_INDEX = 4;
    public const uint VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;
    public const uint VFIO_PCI_NUM_IRQS = 5;
    public const uint VFIO_REGION_INFO_FLAG_READ = 1;
    public const uint VFIO_REGION_INFO_FLAG_WRITE = 2;
    public const uint VFIO_REGION_INFO_FLAG_MMAP = 4;
    public const uint VFIO_REGION_INFO_FLAG_CAPS = 8;
    public const uint VFIO_PCI_BAR0_REGION_INDEX = 0;
    public const uint VFIO_PCI_ROM_REGION_INDEX = 6;
    public const uint VFIO_PCI_CONFIG_REGION_INDEX = 7;
    public const uint VFIO_PCI_VGA_REGION_INDEX = 8;
    public const uint VFIO_PCI_NUM_REGIONS = 9;
    public const uint VFIO_DEVICE_FLAGS_RESET = 1;
    public const uint VFIO_DEVICE_FLAGS_PCI = 2;
    public const uint VFIO_GROUP_FLAGS_VIABLE = 1;
    public const uint VFIO_GROUP_FLAGS_CONTAINER_SET = 2;
    public const uint VFIO_TYPE1v2_IOMMU = 3;
    public const uint VFIO_DMA_MAP_FLAG_READ = 1;
    public const uint VFIO_DMA_MAP_FLAG_WRITE = 2;
    public const uint VFIO_DEVICE_FEATURE_SET = 1u << 17;
    public const uint VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3;
    public const uint VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5;
}

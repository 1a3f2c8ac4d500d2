// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Vfio;

/// <summary>The interrupt indexes of a VFIO PCI device.</summary>
public enum IrqIndex : uint
{
    Intx = VfioConst.VFIO_PCI_INTX_IRQ_INDEX,
    Msi = VfioConst.VFIO_PCI_MSI_IRQ_INDEX,
    Msix = VfioConst.VFIO_PCI_MSIX_IRQ_INDEX,
    Err = VfioConst.VFIO_PCI_ERR_IRQ_INDEX,
    Req = VfioConst.VFIO_PCI_REQ_IRQ_INDEX,
}

/// <summary>What SET_IRQS is asked to do.</summary>
public enum IrqAction : uint
{
    None = 0,
    Mask = VfioConst.VFIO_IRQ_SET_ACTION_MASK,
    Unmask = VfioConst.VFIO_IRQ_SET_ACTION_UNMASK,
    Trigger = VfioConst.VFIO_IRQ_SET_ACTION_TRIGGER,
}

/// <summary>What follows the header of SET_IRQS.</summary>
public enum IrqData : uint
{
    None = VfioConst.VFIO_IRQ_SET_DATA_NONE,
    Bool = VfioConst.VFIO_IRQ_SET_DATA_BOOL,
    Eventfd = VfioConst.VFIO_IRQ_SET_DATA_EVENTFD,
}

/// <summary>What VFIO_DEVICE_GET_IRQ_INFO says of an index.</summary>
/// <param name="Flags">VFIO_IRQ_INFO_*.</param>
/// <param name="Count">Interrupts of the index; 0: the device has none.</param>
public readonly record struct IrqInfo(IrqIndex Index, uint Flags, uint Count)
{
    public bool CanGrow => (Flags & VfioConst.VFIO_IRQ_INFO_NORESIZE) == 0;

    public override string ToString()
    {
        string[] names = ["eventfd", "maskable", "automasked", "noresize"];
        uint flags = Flags;
        return $"{Index,-5} count {Count,-4} {string.Join(' ', names.Where((_, bit) => (flags & (1u << bit)) != 0))}";
    }
}

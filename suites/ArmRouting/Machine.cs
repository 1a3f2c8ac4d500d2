// SPDX-License-Identifier: MIT
using Conformance.Fixtures;

// A restored machine's GICv4 does not let go of a VM: closing one with an ITS does not come back.
[assembly: MachineNeeds(
    FreshBoot = true,
    Iommu = true,
    Devices = ["e1000e"],
    Modules = ["vfio-pci", "vfio_iommu_type1"],
    Architectures = ["arm64"])]

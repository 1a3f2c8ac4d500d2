// SPDX-License-Identifier: MIT
using Conformance.Fixtures;

[assembly: MachineNeeds(
    Iommu = true,
    Devices = ["e1000e"],
    Modules = ["vfio-pci", "vfio_iommu_type1"],
    Architectures = ["arm64"])]

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;

[assembly: MachineNeeds(
    Iommu = true,
    Devices = ["e1000e", "edu", "nec-usb-xhci,msi=on,msix=on", "nvme,serial=conformance,msix_qsize=64"],
    Modules = ["kvm-amd", "vfio-pci", "vfio_iommu_type1"],
    Architectures = ["x86_64"])]

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;

[assembly: MachineNeeds(
    Iommu = true,
    // The fifth shares its interrupt line with the first.
    Devices = ["e1000e", "edu", "nec-usb-xhci,msi=on,msix=on", "nvme,serial=conformance,msix_qsize=64", "edu"],
    SparePorts = 1,
    Modules = ["kvm-amd", "vfio-pci", "vfio_iommu_type1"],
    // On a busy machine the kernel's check of the timer through the remapped I/O APIC comes too early, and is a panic.
    KernelArguments = ["no_timer_check"],
    Architectures = ["x86_64"])]

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;

namespace Conformance.ArmRouting;

/// <summary>The VMs this suite's claims are about.</summary>
internal static class ArmVm
{
    /// <summary>A GICv3 that is initialised and forwards group 1; no ITS.</summary>
    public static Task<Vm> CreateGicVmAsync(this KernelUnderTest kernel, int vcpus = 1, uint? irqs = null) =>
        kernel.CreateVmAsync(VmOptions.Default with { Vcpus = vcpus, Gic = new GicOptions { IrqCount = irqs } });

    /// <summary>A GICv3 with ITSs that have tables and are enabled, LPIs enabled on every vCPU.</summary>
    public static Task<Vm> CreateItsVmAsync(this KernelUnderTest kernel, int vcpus = 1, int itss = 1, string name = "vm", uint? irqs = null) =>
        kernel.CreateVmAsync(VmOptions.Default with { Vcpus = vcpus, Gic = new GicOptions { ItsCount = itss, IrqCount = irqs }, Name = name });

    /// <summary>The same, with addresses and initialised, but no register written: what a VM is restored into.</summary>
    public static Task<Vm> CreateBlankItsVmAsync(this KernelUnderTest kernel, int vcpus = 1, int itss = 1, uint? irqs = null) =>
        kernel.CreateVmAsync(VmOptions.Default with { Vcpus = vcpus, Gic = new GicOptions { ItsCount = itss, IrqCount = irqs, Configure = false }, Name = "new vm" });

    /// <summary>A GICv3 that is initialised, and no register written.</summary>
    public static Task<Vm> CreateBlankGicVmAsync(this KernelUnderTest kernel, int vcpus = 1, uint? irqs = null) =>
        kernel.CreateVmAsync(VmOptions.Default with { Vcpus = vcpus, Gic = new GicOptions { IrqCount = irqs, Configure = false } });

    /// <summary>Memory and vCPUs, no interrupt controller.</summary>
    public static Task<Vm> CreateVmWithoutGicAsync(this KernelUnderTest kernel, int vcpus = 1) =>
        kernel.CreateVmAsync(VmOptions.Default with { Vcpus = vcpus, Irqchip = Irqchip.None });
}

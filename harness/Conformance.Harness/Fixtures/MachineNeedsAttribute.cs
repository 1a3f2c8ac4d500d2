// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>What a suite needs of the machine its kernel runs on. On the suite's assembly.</summary>
[AttributeUsage(AttributeTargets.Assembly)]
public sealed class MachineNeedsAttribute : Attribute
{
    /// <summary>An IOMMU with interrupt remapping, for VFIO.</summary>
    public bool Iommu { get; init; }

    /// <summary>QEMU devices, each behind a root port of its own: <c>e1000e</c>, <c>nvme</c> …</summary>
    public string[] Devices { get; init; } = [];

    /// <summary>Root ports with nothing behind them; the n-th from 0 is the bus <c>spare</c>n.</summary>
    public int SparePorts { get; init; }

    /// <summary>Modules under test, loaded when the kernel is up; those that are built in or that the kernel does not have are passed over.</summary>
    public string[] Modules { get; init; } = [];

    /// <summary>The architecture the suite runs on; empty: any.</summary>
    public string[] Architectures { get; init; } = [];

    /// <summary>How long one test may take in all before its operations give up, in seconds.</summary>
    public int TestDeadlineSeconds { get; init; } = 60;

    /// <summary>Added to the kernel's command line.</summary>
    public string[] KernelArguments { get; init; } = [];
}

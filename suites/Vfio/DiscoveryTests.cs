// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Snapshots;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>What a device says of itself.</summary>
public sealed class DiscoveryTests(KernelUnderTest kernel)
{
    // Wide and dependent on the kernel: NORESIZE of MSI-X went with vfio-dynamic-msix.
    private string? Variant => kernel.Has("vfio-dynamic-msix") ? null : "before-vfio-dynamic-msix";

    [Fact]
    [Clause("vfio-regions/info/device")]
    [Clause("vfio-regions/info/regions")]
    [Clause("vfio-regions/info/msix-mappable")]
    [Clause("vfio-regions/irq-info/counts")]
    [Clause("vfio-regions/irq-info/flags")]
    public async Task NetworkCard()
    {
        await using E1000eDevice nic = await kernel.OpenNicAsync();
        (await nic.Vfio.RegionAsync(3)).Capabilities.Should().Contain(((ushort)VfioConst.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, (ushort)1));
        Snapshot.Verify(await DescribeAsync("e1000e", nic.Vfio), Variant);
    }

    [Fact]
    [Clause("vfio-regions/info/device")]
    [Clause("vfio-regions/info/regions")]
    [Clause("vfio-regions/irq-info/err-needs-express")]
    public async Task ConventionalDevice()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        Errno error = (await edu.Vfio.TryIrqInfoAsync((uint)IrqIndex.Err)).Error;
        bool everywhere = kernel.Has("vfio-err-of-every-device");
        error.Should().Be(everywhere ? Errno.None : Errno.EINVAL);
        Snapshot.Verify(await DescribeAsync("edu", edu.Vfio), everywhere ? "vfio-err-of-every-device" : null);
    }

    [Fact]
    [Clause("vfio-regions/info/regions")]
    [Clause("vfio-regions/irq-info/counts")]
    public async Task UsbController()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        (await device.IrqInfoAsync(IrqIndex.Msi)).Count.Should().Be(16);
        Snapshot.Verify(await DescribeAsync("nec-usb-xhci", device), Variant);
    }

    [Fact]
    [Clause("vfio-regions/irq-info/argsz")]
    public async Task IrqInfoWantsItsSizeAndAKnownIndex()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();

        (await device.TryIrqInfoAsync(0, argsz: 15)).Error.Should().Be(Errno.EINVAL);
        (await device.TryIrqInfoAsync(0, argsz: 16)).Error.Should().Be(Errno.None);
        (await device.TryIrqInfoAsync(0, argsz: 17)).Error.Should().Be(Errno.None);
        (await device.TryIrqInfoAsync(4)).Error.Should().Be(Errno.None);
        (await device.TryIrqInfoAsync(5)).Error.Should().Be(Errno.EINVAL);
        (await device.TryIrqInfoAsync(uint.MaxValue)).Error.Should().Be(Errno.EINVAL);
    }

    private static async Task<string> DescribeAsync(string name, VfioDevice device)
    {
        (uint flags, uint regions, uint irqs) = await device.InfoAsync();
        string[] names = ["reset", "pci"];
        var lines = new List<string> { $"{name}: {string.Join(' ', names.Where((_, bit) => (flags & (1u << bit)) != 0))}, {regions} regions, {irqs} interrupt indexes", "" };
        for (uint i = 0; i <= regions; i++)
        {
            (Errno error, VfioRegion? region) = await device.TryRegionAsync(i);
            lines.Add($"  region {i}  {region?.ToString() ?? error.ToString()}");
        }

        lines.Add("");
        for (uint i = 0; i <= irqs; i++)
        {
            (Errno error, IrqInfo info) = await device.TryIrqInfoAsync(i);
            lines.Add($"  index {i}  {(error == Errno.None ? info.ToString() : error.ToString())}");
        }

        return string.Join('\n', lines);
    }
}

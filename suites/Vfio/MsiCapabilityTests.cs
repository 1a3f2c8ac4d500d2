// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>The MSI capability in configuration space: its enable bit and number of vectors follow SET_IRQS.</summary>
public sealed class MsiCapabilityTests(KernelUnderTest kernel)
{
    private const ushort Enable = 1;
    private const ushort Vectors = 7 << 4;

    [Theory]
    [InlineData(1, 0)]
    [InlineData(3, 2)]
    [InlineData(4, 2)]
    [InlineData(5, 3)]
    [Clause("vfio-irqs/msi/capability-vectors")]
    public async Task NoMoreVectorsCanBeConfiguredThanAreEnabled(int enabled, int log2)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(enabled);
        ulong control = await ControlAsync(device);
        VfioRegion config = await device.ConfigAsync();
        await device.AttachAsync(IrqIndex.Msi, 0, eventfds);

        for (int wanted = 0; wanted <= 4; wanted++)
        {
            await config.WriteUInt16Async(control, (ushort)(Enable | (wanted << 4)));
            ushort seen = await config.ReadUInt16Async(control);
            (seen & Enable).Should().Be(Enable);
            ((seen & Vectors) >> 4).Should().Be(Math.Min(wanted, log2), $"2^{wanted} vectors were asked for");
            (await device.Function.ReadConfigAsync(device.Session, control) & (Enable | Vectors)).Should().Be(seen & (Enable | Vectors), "the device has what is shown");
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Clause("vfio-irqs/msi/capability-enable")]
    public async Task MsiCannotBeEnabledByWritingItsCapability(bool msix)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        ulong control = await ControlAsync(device);
        VfioRegion config = await device.ConfigAsync();
        if (msix)
        {
            await device.AttachAsync(IrqIndex.Msix, 0, eventfd);
        }

        await config.WriteUInt16Async(control, Enable);

        (await config.ReadUInt16Async(control) & Enable).Should().Be(0);
        (await device.Function.ReadConfigAsync(device.Session, control) & Enable).Should().Be(0);
    }

    private static async Task<ulong> ControlAsync(VfioDevice device) =>
        (await device.FindCapabilityAsync(PciConfiguration.MsiCapability) ?? throw new InvalidOperationException($"{device} has no MSI.")) + 2u;
}

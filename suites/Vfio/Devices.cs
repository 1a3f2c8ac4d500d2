// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Vfio;

namespace Conformance.Vfio;

/// <summary>The devices of the suite's machine, by what the claims need of them.</summary>
internal static class Devices
{
    private const ushort XhciVendor = 0x1033;
    private const ushort XhciDevice = 0x0194;

    /// <summary>A PCI Express device with INTx, one MSI and five MSI-X entries.</summary>
    public static async Task<E1000eDevice> OpenNicAsync(this KernelUnderTest kernel) => await E1000eDevice.OpenAsync(kernel, await kernel.SessionAsync());

    /// <summary>A conventional PCI device with INTx and one MSI, and no MSI-X.</summary>
    public static async Task<EduDevice> OpenEduAsync(this KernelUnderTest kernel) => new(await OpenAsync(kernel, EduDevice.Vendor, EduDevice.Device, "edu"));

    /// <summary>A PCI Express device with 64 MSI-X entries that writes into memory.</summary>
    /// <param name="queues">Entries besides the first that are to interrupt.</param>
    public static async Task<NvmeDevice> OpenNvmeAsync(this KernelUnderTest kernel, uint queues = 0) =>
        new(await OpenAsync(kernel, NvmeDevice.Vendor, NvmeDevice.Device, "nvme"), queues);

    /// <summary>One more of <see cref="OpenEduAsync"/>, in the spare slot.</summary>
    public static async Task<EduDevice> OpenPluggedEduAsync(this KernelUnderTest kernel) =>
        new(await OpenAsync(kernel, EduDevice.Vendor, EduDevice.Device, "edu", skip: 2));

    /// <summary>Two devices whose INTx is the same line of the interrupt controller.</summary>
    public static async Task<(E1000eDevice Nic, EduDevice Edu)> OpenSharedLineAsync(this KernelUnderTest kernel)
    {
        E1000eDevice nic = await kernel.OpenNicAsync();
        var edu = new EduDevice(await OpenAsync(kernel, EduDevice.Vendor, EduDevice.Device, "edu", skip: 1));
        int[] lines = [await nic.Vfio.Function.InterruptLineAsync(nic.Session), await edu.Vfio.Function.InterruptLineAsync(edu.Session)];
        Skipping.UnlessHardware(lines[0] == lines[1], "two devices on one interrupt line", $"{nic.Vfio} has {lines[0]}, {edu.Vfio} has {lines[1]}");
        return (nic, edu);
    }

    /// <summary>A device with sixteen MSIs and sixteen MSI-X entries, which this suite does not make interrupt.</summary>
    public static Task<VfioDevice> OpenXhciAsync(this KernelUnderTest kernel) => OpenAsync(kernel, XhciVendor, XhciDevice, "nec-usb-xhci");

    /// <summary>Every device that the run names, whatever it is; on a machine of the suite's own, one that nobody here knows how to make interrupt.</summary>
    public static async Task<IReadOnlyList<PciFunction>> UndescribedAsync(this KernelUnderTest kernel)
    {
        KernelSession session = await kernel.SessionAsync();
        if (session.NamedDevices is null)
        {
            return [await PciFunction.RequireAsync(session, XhciVendor, XhciDevice, "nec-usb-xhci")];
        }

        IReadOnlyList<PciFunction> named = await PciFunction.ListAsync(session);
        Skipping.UnlessHardware(named.Count > 0, "a device that the claims may take", "none is named with --vfio-device");
        return named;
    }

    public static async Task<EventFd[]> CreateEventFdsAsync(this KernelUnderTest kernel, int count)
    {
        var eventfds = new EventFd[count];
        for (int i = 0; i < count; i++)
        {
            eventfds[i] = await kernel.CreateEventFdAsync();
        }

        return eventfds;
    }

    /// <summary>The counters, each taken: <c>1 - 2</c>; a dash is 0.</summary>
    public static async Task<string> CountsAsync(this IEnumerable<EventFd> eventfds)
    {
        var counts = new List<string>();
        foreach (EventFd eventfd in eventfds)
        {
            counts.Add((await eventfd.ReadAsync())?.ToString() ?? "-");
        }

        return string.Join(' ', counts);
    }

    private static async Task<VfioDevice> OpenAsync(KernelUnderTest kernel, ushort vendor, ushort device, string name, int skip = 0)
    {
        KernelSession session = await kernel.SessionAsync();
        return await VfioDevice.OpenAsync(session, await PciFunction.RequireAsync(session, vendor, device, name, skip));
    }
}

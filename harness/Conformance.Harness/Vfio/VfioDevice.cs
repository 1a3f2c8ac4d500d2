// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;

namespace Conformance.Vfio;

/// <summary>An open VFIO PCI device.</summary>
public sealed partial class VfioDevice : IAsyncDisposable
{
    private readonly Dictionary<uint, VfioRegion> _regions = [];
    private readonly bool _ownsContainer;

    private VfioDevice(PciFunction function, VfioContainer container, VfioGroup group, KernelFd fd, bool ownsContainer)
    {
        Function = function;
        Container = container;
        Group = group;
        Fd = fd;
        _ownsContainer = ownsContainer;
    }

    public PciFunction Function { get; }

    public VfioContainer Container { get; }

    public VfioGroup Group { get; }

    public KernelFd Fd { get; }

    public KernelSession Session => Fd.Session;

    /// <summary>Binds the function to vfio-pci, when it is not, and opens it.</summary>
    /// <param name="container">Where to put its group; null: a container of its own, closed with it.</param>
    public static async Task<VfioDevice> OpenAsync(KernelSession session, PciFunction function, VfioContainer? container = null)
    {
        await function.BindToVfioAsync(session);
        string number = await function.IommuGroupAsync(session) ?? throw new InvalidOperationException($"{function} is in no IOMMU group: the machine has no IOMMU.");
        VfioContainer space = container ?? await VfioContainer.OpenAsync(session);
        VfioGroup group = await space.AddGroupAsync(number);
        (Errno error, KernelFd? fd) = await group.TryGetDeviceFdAsync(function.Address);
        return new VfioDevice(function, space, group, fd ?? throw new KvmException($"VFIO_GROUP_GET_DEVICE_FD({function})", error), container is null);
    }

    /// <summary>VFIO_DEVICE_GET_INFO: flags, region and interrupt indexes.</summary>
    public async Task<(uint Flags, uint Regions, uint Irqs)> InfoAsync()
    {
        byte[] info = new byte[20];
        BinaryPrimitives.WriteInt32LittleEndian(info, info.Length);
        IoctlAnswer answer = await Session.IoctlAsync(Fd, VfioIoctl.VFIO_DEVICE_GET_INFO, info, "");
        Vm.Expect(answer.Error, "VFIO_DEVICE_GET_INFO");
        return (BitConverter.ToUInt32(answer.Data, 4), BitConverter.ToUInt32(answer.Data, 8), BitConverter.ToUInt32(answer.Data, 12));
    }

    public async Task<(Errno Error, VfioRegion? Region)> TryRegionAsync(uint index)
    {
        if (_regions.TryGetValue(index, out VfioRegion? known))
        {
            return (Errno.None, known);
        }

        // One page holds every capability that PCI devices have.
        byte[] argument = new byte[4096];
        KernelSession.Bytes(new vfio_region_info { argsz = (uint)argument.Length, index = index }).CopyTo(argument, 0);
        IoctlAnswer answer = await Session.IoctlAsync(Fd, VfioIoctl.VFIO_DEVICE_GET_REGION_INFO, argument, $"{index}");
        if (!answer.Ok)
        {
            return (answer.Error, null);
        }

        var info = KernelSession.Read<vfio_region_info>(answer.Data);
        var capabilities = new List<(ushort, ushort)>();
        if ((info.flags & VfioConst.VFIO_REGION_INFO_FLAG_CAPS) != 0)
        {
            for (uint at = info.cap_offset; at != 0; at = BitConverter.ToUInt32(answer.Data, (int)at + 4))
            {
                capabilities.Add((BitConverter.ToUInt16(answer.Data, (int)at), BitConverter.ToUInt16(answer.Data, (int)at + 2)));
            }
        }

        var region = new VfioRegion(this, index, info.flags, info.size, info.offset, capabilities);
        _regions[index] = region;
        return (Errno.None, region);
    }

    public async Task<VfioRegion> RegionAsync(uint index)
    {
        (Errno error, VfioRegion? region) = await TryRegionAsync(index);
        return region ?? throw new KvmException($"VFIO_DEVICE_GET_REGION_INFO({index})", error);
    }

    public Task<VfioRegion> ConfigAsync() => RegionAsync(VfioConst.VFIO_PCI_CONFIG_REGION_INDEX);

    /// <summary>VFIO_DEVICE_RESET.</summary>
    public async Task<Errno> TryResetAsync() => (await Session.IoctlAsync(Fd, VfioIoctl.VFIO_DEVICE_RESET, 0, offload: true)).Error;

    /// <summary>Lets the device sleep, and waits until it does. A test that needs it is skipped on a kernel that cannot be asked.</summary>
    public async Task SleepAsync()
    {
        const uint Feature = VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
        Errno error = await TrySetFeatureAsync(Feature, nameof(VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));
        Skipping.UnlessCapability(error != Errno.ENOTTY, nameof(VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY), $"VFIO_DEVICE_FEATURE = {error}");
        Vm.Expect(error, nameof(VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));

        // The kernel puts it to sleep when nobody has used it for a moment.
        using CancellationTokenSource patience = Session.EventDeadline();
        string status;
        do
        {
            status = await Function.PowerStatusAsync(Session);
        }
        while (status != "suspended" && !patience.IsCancellationRequested);

        if (status != "suspended")
        {
            throw new MissingEventException($"{this} may sleep and is {status}.");
        }
    }

    /// <summary>Wakes the device that <see cref="SleepAsync"/> let sleep.</summary>
    public async Task WakeAsync() =>
        Vm.Expect(await TrySetFeatureAsync(VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, nameof(VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT)),
            nameof(VfioConst.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));

    // A feature that is set without data.
    private async Task<Errno> TrySetFeatureAsync(uint feature, string name) => (await Session.IoctlAsync(Fd, VfioIoctl.VFIO_DEVICE_FEATURE,
        new vfio_device_feature { argsz = 8, flags = VfioConst.VFIO_DEVICE_FEATURE_SET | feature }, name)).Error;

    public async ValueTask DisposeAsync()
    {
        await Fd.DisposeAsync();
        if (_ownsContainer)
        {
            await Container.DisposeAsync();
        }
    }

    public override string ToString() => Function.Address;

}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Vfio;

/// <summary>A PCI function of the kernel under test, through sysfs.</summary>
/// <param name="Address">As sysfs spells it: <c>0000:01:00.0</c>.</param>
public sealed record PciFunction(string Address)
{
    private string Folder => $"/sys/bus/pci/devices/{Address}";

    /// <summary>Every function that claims may take, in the order of their addresses.</summary>
    public static async Task<IReadOnlyList<PciFunction>> ListAsync(KernelSession session)
    {
        return [.. (await session.ListFolderAsync("/sys/bus/pci/devices")).Where(n => session.NamedDevices?.Contains(n) != false).Select(n => new PciFunction(n))];
    }

    /// <summary>The first function with these ids; null when there is none.</summary>
    /// <param name="skip">How many of them to pass over.</param>
    public static async Task<PciFunction?> FindAsync(KernelSession session, ushort vendor, ushort device, int skip = 0)
    {
        foreach (PciFunction function in await ListAsync(session))
        {
            if (await function.ReadHexAsync(session, "vendor") == vendor && await function.ReadHexAsync(session, "device") == device && skip-- == 0)
            {
                return function;
            }
        }

        return null;
    }

    /// <summary>As <see cref="FindAsync"/>, for a test that is skipped when there is none.</summary>
    /// <param name="name">What it is called in the reason.</param>
    public static async Task<PciFunction> RequireAsync(KernelSession session, ushort vendor, ushort device, string name, int skip = 0)
    {
        PciFunction? function = await FindAsync(session, vendor, device, skip);
        Skipping.UnlessHardware(function is not null, name, $"no {(skip == 0 ? "" : "further ")}PCI function {vendor:x4}:{device:x4}{(session.NamedDevices is { } named ? $" among those of --vfio-device ({(named.Count == 0 ? "none" : string.Join(' ', named))})" : "")}");
        return function;
    }

    /// <summary>The command register as the device has it, past the one that VFIO shows its user.</summary>
    public async Task<ushort> ReadCommandAsync(KernelSession session) => await ReadConfigAsync(session, PciConfiguration.Command);

    /// <summary>Two bytes of configuration space as the device has them.</summary>
    public async Task<ushort> ReadConfigAsync(KernelSession session, ulong offset)
    {
        await using KernelFd config = await session.OpenAsync($"{Folder}/config", writable: false);
        (_, byte[] data) = await session.TryReadAsync(config, 256);
        return BinaryPrimitives.ReadUInt16LittleEndian(data.AsSpan((int)offset));
    }

    /// <summary>The kernel's interrupt of its line, while it is enabled; several functions may have the same.</summary>
    public async Task<int> InterruptLineAsync(KernelSession session) => int.Parse(
        (await session.ReadFileAsync($"{Folder}/irq") ?? "0").Trim(), CultureInfo.InvariantCulture);

    /// <summary>What the kernel's power management says of it: active, suspended, or on the way.</summary>
    public async Task<string> PowerStatusAsync(KernelSession session) => (await session.ReadFileAsync($"{Folder}/power/runtime_status") ?? "unknown").Trim();

    /// <summary>The name of the driver it is bound to; null: none.</summary>
    public Task<string?> DriverAsync(KernelSession session) => LinkAsync(session, "driver");

    /// <summary>The number of its IOMMU group; null: none, and so VFIO cannot have it.</summary>
    public Task<string?> IommuGroupAsync(KernelSession session) => LinkAsync(session, "iommu_group");

    /// <summary>Takes it from whatever driver has it and gives it to vfio-pci. Does nothing when it is there already.</summary>
    public async Task BindToVfioAsync(KernelSession session)
    {
        string? driver = await DriverAsync(session);
        if (driver == "vfio-pci")
        {
            return;
        }

        if (driver is not null)
        {
            await session.WriteFileAsync($"{Folder}/driver/unbind", Address);
        }

        await session.WriteFileAsync($"{Folder}/driver_override", "vfio-pci");
        await session.WriteFileAsync("/sys/bus/pci/drivers_probe", Address);
    }

    /// <summary>Takes the function from its driver. A test on a machine that others use too is skipped.</summary>
    public Task<Errno> TryUnbindAsync(KernelSession session) => TryTakeAwayAsync(session, $"{Folder}/driver/unbind", Address);

    /// <summary>Removes the function from its bus. A test on a machine that others use too is skipped.</summary>
    public Task<Errno> TryRemoveAsync(KernelSession session) => TryTakeAwayAsync(session, $"{Folder}/remove", "1");

    public static Task RescanAsync(KernelSession session) => session.WriteFileAsync("/sys/bus/pci/rescan", "1");

    public override string ToString() => Address;

    private static Task<Errno> TryTakeAwayAsync(KernelSession session, string path, string text)
    {
        Skipping.UnlessHardware(session.NamedDevices is null, "a machine of the suite's own", "this one is there for others too");
        return session.TryWriteFileAsync(path, text);
    }

    private async Task<ushort> ReadHexAsync(KernelSession session, string name) => ushort.Parse(
        (await session.ReadFileAsync($"{Folder}/{name}") ?? "0x0").Trim()[2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private async Task<string?> LinkAsync(KernelSession session, string name)
    {
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Readlinkat, $"readlink({Folder}/{name})")
            .Arg(-100).In([.. Encoding.ASCII.GetBytes($"{Folder}/{name}"), 0]).Out(512).Arg(512));
        return call.Errno switch
        {
            0 => Encoding.ASCII.GetString(call.Buffers[0], 0, (int)call.Result).Split('/')[^1],
            (int)Errno.ENOENT => null,
            _ => throw new KvmException($"readlink({Folder}/{name})", (Errno)call.Errno),
        };
    }
}

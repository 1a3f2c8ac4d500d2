// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Vfio;

/// <summary>What VFIO_DEVICE_GET_REGION_INFO says, and access to the region through the device's descriptor.</summary>
/// <param name="Flags">VFIO_REGION_INFO_FLAG_*.</param>
/// <param name="Size">In bytes; 0: there is no such region.</param>
/// <param name="Offset">Where it begins in the device's descriptor.</param>
/// <param name="Capabilities">Ids and versions of the capability chain.</param>
public sealed record VfioRegion(VfioDevice Device, uint Index, uint Flags, ulong Size, ulong Offset, IReadOnlyList<(ushort Id, ushort Version)> Capabilities)
{
    public string Name => Index switch
    {
        < 6 => $"BAR{Index}",
        VfioConst.VFIO_PCI_ROM_REGION_INDEX => "ROM",
        VfioConst.VFIO_PCI_CONFIG_REGION_INDEX => "config",
        VfioConst.VFIO_PCI_VGA_REGION_INDEX => "VGA",
        _ => $"region {Index}",
    };

    public bool IsMappable => (Flags & VfioConst.VFIO_REGION_INFO_FLAG_MMAP) != 0;

    public async Task<(Errno Error, byte[] Data)> TryReadAsync(ulong offset, int length)
    {
        KernelSession session = Device.Session;
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Pread64, $"pread({Device.Fd.Name} {Name}+0x{offset:x}, {length})")
            .Arg(Device.Fd.Number).Out(length).Arg(length).Arg(Offset + offset));
        return call.Errno == 0 ? (Errno.None, call.Buffers[0][..(int)call.Result]) : ((Errno)call.Errno, []);
    }

    /// <returns>The bytes written.</returns>
    public async Task<(Errno Error, int Written)> TryWriteAsync(ulong offset, byte[] data)
    {
        KernelSession session = Device.Session;
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Pwrite64, $"pwrite({Device.Fd.Name} {Name}+0x{offset:x}, {Convert.ToHexStringLower(data)})")
            .Arg(Device.Fd.Number).In(data).Arg(data.Length).Arg(Offset + offset));
        return ((Errno)call.Errno, call.Errno == 0 ? (int)call.Result : 0);
    }

    public async Task<byte[]> ReadAsync(ulong offset, int length)
    {
        (Errno error, byte[] data) = await TryReadAsync(offset, length);
        return error == Errno.None && data.Length == length ? data : throw new KvmException($"pread({Name}+0x{offset:x}, {length}) = {data.Length}", error);
    }

    public async Task WriteAsync(ulong offset, byte[] data)
    {
        (Errno error, int written) = await TryWriteAsync(offset, data);
        if (error != Errno.None || written != data.Length)
        {
            throw new KvmException($"pwrite({Name}+0x{offset:x}, {data.Length}) = {written}", error);
        }
    }

    public async Task<byte> ReadByteAsync(ulong offset) => (await ReadAsync(offset, 1))[0];

    public async Task<ushort> ReadUInt16Async(ulong offset) => BinaryPrimitives.ReadUInt16LittleEndian(await ReadAsync(offset, 2));

    public async Task<uint> ReadUInt32Async(ulong offset) => BinaryPrimitives.ReadUInt32LittleEndian(await ReadAsync(offset, 4));

    public Task WriteUInt16Async(ulong offset, ushort value) => WriteAsync(offset, BitConverter.GetBytes(value));

    public Task WriteUInt32Async(ulong offset, uint value) => WriteAsync(offset, BitConverter.GetBytes(value));

    /// <summary>Maps the whole region into the session, in whole pages.</summary>
    public Task<Mapping> MapAsync() => Device.Session.MapAsync(Device.Fd, (Size + 0xfff) & ~0xffful, Offset, Name);

    public override string ToString()
    {
        string[] names = ["read", "write", "mmap", "caps"];
        string flags = string.Join(' ', names.Where((_, bit) => (Flags & (1u << bit)) != 0));
        string caps = string.Concat(Capabilities.Select(c => $" [{(c.Id == VfioConst.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE ? "msix-mappable" : $"cap {c.Id}")} v{c.Version}]"));
        return $"{Name,-6} size 0x{Size:x} {flags}{caps}".TrimEnd();
    }
}

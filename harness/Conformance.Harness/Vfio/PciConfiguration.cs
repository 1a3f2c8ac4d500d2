// SPDX-License-Identifier: MIT
namespace Conformance.Vfio;

/// <summary>Names of the configuration space that the rules need (PCI Local Bus 3.0, uapi/linux/pci_regs.h).</summary>
public static class PciConfiguration
{
    public const ulong Command = 0x04;
    public const ulong Status = 0x06;
    public const ulong InterruptPin = 0x3d;
    public const ushort MemorySpace = 0x2;
    public const ushort BusMaster = 0x4;
    public const ushort InterruptDisable = 0x400;
    public const ushort InterruptStatus = 0x8;
    public const byte MsiCapability = 0x05;
    public const byte MsixCapability = 0x11;
    private const ulong FirstCapability = 0x34;

    /// <summary>Where a capability is; null when the function has none of that kind.</summary>
    public static async Task<byte?> FindCapabilityAsync(this VfioDevice device, byte id)
    {
        VfioRegion config = await device.ConfigAsync();
        for (byte at = await config.ReadByteAsync(FirstCapability); at != 0; at = await config.ReadByteAsync(at + 1u))
        {
            if (await config.ReadByteAsync(at) == id)
            {
                return at;
            }
        }

        return null;
    }

    /// <summary>Sets bits of the command register.</summary>
    public static async Task SetCommandAsync(this VfioDevice device, ushort set, ushort clear = 0)
    {
        VfioRegion config = await device.ConfigAsync();
        ushort command = await config.ReadUInt16Async(Command);
        await config.WriteUInt16Async(Command, (ushort)((command | set) & ~clear));
    }
}

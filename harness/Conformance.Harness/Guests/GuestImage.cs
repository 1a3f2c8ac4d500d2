// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Guests;

/// <summary>The header that every guest image starts with.</summary>
/// <param name="Machine">ELF machine number.</param>
/// <param name="Load">Guest-physical address of the image's first byte.</param>
/// <param name="PageTables">0 when the image has none.</param>
/// <param name="End">First address after the image.</param>
public sealed record GuestImage(uint Machine, ulong Load, ulong Entry, ulong PageTables, ulong End)
{
    /// <exception cref="InvalidDataException">Not a guest image, or one that speaks another version of the protocol.</exception>
    public static GuestImage Parse(ReadOnlySpan<byte> image)
    {
        if (image.Length < GuestProtocol.HeaderSize || BinaryPrimitives.ReadUInt32LittleEndian(image) != GuestProtocol.GuestImageMagic)
        {
            throw new InvalidDataException("not a guest image: it does not start with CFG1; build it with make -C guests");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(image[4..]);
        uint area = BinaryPrimitives.ReadUInt32LittleEndian(image[12..]);
        if (version != GuestProtocol.GuestProtocolVersion || area != GuestProtocol.AreaSize)
        {
            throw new InvalidDataException(
                $"guest image speaks version {version} with vCPU areas of 0x{area:x}, not {GuestProtocol.GuestProtocolVersion} with 0x{GuestProtocol.AreaSize:x}; build it again");
        }

        return new GuestImage(
            BinaryPrimitives.ReadUInt32LittleEndian(image[8..]),
            BinaryPrimitives.ReadUInt64LittleEndian(image[16..]),
            BinaryPrimitives.ReadUInt64LittleEndian(image[24..]),
            BinaryPrimitives.ReadUInt64LittleEndian(image[32..]),
            BinaryPrimitives.ReadUInt64LittleEndian(image[40..]));
    }
}

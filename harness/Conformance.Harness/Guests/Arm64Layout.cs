// SPDX-License-Identifier: MIT
namespace Conformance.Guests;

/// <summary>
/// Where things are in the guest-physical memory of the arm64 guest (guests/arm64/layout.h, which a harness test proves equal).
/// Virtual is physical.
/// </summary>
public static class Arm64Layout
{
    /// <summary>The distributor, 64 KiB.</summary>
    public const ulong Distributor = 0x08000000;

    /// <summary>The first ITS; each has 128 KiB.</summary>
    public const ulong Its = 0x08040000;

    /// <summary>The first redistributor; each has 128 KiB.</summary>
    public const ulong Redistributors = 0x08100000;

    /// <summary>Device memory that is nobody's.</summary>
    public const ulong Devices = 0x10000000;

    /// <summary>Where memory begins and the image is loaded.</summary>
    public const ulong Image = 0x40000000;
    public const ulong Entry = 0x40001000;
    public const ulong PageTable = 0x4000f000;

    /// <summary>Pages that a test may give away or unmap one by one.</summary>
    public const ulong TestPages = 0x40010000;

    /// <inheritdoc cref="TestPages"/>
    public const ulong TestPagesEnd = 0x40200000;

    /// <summary>Area of vCPU 0; the others follow.</summary>
    public const ulong Areas = 0x40200000;

    /// <summary>Memory the guest never touches of its own accord; LPI and ITS tables are put there.</summary>
    public const ulong Scratch = 0x41000000;

    /// <inheritdoc cref="Scratch"/>
    public const ulong ScratchEnd = 0x42000000;

    /// <summary>File name of the image.</summary>
    public const string ImageName = "arm64.img";

    /// <summary>Area of the vCPU with this index.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative, or the area would run into scratch memory.</exception>
    public static ulong Area(int index)
    {
        ulong address = Areas + ((ulong)index * GuestProtocol.AreaSize);
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(address + GuestProtocol.AreaSize, Scratch, nameof(index));
        return address;
    }

    /// <summary>The redistributor of the vCPU with this index, when they lie in one region.</summary>
    public static ulong Redistributor(int index) => Redistributors + ((ulong)index * Uapi.KvmArm64Const.KVM_VGIC_V3_REDIST_SIZE);
}

// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>Delivery modes of an x86 MSI or I/O APIC redirection entry (bits 10:8).</summary>
public enum ApicDeliveryMode : byte
{
    Fixed = 0,
    LowestPriority = 1,
    Smi = 2,
    Nmi = 4,
    Init = 5,
    ExtInt = 7,
}

/// <summary>A message signalled interrupt as it is written: 64-bit address, 32-bit data, and on arm64 the DeviceID of the writer.</summary>
/// <param name="Address">x86: from 0xfee00000 on; arm64: GITS_TRANSLATER's guest-physical address.</param>
/// <param name="Data">x86: vector, delivery mode, trigger mode; arm64: the EventID.</param>
public readonly record struct MsiMessage(ulong Address, uint Data)
{
    /// <summary>DeviceID, given to the kernel with KVM_MSI_VALID_DEVID; null: not given.</summary>
    public uint? DeviceId { get; init; }

    /// <summary>Fixed delivery, edge, physical destination.</summary>
    /// <param name="apicId">Destination; above 255 only with KVM_X2APIC_API_USE_32BIT_IDS, which puts bits 31:8 in address_hi.</param>
    public static MsiMessage Fixed(uint apicId, ApicVector vector) => X86(apicId, vector);

    public static MsiMessage Nmi(uint apicId) => X86(apicId, new ApicVector(0), ApicDeliveryMode.Nmi);

    /// <param name="logical">Destination mode: logical (address bit 2).</param>
    /// <param name="redirectionHint">Address bit 3.</param>
    /// <param name="level">Trigger mode: level (data bit 15); asserted unless <paramref name="deassert"/>.</param>
    public static MsiMessage X86(uint destination, ApicVector vector, ApicDeliveryMode mode = ApicDeliveryMode.Fixed, bool logical = false,
        bool redirectionHint = false, bool level = false, bool deassert = false)
    {
        ulong address = 0xfee00000u | ((destination & 0xff) << 12) | ((ulong)(destination & 0xffffff00) << 32);
        address |= (logical ? 4u : 0) | (redirectionHint ? 8u : 0);
        uint data = vector.Value | ((uint)mode << 8) | (level ? 1u << 15 : 0) | (level && !deassert ? 1u << 14 : 0);
        return new MsiMessage(address, data);
    }

    public override string ToString() => DeviceId is uint id ? $"device 0x{id:x4} 0x{Address:x8}/0x{Data:x4}" : $"0x{Address:x8}/0x{Data:x4}";
}

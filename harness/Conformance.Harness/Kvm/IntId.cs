// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>An interrupt as the GIC numbers it, whatever its kind.</summary>
public readonly record struct IntId(uint Value)
{
    /// <summary>What ICC_IAR1_EL1 gives when nothing is pending.</summary>
    public const uint Spurious = 1023;

    public bool IsSgi => Value < 16;

    public bool IsPpi => Value is >= 16 and < 32;

    public bool IsSpi => Value is >= 32 and < 1020;

    public bool IsLpi => Value >= Lpi.First;

    /// <summary>Where the guest keeps the policy and the counter of this interrupt (guests/arm64/layout.h).</summary>
    public byte Slot => Value switch
    {
        < 128 => (byte)Value,
        >= Lpi.First => (byte)(160 + ((Value - Lpi.First) % 96)),
        >= 1020 => 159,
        _ => (byte)(128 + (Value % 31)),
    };

    public override string ToString() =>
        IsSgi ? $"SGI {Value}" : IsPpi ? $"PPI {Value}" : IsSpi ? $"SPI {Value}" : IsLpi ? $"LPI {Value}" : $"INTID {Value}";
}

/// <summary>A software generated interrupt: INTID 0 to 15.</summary>
public readonly record struct Sgi(uint Value)
{
    public static implicit operator IntId(Sgi sgi) => new(sgi.Value);

    public override string ToString() => $"SGI {Value}";
}

/// <summary>A private peripheral interrupt: INTID 16 to 31, one of each per vCPU.</summary>
public readonly record struct Ppi(uint Value)
{
    public static implicit operator IntId(Ppi ppi) => new(ppi.Value);

    public override string ToString() => $"PPI {Value}";
}

/// <summary>A shared peripheral interrupt by its INTID, 32 to 1019.</summary>
public readonly record struct Spi(uint Value)
{
    /// <summary>The pin of the irqchip that raises it: INTID - 32.</summary>
    public uint Pin => Value - 32;

    public static Spi FromPin(uint pin) => new(pin + 32);

    public static implicit operator IntId(Spi spi) => new(spi.Value);

    public override string ToString() => $"SPI {Value}";
}

/// <summary>A message signalled interrupt behind an ITS, by its INTID, 8192 and above.</summary>
public readonly record struct Lpi(uint Value)
{
    public const uint First = 8192;

    public static implicit operator IntId(Lpi lpi) => new(lpi.Value);

    public override string ToString() => $"LPI {Value}";
}

/// <summary>Who writes an MSI, as the ITS is told.</summary>
public readonly record struct DeviceId(uint Value)
{
    public override string ToString() => $"0x{Value:x4}";
}

/// <summary>What a device writes to GITS_TRANSLATER.</summary>
public readonly record struct EventId(uint Value)
{
    public override string ToString() => $"{Value}";
}

/// <summary>A group of LPIs that target one redistributor.</summary>
public readonly record struct CollectionId(uint Value)
{
    public override string ToString() => $"{Value}";
}

/// <summary>KVM_IRQ_LINE's irq on arm64: type, vCPU and number in one word.</summary>
public static class ArmIrqLine
{
    public static uint Of(Spi spi) => Of(Uapi.KvmArm64Const.KVM_ARM_IRQ_TYPE_SPI, 0, spi.Value);

    /// <param name="vcpu">vCPU id; above 255 it needs KVM_CAP_ARM_IRQ_LINE_LAYOUT_2.</param>
    public static uint Of(Ppi ppi, uint vcpu) => Of(Uapi.KvmArm64Const.KVM_ARM_IRQ_TYPE_PPI, vcpu, ppi.Value);

    /// <param name="type">KVM_ARM_IRQ_TYPE_*, or any other number of 4 bits.</param>
    /// <param name="vcpu">Its low 8 bits go to the vCPU field, the next 4 to vcpu2.</param>
    /// <param name="number">16 bits.</param>
    public static uint Of(uint type, uint vcpu, uint number) =>
        ((vcpu >> 8) << (int)Uapi.KvmArm64Const.KVM_ARM_IRQ_VCPU2_SHIFT) | (type << (int)Uapi.KvmArm64Const.KVM_ARM_IRQ_TYPE_SHIFT)
        | ((vcpu & 0xff) << (int)Uapi.KvmArm64Const.KVM_ARM_IRQ_VCPU_SHIFT) | (number & 0xffff);
}

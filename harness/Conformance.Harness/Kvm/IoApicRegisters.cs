// SPDX-License-Identifier: MIT
using Conformance.Guests;

namespace Conformance.Kvm;

/// <summary>The I/O APIC as a guest reaches it: select a register, then access the window.</summary>
public static class IoApicRegisters
{
    public const ulong Select = IoApicState.DefaultBase;
    public const ulong Window = IoApicState.DefaultBase + 0x10;
    public const byte Id = 0;
    public const byte Version = 1;
    public const byte Arbitration = 2;

    /// <summary>Register of a pin's low half; the next one is its high half.</summary>
    public static byte Low(int pin) => (byte)(0x10 + (pin * 2));

    public static byte High(int pin) => (byte)(Low(pin) + 1);

    public static GuestCommand[] Write(byte register, uint value) => [GuestCommand.Store(Select, register), GuestCommand.Store(Window, value)];

    /// <summary>The last command's result is the register.</summary>
    public static GuestCommand[] Read(byte register) => [GuestCommand.Store(Select, register), GuestCommand.Load(Window)];

    /// <summary>Writes an entry as a careful guest does: the high half, then the low half.</summary>
    public static GuestCommand[] Write(int pin, RedirectionEntry entry) => [.. Write(High(pin), entry.High), .. Write(Low(pin), entry.Low)];
}

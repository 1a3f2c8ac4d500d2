// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Kvm;

/// <summary>A command for an ITS: four doublewords in its queue.</summary>
public readonly record struct ItsCommand
{
    public const int Size = 32;

    private const byte Movi = 0x01;
    private const byte Int = 0x03;
    private const byte Clear = 0x04;
    private const byte Sync = 0x05;
    private const byte Mapd = 0x08;
    private const byte Mapc = 0x09;
    private const byte Mapti = 0x0a;
    private const byte Mapi = 0x0b;
    private const byte Inv = 0x0c;
    private const byte Invall = 0x0d;
    private const byte Movall = 0x0e;
    private const byte Discard = 0x0f;

    private readonly string _text;

    private ItsCommand(string text, ulong d0, ulong d1 = 0, ulong d2 = 0, ulong d3 = 0)
    {
        _text = text;
        D0 = d0;
        D1 = d1;
        D2 = d2;
        D3 = d3;
    }

    public ulong D0 { get; }

    public ulong D1 { get; }

    public ulong D2 { get; }

    public ulong D3 { get; }

    /// <summary>MAPD: gives a device an interrupt translation table, or takes it away.</summary>
    /// <param name="table">Guest-physical, a multiple of 256.</param>
    /// <param name="eventBits">EventIDs of so many bits, 1 to 32.</param>
    public static ItsCommand MapDevice(DeviceId device, ulong table, int eventBits, bool valid = true) =>
        new($"MAPD {device} itt 0x{table:x} bits {eventBits}{(valid ? "" : " V=0")}", Head(Mapd, device), (uint)(eventBits - 1),
            (table & 0x000f_ffff_ffff_ff00) | (valid ? Gits.Valid : 0));

    public static ItsCommand UnmapDevice(DeviceId device) => MapDevice(device, 0, 1, valid: false);

    /// <summary>MAPC: the redistributor a collection targets, which is a vCPU id.</summary>
    public static ItsCommand MapCollection(CollectionId collection, uint vcpuId, bool valid = true) =>
        new($"MAPC {collection} vCPU {vcpuId}{(valid ? "" : " V=0")}", Mapc, 0, (collection.Value & 0xffff) | ((ulong)vcpuId << 16) | (valid ? Gits.Valid : 0));

    public static ItsCommand UnmapCollection(CollectionId collection) => MapCollection(collection, 0, valid: false);

    /// <summary>MAPTI: an event of a device becomes an LPI in a collection.</summary>
    public static ItsCommand MapEvent(DeviceId device, EventId @event, Lpi lpi, CollectionId collection) =>
        new($"MAPTI {device} event {@event} {lpi} collection {collection}", Head(Mapti, device), @event.Value | ((ulong)lpi.Value << 32), collection.Value);

    /// <summary>MAPI: as MAPTI, with the EventID for an INTID.</summary>
    public static ItsCommand MapInterrupt(DeviceId device, EventId @event, CollectionId collection) =>
        new($"MAPI {device} event {@event} collection {collection}", Head(Mapi, device), @event.Value, collection.Value);

    /// <summary>MOVI: an event goes to another collection.</summary>
    public static ItsCommand Move(DeviceId device, EventId @event, CollectionId collection) =>
        new($"MOVI {device} event {@event} collection {collection}", Head(Movi, device), @event.Value, collection.Value);

    /// <summary>MOVALL: everything that targets one vCPU goes to another.</summary>
    public static ItsCommand MoveAll(uint fromVcpuId, uint toVcpuId) =>
        new($"MOVALL vCPU {fromVcpuId} to {toVcpuId}", Movall, 0, (ulong)fromVcpuId << 16, (ulong)toVcpuId << 16);

    /// <summary>DISCARD: forgets an event and its pending state.</summary>
    public static ItsCommand DiscardEvent(DeviceId device, EventId @event) =>
        new($"DISCARD {device} event {@event}", Head(Discard, device), @event.Value);

    /// <summary>CLEAR: takes back the pending state of an event.</summary>
    public static ItsCommand ClearEvent(DeviceId device, EventId @event) => new($"CLEAR {device} event {@event}", Head(Clear, device), @event.Value);

    /// <summary>INT: as if the device had written.</summary>
    public static ItsCommand Raise(DeviceId device, EventId @event) => new($"INT {device} event {@event}", Head(Int, device), @event.Value);

    /// <summary>INV: reads the configuration of an event's LPI again.</summary>
    public static ItsCommand Invalidate(DeviceId device, EventId @event) => new($"INV {device} event {@event}", Head(Inv, device), @event.Value);

    /// <summary>INVALL: reads the configuration of every LPI of a collection again.</summary>
    public static ItsCommand InvalidateAll(CollectionId collection) => new($"INVALL {collection}", Invall, 0, collection.Value);

    /// <summary>SYNC: what came before has taken effect.</summary>
    public static ItsCommand Synchronise(uint vcpuId = 0) => new($"SYNC vCPU {vcpuId}", Sync, 0, (ulong)vcpuId << 16);

    /// <summary>Any four doublewords.</summary>
    public static ItsCommand Raw(ulong d0, ulong d1 = 0, ulong d2 = 0, ulong d3 = 0) => new($"command 0x{d0:x} 0x{d1:x} 0x{d2:x} 0x{d3:x}", d0, d1, d2, d3);

    public byte[] Encode()
    {
        byte[] bytes = new byte[Size];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, D0);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), D1);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), D2);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(24), D3);
        return bytes;
    }

    public override string ToString() => _text ?? "none";

    private static ulong Head(byte command, DeviceId device) => command | ((ulong)device.Value << 32);
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Guests;

/// <summary>Something a handler does when its interrupt is taken.</summary>
public readonly record struct HandlerAction
{
    private readonly ActionKind _kind;
    private readonly byte _width;
    private readonly ushort _flags;
    private readonly ulong _address;
    private readonly ulong _value;
    private readonly ulong _extra;

    private HandlerAction(ActionKind kind, AccessWidth width, ulong address, ulong value = 0, ulong extra = 0, ushort flags = 0)
    {
        _kind = kind;
        _width = (byte)width;
        _flags = flags;
        _address = address;
        _value = value;
        _extra = extra;
    }

    /// <summary>A write to memory or MMIO, such as one that makes a device lower its line.</summary>
    public static HandlerAction Store(ulong address, ulong value, AccessWidth width = AccessWidth.Dword) => new(ActionKind.Store, width, address, value);

    /// <summary>A read of memory or MMIO, logged as <see cref="LogRecordKind.Action"/>.</summary>
    public static HandlerAction Load(ulong address, AccessWidth width = AccessWidth.Dword) => new(ActionKind.Load, width, address);

    /// <summary>Adds to memory, not atomically: for the vCPU's own counters (<see cref="GuestLayout.Counter"/>).</summary>
    public static HandlerAction Add(ulong address, ulong value = 1, AccessWidth width = AccessWidth.Qword) => new(ActionKind.Add, width, address, value);

    public static HandlerAction Out(ushort port, uint value, AccessWidth width = AccessWidth.Byte) => new(ActionKind.Out, width, port, value);

    /// <summary>A read of a port, logged as <see cref="LogRecordKind.Action"/>.</summary>
    public static HandlerAction In(ushort port, AccessWidth width = AccessWidth.Byte) => new(ActionKind.In, width, port);

    public static HandlerAction WriteMsr(uint msr, ulong value) => new(ActionKind.Wrmsr, AccessWidth.Qword, msr, value);

    /// <summary>arm64: a write of a system register that the guest knows.</summary>
    public static HandlerAction WriteRegister(Kvm.IccRegister register, ulong value) => new(ActionKind.WriteSysreg, AccessWidth.Qword, (uint)register, value);

    /// <summary>
    /// What a Xen guest does on an upcall: log evtchn_upcall_pending and pending_sel (<see cref="LogRecordKind.Upcall"/>), clear them, then
    /// log and clear each pending port that is not masked (<see cref="LogRecordKind.EventChannel"/>).
    /// </summary>
    /// <param name="vcpuInfo">Guest-physical address of vcpu_info.</param>
    /// <param name="sharedInfo">Guest-physical address of shared_info.</param>
    /// <param name="ports">Guest-physical address of a bitmap of the ports to look at; 0: all.</param>
    public static HandlerAction XenUpcall(ulong vcpuInfo, ulong sharedInfo, XenUpcall options = Guests.XenUpcall.None, ulong ports = 0) =>
        new(ActionKind.XenUpcall, AccessWidth.Qword, vcpuInfo, sharedInfo, ports, (ushort)options);

    public override string ToString() => _kind switch
    {
        ActionKind.Store => $"store.{_width} [0x{_address:x}] 0x{_value:x}",
        ActionKind.Load => $"load.{_width} [0x{_address:x}]",
        ActionKind.Add => $"add.{_width} [0x{_address:x}] 0x{_value:x}",
        ActionKind.Out => $"out.{_width} 0x{_address:x} 0x{_value:x}",
        ActionKind.In => $"in.{_width} 0x{_address:x}",
        ActionKind.Wrmsr => $"wrmsr 0x{_address:x} 0x{_value:x}",
        ActionKind.WriteSysreg => $"msr {(Kvm.IccRegister)_address} 0x{_value:x}",
        ActionKind.XenUpcall => $"xen upcall vcpu_info 0x{_address:x} shared_info 0x{_value:x}" + (_flags == 0 ? "" : $" {(XenUpcall)_flags}"),
        _ => "none",
    };

    internal void Encode(Span<byte> action)
    {
        action.Clear();
        action[0] = (byte)_kind;
        action[1] = _width;
        BinaryPrimitives.WriteUInt16LittleEndian(action[2..], _flags);
        BinaryPrimitives.WriteUInt64LittleEndian(action[8..], _address);
        BinaryPrimitives.WriteUInt64LittleEndian(action[16..], _value);
        BinaryPrimitives.WriteUInt64LittleEndian(action[24..], _extra);
    }
}

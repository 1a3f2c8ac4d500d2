// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Kvm;
using Conformance.Uapi;

namespace Conformance.Vfio;

/// <summary>The argument of VFIO_DEVICE_SET_IRQS, well formed or not.</summary>
public sealed record IrqSet
{
    private const int HeaderSize = 20;

    public required uint Index { get; init; }

    /// <summary>Action and data type.</summary>
    public required uint Flags { get; init; }

    public uint Start { get; init; }

    public uint Count { get; init; }

    /// <summary>What follows the header.</summary>
    public byte[] Data { get; init; } = [];

    /// <summary>null: header and data.</summary>
    public uint? Argsz { get; init; }

    /// <summary>No data: the action for a range, or with a count of 0 and the action trigger the end of the index.</summary>
    public static IrqSet None(IrqIndex index, IrqAction action, uint start = 0, uint count = 1) => new()
    {
        Index = (uint)index, Flags = (uint)action | (uint)IrqData.None, Start = start, Count = count,
    };

    /// <summary>The action for those interrupts of a range whose byte is not 0.</summary>
    public static IrqSet Bools(IrqIndex index, IrqAction action, uint start, params byte[] chosen) => new()
    {
        Index = (uint)index, Flags = (uint)action | (uint)IrqData.Bool, Start = start, Count = (uint)chosen.Length, Data = chosen,
    };

    /// <summary>An eventfd for each interrupt of a range; null is -1: none.</summary>
    public static IrqSet Eventfds(IrqIndex index, IrqAction action, uint start, params KernelFd?[] eventfds) =>
        Descriptors(index, action, start, [.. eventfds.Select(e => e?.Number ?? -1)]);

    /// <summary>Any numbers in the place of eventfds, for the rules about wrong ones.</summary>
    public static IrqSet Descriptors(IrqIndex index, IrqAction action, uint start, params int[] numbers)
    {
        byte[] data = new byte[numbers.Length * 4];
        for (int i = 0; i < numbers.Length; i++)
        {
            BinaryPrimitives.WriteInt32LittleEndian(data.AsSpan(i * 4), numbers[i]);
        }

        return new IrqSet { Index = (uint)index, Flags = (uint)action | (uint)IrqData.Eventfd, Start = start, Count = (uint)numbers.Length, Data = data };
    }

    /// <summary>As the kernel reads it.</summary>
    public byte[] ToBytes() =>
    [
        .. KernelSession.Bytes(new vfio_irq_set
        {
            argsz = Argsz ?? (uint)(HeaderSize + Data.Length), flags = Flags, index = Index, start = Start, count = Count,
        }),
        .. Data,
    ];

    public override string ToString()
    {
        string index = Index <= (uint)IrqIndex.Req ? ((IrqIndex)Index).ToString() : $"index {Index}";
        return $"{index} {(IrqAction)(Flags & 0x38)} {(IrqData)(Flags & 7)} {Start}+{Count}{(Flags > 63 ? $" flags 0x{Flags:x}" : "")}{(Argsz is uint a ? $" argsz {a}" : "")}";
    }
}

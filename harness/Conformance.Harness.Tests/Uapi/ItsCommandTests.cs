// SPDX-License-Identifier: MIT
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Uapi;

/// <summary>ITS commands and KVM_IRQ_LINE words are encoded as the GIC architecture and api.rst lay them out.</summary>
public sealed class ItsCommandTests
{
    private static readonly DeviceId s_device = new(0x1234_5678);
    private static readonly EventId s_event = new(0x9abc_def0);

    public static TheoryData<string, ulong, ulong, ulong, ulong> Commands() => new()
    {
        { nameof(ItsCommand.MapDevice), 0x1234_5678_0000_0008, 15, 0x8000_0000_4101_2300, 0 },
        { nameof(ItsCommand.MapCollection), 0x09, 0, 0x8000_0000_0007_0003, 0 },
        { nameof(ItsCommand.MapEvent), 0x1234_5678_0000_000a, 0x0000_2003_9abc_def0, 3, 0 },
        { nameof(ItsCommand.MapInterrupt), 0x1234_5678_0000_000b, 0x9abc_def0, 3, 0 },
        { nameof(ItsCommand.Move), 0x1234_5678_0000_0001, 0x9abc_def0, 3, 0 },
        { nameof(ItsCommand.MoveAll), 0x0e, 0, 0x1_0000, 0x2_0000 },
        { nameof(ItsCommand.DiscardEvent), 0x1234_5678_0000_000f, 0x9abc_def0, 0, 0 },
        { nameof(ItsCommand.ClearEvent), 0x1234_5678_0000_0004, 0x9abc_def0, 0, 0 },
        { nameof(ItsCommand.Raise), 0x1234_5678_0000_0003, 0x9abc_def0, 0, 0 },
        { nameof(ItsCommand.Invalidate), 0x1234_5678_0000_000c, 0x9abc_def0, 0, 0 },
        { nameof(ItsCommand.InvalidateAll), 0x0d, 0, 3, 0 },
        { nameof(ItsCommand.Synchronise), 0x05, 0, 0x7_0000, 0 },
    };

    [Theory]
    [MemberData(nameof(Commands))]
    public void ACommandIsFourDoublewords(string name, ulong d0, ulong d1, ulong d2, ulong d3)
    {
        var collection = new CollectionId(3);
        ItsCommand command = name switch
        {
            nameof(ItsCommand.MapDevice) => ItsCommand.MapDevice(s_device, 0x4101_2300, 16),
            nameof(ItsCommand.MapCollection) => ItsCommand.MapCollection(collection, 7),
            nameof(ItsCommand.MapEvent) => ItsCommand.MapEvent(s_device, s_event, new Lpi(0x2003), collection),
            nameof(ItsCommand.MapInterrupt) => ItsCommand.MapInterrupt(s_device, s_event, collection),
            nameof(ItsCommand.Move) => ItsCommand.Move(s_device, s_event, collection),
            nameof(ItsCommand.MoveAll) => ItsCommand.MoveAll(1, 2),
            nameof(ItsCommand.DiscardEvent) => ItsCommand.DiscardEvent(s_device, s_event),
            nameof(ItsCommand.ClearEvent) => ItsCommand.ClearEvent(s_device, s_event),
            nameof(ItsCommand.Raise) => ItsCommand.Raise(s_device, s_event),
            nameof(ItsCommand.Invalidate) => ItsCommand.Invalidate(s_device, s_event),
            nameof(ItsCommand.InvalidateAll) => ItsCommand.InvalidateAll(collection),
            _ => ItsCommand.Synchronise(7),
        };
        byte[] bytes = command.Encode();
        bytes.Length.Should().Be(ItsCommand.Size);
        Enumerable.Range(0, 4).Select(n => BitConverter.ToUInt64(bytes, n * 8)).Should().Equal(d0, d1, d2, d3);
    }

    [Fact]
    public void AnInvalidMappingHasNoValidBit()
    {
        (ItsCommand.UnmapDevice(s_device).D2 >> 63).Should().Be(0);
        (ItsCommand.UnmapCollection(new CollectionId(3)).D2 >> 63).Should().Be(0);
    }

    [Fact]
    public void AnIrqLineWordHoldsTypeVcpuAndNumber()
    {
        ArmIrqLine.Of(new Spi(40)).Should().Be(0x0100_0028);
        ArmIrqLine.Of(new Ppi(20), 3).Should().Be(0x0203_0014);
        ArmIrqLine.Of(new Ppi(20), 0x3a5).Should().Be(0x32a5_0014);
    }

    [Fact]
    public void AffinityFollowsTheVcpuId()
    {
        Vgic.Affinity(0).Should().Be(0);
        Vgic.Affinity(15).Should().Be(15);
        Vgic.Affinity(16).Should().Be(0x100);
        Vgic.Affinity(0x123f).Should().Be(0x1_230f);
    }
}

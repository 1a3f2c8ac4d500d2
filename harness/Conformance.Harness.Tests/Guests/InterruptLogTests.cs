// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Guests;

/// <summary>The ring of records and how it reads.</summary>
public sealed class InterruptLogTests
{
    private const ulong Area = 0x220000;

    [Fact]
    public void RecordsComeInOrder()
    {
        byte[] bytes = [.. Record(0, 1, 0x41, 7 | (1ul << 32)), .. Record(1, 7, 1, 0x0001), .. Record(2, 2, 5, 0x20), .. Record(3, 4, 2, uint.MaxValue | (3ul << 32) | (3ul << 40))];
        InterruptLog log = InterruptLog.Parse(bytes, 4);
        log.Vectors.Should().Equal(new ApicVector(0x41));
        log.Ports.Should().Equal(5u);
        (log[0].Position, log[0].Depth, log[0].FromUser).Should().Be((7, 1, false));
        (log[3].Position, log[3].Depth, log[3].FromUser, log[3].BeforeHalt).Should().Be((null, 3, true, true));
        log.ToString().Should().Be("  taken 0x41\n  upcall pending 1 mask 0 selector 0x1\n  port 5 pending (word 0x20)\n  taken NMI\n");
    }

    [Fact]
    public void AnEmptyLogSaysSo() => InterruptLog.Parse([], 0).ToString().Should().Be("  nothing taken\n");

    [Fact]
    public void TheRingWraps()
    {
        InterruptLog.Pieces(Area, 1540, 1530).Should().Equal((Area + 0x1000 + (1530 * 32), 6 * 32), (Area + 0x1000, 4 * 32));
        InterruptLog.Pieces(Area, 3).Should().Equal((Area + 0x1000, 96));
        InterruptLog.Pieces(Area, 3, 3).Should().BeEmpty();
    }

    [Fact]
    public void WhatTheRingNoLongerHasIsCounted()
    {
        byte[] bytes = [.. Enumerable.Range(100, 1536).SelectMany(n => Record((uint)n, 1, 0x41, 0))];
        InterruptLog log = InterruptLog.Parse(bytes, 1636);
        log.Lost.Should().Be(100);
        log.Should().HaveCount(1536);
        log.ToString().Should().StartWith("  100 records lost\n");
    }

    [Fact]
    public void ARecordOutOfSequenceIsRefused() =>
        FluentActions.Invoking(() => InterruptLog.Parse(Record(1536, 1, 0x41, 0), 1)).Should().Throw<InvalidDataException>().WithMessage("*overwritten*");

    private static byte[] Record(uint sequence, ushort kind, ulong value, ulong extra)
    {
        var bytes = new byte[32];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, kind);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4), sequence);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), value);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), extra);
        return bytes;
    }
}

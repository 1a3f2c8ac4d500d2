// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;
using static Conformance.Guests.GuestCommand;

namespace Conformance.Harness.Tests.Guests;

/// <summary>Scripts as bytes in guest memory, and their results read back.</summary>
public sealed class GuestScriptTests
{
    [Fact]
    public void ACommandIsOneHundredAndTwentyEightBytes()
    {
        byte[] bytes = new GuestScript { Store(0x1000000, 0xfeed, AccessWidth.Word) }.Encode();
        bytes.Should().HaveCount(128);
        U16(bytes, 0).Should().Be(2);
        U16(bytes, 2).Should().Be(2);
        U64(bytes, 0x10).Should().Be(0x1000000);
        U64(bytes, 0x18).Should().Be(0xfeed);
        bytes.AsSpan(0x20).ToArray().Should().OnlyContain(b => b == 0);
    }

    [Fact]
    public void AllowedExceptionsAreABitmap()
    {
        GuestCommand command = ReadMsr(0x12345).Expecting(X86Exception.GeneralProtection, X86Exception.InvalidOpcode);
        U32(new GuestScript { command }.Encode(), 4).Should().Be((1u << 13) | (1u << 6));
        command.ToString().Should().Be("rdmsr 0x12345 (#GP or #UD allowed)");
    }

    [Fact]
    public void AHypercallCarriesNumberArgumentsAndPage()
    {
        GuestCommand command = Hypercall(HypercallInstruction.Page, HypercallMode.User32, 32, [1, 2, 3, 4, 5, 6], page: 0x20000);
        byte[] bytes = new GuestScript { command }.Encode();
        U16(bytes, 2).Should().Be(0x23);
        Enumerable.Range(0, 8).Select(n => U64(bytes, 0x10 + (n * 8))).Should().Equal(32, 1, 2, 3, 4, 5, 6, 0x20000);
        FluentActions.Invoking(() => Hypercall(HypercallInstruction.Page, HypercallMode.Kernel64, 1)).Should().Throw<ArgumentException>();
    }

    [Fact]
    public void ALoopGoesToItsLabelAsOftenAsItRepeats()
    {
        byte[] bytes = new GuestScript().Add(Nop).Label("again").Add(Pause(3)).Repeat("again", 5).Encode();
        U16(bytes, 256).Should().Be(7);
        U64(bytes, 256 + 0x10).Should().Be(1);
        U64(bytes, 256 + 0x18).Should().Be(4);
    }

    [Fact]
    public void ALoopMayEndByMemory()
    {
        var script = new GuestScript().Label("again").Add(Nop).RepeatUntil("again", new GuestCondition(0x1000000, Comparison.AtLeast, 7, AccessWidth.Qword, 0xff));
        byte[] loop = script.Encode()[128..];
        U16(loop, 2).Should().Be(0x128);
        Enumerable.Range(0, 5).Select(n => U64(loop, 0x10 + (n * 8))).Should().Equal(0, ulong.MaxValue, 0x1000000, 0xff, 7);
        script.ToString().Should().Be("again:\n    0  nop\n    1  loop again until [0x1000000].8 & 0xff >= 0x7\n");
    }

    [Fact]
    public void ALoopToNowhereIsRefused() =>
        FluentActions.Invoking(() => new GuestScript().Add(Nop).Repeat("there", 2).Encode()).Should().Throw<InvalidOperationException>().WithMessage("*there*");

    [Fact]
    public void ThereAreAtMostFiveHundredAndTwelveCommands()
    {
        var script = new GuestScript().AddRange(Enumerable.Repeat(Nop, 512));
        FluentActions.Invoking(() => script.Add(Nop)).Should().Throw<InvalidOperationException>();
        script.Encode().Should().HaveCount(GuestProtocol.AreaSize - GuestProtocol.AreaScript);
    }

    [Fact]
    public void WritesGoToTheAreaOfTheVcpu()
    {
        IReadOnlyList<GuestWrite> writes = new GuestScript { Nop, Nop }.Writes(GuestLayout.Area(1));
        writes.Select(w => w.Address).Should().Equal(0x230000, 0x220004);
        writes[1].Bytes.Should().Equal(2, 0, 0, 0);
    }

    [Fact]
    public void ResultsAreThoseOfTheirCommands()
    {
        var script = new GuestScript().Add(ReadMsr(0x1b), out int msr).Add(Load(0x5000).Expecting(X86Exception.PageFault), out int load).Add(Nop, out int nop);
        byte[] bytes = script.Encode();
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), (uint)CommandStatus.Done);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(12), 3);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(0x50), 0xfee00900);
        Span<byte> second = bytes.AsSpan(128);
        BinaryPrimitives.WriteUInt32LittleEndian(second[8..], (uint)CommandStatus.Faulted);
        BinaryPrimitives.WriteUInt32LittleEndian(second[0x60..], 14);
        BinaryPrimitives.WriteUInt32LittleEndian(second[0x64..], 4);
        BinaryPrimitives.WriteUInt64LittleEndian(second[0x68..], 0x5000);

        ScriptResults results = script.Decode(bytes);
        results[msr].Value.Should().Be(0xfee00900);
        results[msr].Runs.Should().Be(3);
        results[load].Fault.Should().Be(new CommandFault(X86Exception.PageFault, 4, 0x5000, 0));
        results[nop].Status.Should().Be(CommandStatus.NotRun);
        results.ToString().Should().Be("  0 rdmsr 0x1b: 0xfee00900\n  1 load.4 [0x5000] (#PF allowed): #PF error 0x4 at 0x5000\n  2 nop: not run\n");
        FluentActions.Invoking(() => results[load].Value).Should().Throw<InvalidOperationException>().WithMessage("*#PF error 0x4 at 0x5000*");
    }

    [Fact]
    public void AHandlerIsItsActionsAndItsPolicy()
    {
        var policy = new HandlerPolicy { Notify = true, Acknowledge = Acknowledgement.BeforeActions, Actions = [HandlerAction.Out(0x80, 1), HandlerAction.Add(0x200040)] };
        var script = new GuestScript { FirstActionSlot = 3 }.Handle(new ApicVector(0x41), policy);
        byte[] bytes = script.Encode();
        script.Count.Should().Be(3);
        U64(bytes, 0x10).Should().Be(3);
        U64(bytes, 0x18).Should().Be(4 | (1 << 8));
        U64(bytes, 256 + 0x10).Should().Be(0x41);
        U64(bytes, 256 + 0x18).Should().Be(0x0203000c);
        script.Last().ToString().Should().Be("handle 0x41: log, eoi, out.1 0x80 0x1, add.8 [0x200040] 0x1, notify");
    }

    [Fact]
    public void TheDefaultPolicyIsZero() => HandlerPolicy.Default.Encode(5).Should().Be(0);

    [Fact]
    public void AHandlerTableHasTwentyFourActions()
    {
        var table = new HandlerTable();
        table.Set(new ApicVector(0x30), new HandlerPolicy { Actions = [.. Enumerable.Repeat(HandlerAction.Add(0x200040), 24)] });
        FluentActions.Invoking(() => table.Set(new ApicVector(0x31), new HandlerPolicy { Actions = [HandlerAction.Add(0x200040)] })).Should().Throw<InvalidOperationException>();
        IReadOnlyList<GuestWrite> writes = table.Encode(GuestLayout.Area(0));
        writes.Select(w => w.Address).Should().Equal(0x200100, 0x200d00);
        U64(writes[0].Bytes, 0x30 * 8).Should().Be(24ul << 24);
    }

    [Fact]
    public void APageIsOneEntryOfTheImagesTables()
    {
        PageTables tables = GuestLayout.X86_64.Tables;
        tables.Unmap(0x20000).Should().BeEquivalentTo(new GuestWrite(0x116100, new byte[8]));
        U64(tables.Restore(0x20fff).Bytes, 0).Should().Be(0x20067);
        U64(tables.Map(0x20000, 0xfed00000, writable: false, user: false).Bytes, 0).Should().Be(0xfed00061);
        GuestLayout.X86_32Paging.Tables.Unmap(0x20000).Should().BeEquivalentTo(new GuestWrite(0x111080, new byte[4]));
        FluentActions.Invoking(() => tables.Unmap(0x400000)).Should().Throw<ArgumentOutOfRangeException>();
    }

    [Fact]
    public void AControlPageTellsOfADeath()
    {
        var page = new byte[0x80];
        page[0] = 3;
        page[4] = 9;
        page[8] = 2;
        page[0x10] = 5;
        page[0x18] = 13;
        page[0x28] = 0x10;
        GuestControl.Parse(page).ToString().Should().Be("vCPU 0: died at command 2 of 9: #GP error 0x0 at pc 0x10, 5 records");
    }

    private static ushort U16(byte[] bytes, int offset) => BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(offset));

    private static uint U32(byte[] bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(offset));

    private static ulong U64(byte[] bytes, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(offset));
}

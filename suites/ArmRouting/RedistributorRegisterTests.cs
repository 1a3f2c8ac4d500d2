// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class RedistributorRegisterTests(KernelUnderTest kernel)
{
    private const ulong InnerShareable = 1ul << 10;
    private const ulong ReadAllocateWriteBack = 3ul << 7;

    [Fact]
    [Clause("arm-gicr/reset-values")]
    public async Task RegistersHaveTheirResetValues()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync(vcpus: 2);
        (uint Offset, AccessWidth Width, ulong Value)[] expected =
        [
            (Gicr.Ctlr, AccessWidth.Dword, Gicr.CtlrCesIr), (Gicr.Iidr, AccessWidth.Dword, 0x4b00_043b), (Gicr.Typer, AccessWidth.Qword, 0x0000_0001_0000_0111),
            (Gicr.Typer, AccessWidth.Dword, 0x111), (Gicr.Typer + 4, AccessWidth.Dword, 1), (Gicr.Statusr, AccessWidth.Dword, 0), (Gicr.Waker, AccessWidth.Dword, 0),
            (Gicr.Propbaser, AccessWidth.Qword, InnerShareable | ReadAllocateWriteBack), (Gicr.Pendbaser, AccessWidth.Qword, InnerShareable | ReadAllocateWriteBack),
            (Gicr.Syncr, AccessWidth.Dword, 0), (Gicr.Pidr2, AccessWidth.Dword, 0x3b),
            (Gicr.Igroupr0, AccessWidth.Dword, 0xffff_ffff), (Gicr.Isenabler0, AccessWidth.Dword, 0xffff), (Gicr.Icenabler0, AccessWidth.Dword, 0xffff),
            (Gicr.Ispendr0, AccessWidth.Dword, 0), (Gicr.Isactiver0, AccessWidth.Dword, 0), (Gicr.Ipriorityr0, AccessWidth.Dword, 0), (Gicr.Ipriorityr0 + 28, AccessWidth.Dword, 0),
            (Gicr.Icfgr0, AccessWidth.Dword, 0xaaaa_aaaa), (Gicr.Icfgr1, AccessWidth.Dword, 0), (Gicr.Igrpmodr0, AccessWidth.Dword, 0), (Gicr.Nsacr, AccessWidth.Dword, 0),
            (Gicr.Invlpir, AccessWidth.Qword, 0), (Gicr.Invallr, AccessWidth.Qword, 0), (0x0018, AccessWidth.Dword, 0),
        ];
        // vCPU 0 reads those of vCPU 1.
        var script = new GuestScript();
        foreach ((uint offset, AccessWidth width, ulong _) in expected)
        {
            script.Add(Arm64Command.LoadRedistributor(1, offset, width));
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        ulong[] seen = [.. results.Select(r => r.Value)];
        if ((await vm.Gic.ReadDistributorAsync(Gicd.Iidr) >> 12 & 0xf) < 3)
        {
            expected[0].Value = 0;
        }

        seen.Select((v, n) => (expected[n].Offset, v)).Should().Equal(expected.Select(e => (e.Offset, e.Value)));
    }

    [Fact]
    [Clause("arm-gicr/typer-without-an-its")]
    public async Task TyperTellsOfNoLpisWithoutAnIts()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(vcpus: 2);
        (await vm.Gic.ReadRedistributor64Async(0, Gicr.Typer)).Should().Be(0);
        (await vm.Gic.ReadRedistributor64Async(1, Gicr.Typer)).Should().Be(0x0000_0001_0000_0110);
    }

    [Fact]
    [Clause("arm-gicr/read-only")]
    public async Task GuestCannotWriteIdentification()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        var script = new GuestScript();
        foreach (uint offset in new[] { Gicr.Iidr, Gicr.Typer, Gicr.Statusr, Gicr.Waker, Gicr.Syncr, Gicr.Pidr2, Gicr.Icfgr0, Gicr.Icfgr1, Gicr.Igrpmodr0, Gicr.Nsacr })
        {
            script.Add(Arm64Command.LoadRedistributor(0, offset)).Add(Arm64Command.StoreRedistributor(0, offset, 0x5a5a_5a5a)).Add(Arm64Command.LoadRedistributor(0, offset));
        }

        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(script);
        results.Where(r => r.Index % 3 == 2).Select(r => r.Value).Should().Equal(results.Where(r => r.Index % 3 == 0).Select(r => r.Value));
    }

    [Fact]
    [Clause("arm-gicr/private-banks")]
    public async Task PrivateBanksBelongToOneVcpu()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(vcpus: 2);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Isenabler0, 0x0010_0000)).Add(Arm64Command.StoreRedistributor(1, Gicr.Icenabler0, 0x0000_0008))
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Igroupr0, 0xffef_ffff)).Add(Arm64Command.StoreRedistributor(1, Gicr.Isactiver0, 0x0020_0000))
            .Add(Arm64Command.StoreRedistributor(1, Gicr.Icactiver0, 0x0000_0001))
            .Add(Arm64Command.LoadRedistributor(1, Gicr.Isenabler0)).Add(Arm64Command.LoadRedistributor(1, Gicr.Igroupr0)).Add(Arm64Command.LoadRedistributor(1, Gicr.Isactiver0))
            .Add(Arm64Command.LoadRedistributor(0, Gicr.Isenabler0)).Add(Arm64Command.LoadRedistributor(0, Gicr.Igroupr0)).Add(Arm64Command.LoadRedistributor(0, Gicr.Isactiver0)));
        results.Skip(5).Select(r => r.Value).Should().Equal(0x0010_fff7, 0xffef_ffff, 0x0020_0000, 0xffff, 0xffff_ffff, 0);
    }

    [Theory]
    [InlineData(Gicr.Igroupr0, 0x8001_8001u)]
    [InlineData(Gicr.Isenabler0, 0x8001_ffffu)]
    [InlineData(Gicr.Ispendr0, 0x8001_8001u)]
    [InlineData(Gicr.Isactiver0, 0x8001_8001u)]
    [Clause("arm-gicr/private-banks")]
    public async Task FirstAndLastPrivateInterruptHaveTheirBits(uint offset, uint expected)
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(vcpus: 2);
        await vm.Gic.WriteRedistributorAsync(1, offset, 0x8001_8001);
        (await vm.Gic.ReadRedistributorAsync(1, offset)).Should().Be(expected);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.LoadRedistributor(1, offset)));
        results[0].Value.Should().Be(expected);
    }

    public static TheoryData<uint, ulong, ulong> BaseRegisters() => new()
    {
        // Outer shareable becomes inner; not cacheable and device become read-allocate, write-back; other outer attributes become same as inner.
        { Gicr.Propbaser, 0x4180_0000 | 13 | (2ul << 10), 0x4180_0000 | 13 | (1ul << 10) | ReadAllocateWriteBack },
        { Gicr.Propbaser, 0x4180_0000 | 15 | (1ul << 7), 0x4180_0000 | 15 | ReadAllocateWriteBack },
        { Gicr.Propbaser, 0x4180_0000 | (7ul << 7), 0x4180_0000 | (7ul << 7) },
        { Gicr.Propbaser, 0x4180_0000 | (5ul << 7) | (1ul << 56), 0x4180_0000 | (5ul << 7) | (1ul << 56) },
        { Gicr.Propbaser, 0x4180_0000 | (5ul << 7) | (6ul << 56), 0x4180_0000 | (5ul << 7) },
        { Gicr.Propbaser, 0xffff_ffff_ffff_ffff, 0x000f_ffff_ffff_ff9f },
        { Gicr.Pendbaser, 0x4180_0000 | (2ul << 10), 0x4180_0000 | (1ul << 10) | ReadAllocateWriteBack },
        { Gicr.Pendbaser, 0x4181_f07f, 0x4181_0000 | ReadAllocateWriteBack },
        { Gicr.Pendbaser, 0xffff_ffff_ffff_ffff, 0x000f_ffff_ffff_0f80 },
    };

    [Theory]
    [MemberData(nameof(BaseRegisters))]
    [Clause("arm-gicr/base-registers-are-sanitised")]
    public async Task BaseRegistersAreSanitised(uint offset, ulong written, ulong expected)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync(vcpus: 2);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(1, offset, written, AccessWidth.Qword))
            .Add(Arm64Command.LoadRedistributor(1, offset, AccessWidth.Qword))
            .Add(Arm64Command.LoadRedistributor(1, offset))
            .Add(Arm64Command.LoadRedistributor(1, offset + 4))
            .Add(Arm64Command.LoadRedistributor(0, offset, AccessWidth.Qword)));
        results[1].Value.Should().Be(expected);
        (results[2].Value | (results[3].Value << 32)).Should().Be(expected);
        results[4].Value.Should().Be(offset == Gicr.Propbaser ? expected : InnerShareable | ReadAllocateWriteBack, "PROPBASER is one for all, PENDBASER each its own");
    }

    [Theory]
    [InlineData(Gicr.Propbaser)]
    [InlineData(Gicr.Pendbaser)]
    [Clause("arm-gicr/halves")]
    public async Task HalvesAreWrittenOnTheirOwn(uint offset)
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(Arm64Command.StoreRedistributor(0, offset, 0x0002_0000_4180_0580 | (offset == Gicr.Propbaser ? 14ul : 0), AccessWidth.Qword))
            .Add(Arm64Command.StoreRedistributor(0, offset + 4, 0x3))
            .Add(Arm64Command.LoadRedistributor(0, offset, AccessWidth.Qword))
            .Add(Arm64Command.StoreRedistributor(0, offset, 0x4190_0580))
            .Add(Arm64Command.LoadRedistributor(0, offset, AccessWidth.Qword)));
        results[2].Value.Should().Be(0x0000_0003_4180_0580 | (offset == Gicr.Propbaser ? 14ul : 0));
        results[4].Value.Should().Be(0x0000_0003_4190_0580);
    }
}

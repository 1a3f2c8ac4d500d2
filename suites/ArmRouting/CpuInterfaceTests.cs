// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS: the CPU interface of a vCPU as user space writes and reads it.</summary>
public sealed class CpuInterfaceTests(KernelUnderTest kernel)
{
    private const ulong CommonBinaryPoint = 1;
    private const ulong SplitEoi = 2;

    // Fields of ICC_CTLR_EL1 and their lowest bit.
    private const int PriorityBits = 8;
    private const int IdBits = 11;
    private const int Seis = 14;
    private const int A3v = 15;

    // Not group 0 alone: such a guest does not come to run with 7.2 in QEMU 7.2.
    [Theory]
    [InlineData(0x50ul, 5ul, 4ul, 0ul, 1ul, SplitEoi)]
    [InlineData(0xa8ul, 3ul, 6ul, 0ul, 1ul, 0ul)]
    [InlineData(0xf8ul, 4ul, 5ul, 1ul, 1ul, CommonBinaryPoint)]
    [InlineData(0x08ul, 6ul, 7ul, 0ul, 0ul, CommonBinaryPoint | SplitEoi)]
    [Clause("arm-cpu-interface/as-written")]
    public async Task GuestFindsWhatUserSpaceWrote(ulong mask, ulong binaryPoint0, ulong binaryPoint1, ulong group0, ulong group1, ulong control)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        ulong fixedBits = await vm.Gic.ReadCpuRegisterAsync(1, IccRegister.Ctlr) & ~(CommonBinaryPoint | SplitEoi);
        (IccRegister Register, ulong Value)[] state =
        [
            (IccRegister.Pmr, mask), (IccRegister.Bpr0, binaryPoint0), (IccRegister.Bpr1, binaryPoint1), (IccRegister.Igrpen0, group0), (IccRegister.Igrpen1, group1),
            (IccRegister.Ctlr, fixedBits | control),
        ];
        ulong[] before = await ReadAsync(vm, 0, state);
        foreach ((IccRegister register, ulong value) in state)
        {
            await vm.Gic.WriteCpuRegisterAsync(1, register, value);
        }

        (await ReadAsync(vm, 1, state)).Should().Equal(state.Select(s => s.Value));
        (await ReadAsync(vm, 0, state)).Should().Equal(before, "the other vCPU's are its own");
        var script = new GuestScript();
        foreach ((IccRegister register, ulong _) in state)
        {
            script.Add(Arm64Command.Read(register));
        }

        (await vm.Vcpus[1].ExecuteAsync(script)).Select(r => r.Value).Should().Equal(state.Select(s => s.Value));
        (await ReadAsync(vm, 1, state)).Should().Equal(state.Select(s => s.Value), "it is the same after the vCPU ran");
    }

    [Fact]
    [Clause("arm-cpu-interface/starts-disabled")]
    public async Task VcpuThatNeverRanLetsNothingThrough()
    {
        await using Vm vm = await kernel.CreateBlankGicVmAsync(vcpus: 2);
        foreach (IccRegister register in new[] { IccRegister.Igrpen0, IccRegister.Igrpen1, IccRegister.Pmr, IccRegister.Ap0r0, IccRegister.Ap1r0 })
        {
            (await vm.Gic.ReadCpuRegisterAsync(1, register)).Should().Be(0, $"{register}");
        }

        (await vm.Gic.ReadCpuRegisterAsync(1, IccRegister.Ctlr) & (CommonBinaryPoint | SplitEoi)).Should().Be(0);
    }

    [Fact]
    [Clause("arm-cpu-interface/common-binary-point")]
    public async Task CommonBinaryPointHidesTheOther()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        ulong control = await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ctlr);
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Bpr0, 5);
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Bpr1, 4);
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Ctlr, control | CommonBinaryPoint);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Bpr1)).Should().Be(6, "it reads as the common one and 1");
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Bpr1, 7);
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Bpr0, 7);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Bpr1)).Should().Be(7, "at most");
        await vm.Gic.WriteCpuRegisterAsync(0, IccRegister.Ctlr, control);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Bpr1)).Should().Be(4);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Bpr0)).Should().Be(7);
    }

    [Fact]
    [Clause("arm-cpu-interface/control-fits-the-hardware")]
    public async Task ControlOfOtherHardwareIsRefused()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        ulong control = await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ctlr);
        foreach (ulong wrong in new[] { More(PriorityBits), More(IdBits), control ^ (1ul << Seis), control ^ (1ul << A3v) }.Where(w => w != control))
        {
            (await vm.Gic.TryWriteCpuRegisterAsync(0, IccRegister.Ctlr, wrong ^ SplitEoi)).Should().Be(Errno.EINVAL, $"0x{wrong:x}");
            (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ctlr)).Should().Be(control, $"after 0x{wrong:x}");
        }

        // One bit of INTIDs more, or of priorities: 3 bits each.
        ulong More(int field) => (control >> field & 7) == 7 ? control : control + (1ul << field);
    }

    [Fact]
    [Clause("arm-cpu-interface/control-fits-the-hardware")]
    public async Task FewerBitsThanTheHardwareHasAreKept()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        ulong control = await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ctlr);
        (control >> PriorityBits & 7).Should().BeGreaterThanOrEqualTo(4, "five bits of priority are the least");
        ulong fewer = control - (1ul << PriorityBits);
        (await vm.Gic.TryWriteCpuRegisterAsync(0, IccRegister.Ctlr, fewer)).Should().Be(Errno.None);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ctlr)).Should().Be(fewer);
        (await vm.Gic.TryWriteCpuRegisterAsync(0, IccRegister.Ctlr, control)).Should().Be(Errno.EINVAL, "what was given up does not come back");
    }

    [Fact]
    [Clause("arm-cpu-interface/active-priorities")]
    public async Task ActivePrioritiesOfTheGroupsAreApart()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Gic.WriteCpuRegisterAsync(1, IccRegister.Ap0r0, 0x10);
        await vm.Gic.WriteCpuRegisterAsync(1, IccRegister.Ap1r0, 0x200);
        (await vm.Gic.ReadCpuRegisterAsync(1, IccRegister.Ap0r0)).Should().Be(0x10);
        (await vm.Gic.ReadCpuRegisterAsync(1, IccRegister.Ap1r0)).Should().Be(0x200);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ap0r0)).Should().Be(0);
        // A second word of them comes with a sixth bit of priority.
        bool second = (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Ctlr) >> PriorityBits & 7) > 4;
        foreach (IccRegister register in new[] { IccRegister.Ap0r1, IccRegister.Ap1r1 })
        {
            (await vm.Gic.TryWriteCpuRegisterAsync(1, register, 0)).Should().Be(second ? Errno.None : Errno.EINVAL, $"{register}");
            (await vm.Gic.TryReadCpuRegisterAsync(1, register)).Error.Should().Be(second ? Errno.None : Errno.EINVAL, $"{register}");
        }
    }

    [Fact]
    [Clause("arm-cpu-interface/system-registers-stay-on")]
    public async Task SystemRegisterInterfaceCannotBeSwitchedOff()
    {
        await using Vm vm = await kernel.CreateGicVmAsync();
        ulong value = await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Sre);
        (value & 1).Should().Be(1);
        (await vm.Gic.TryWriteCpuRegisterAsync(0, IccRegister.Sre, value & ~1ul)).Should().Be(Errno.EINVAL);
        (await vm.Gic.TryWriteCpuRegisterAsync(0, IccRegister.Sre, value)).Should().Be(Errno.None);
        (await vm.Gic.ReadCpuRegisterAsync(0, IccRegister.Sre)).Should().Be(value);
    }

    private static async Task<ulong[]> ReadAsync(Vm vm, uint vcpuId, (IccRegister Register, ulong Value)[] state)
    {
        var values = new List<ulong>();
        foreach ((IccRegister register, ulong _) in state)
        {
            values.Add(await vm.Gic.ReadCpuRegisterAsync(vcpuId, register));
        }

        return [.. values];
    }
}

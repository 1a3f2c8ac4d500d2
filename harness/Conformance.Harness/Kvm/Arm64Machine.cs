// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Guests;
using Conformance.Uapi;
using Conformance.Wire;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.Kvm;

/// <summary>An arm64 board without devices: memory from 1 GiB, a GICv3, ITSs.</summary>
internal sealed class Arm64Machine : GuestMachine
{
    private const uint RunExitReason = 8;
    private const uint RunMmioAddress = 32;
    private const uint RunMmioData = 40;

    public override string ImageName => Arm64Layout.ImageName;

    public override ulong MemoryBase => Arm64Layout.Image;

    public override ulong ImageAddress => Arm64Layout.Image;

    public override ulong Area(int index) => Arm64Layout.Area(index);

    public override IReadOnlyList<VcpuRange> Ranges { get; } = [new(VcpuBase.Run, 0, kvm_run.HeadSize)];

    public override IReadOnlyList<VcpuCondition> CallOutConditions(uint value) =>
    [
        new(RunExitReason, 4, uint.MaxValue, (uint)KvmExit.KVM_EXIT_MMIO),
        new(RunMmioAddress, 8, ulong.MaxValue, GuestProtocol.CalloutAddress),
        new(RunMmioData, 4, uint.MaxValue, value),
    ];

    public override uint? CallOutOf(GuestExit exit) =>
        exit is { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_MMIO }
        && exit.Run is { mmio_phys_addr: GuestProtocol.CalloutAddress, mmio_is_write: 1, mmio_len: 4 }
            ? BinaryPrimitives.ReadUInt32LittleEndian(exit.Data.AsSpan((int)RunMmioData))
            : null;

    public override async Task CreateIrqchipAsync(Vm vm)
    {
        if (vm.Options.Irqchip == Irqchip.Full && !vm.Options.Bare)
        {
            await vm.CreateGicAsync();
        }
    }

    public override async Task InitialiseAsync(Vcpu vcpu)
    {
        await vcpu.InitialiseArm64Async();
        await vcpu.SetCoreRegisterAsync(CoreRegister.Pc, Arm64Layout.Entry);
        await vcpu.SetCoreRegisterAsync(CoreRegister.X0, Area(vcpu.Index));
        await vcpu.SetCoreRegisterAsync(CoreRegister.X1, (ulong)vcpu.Index);
    }

    public override async Task FinishAsync(Vm vm)
    {
        if (vm.Options.Irqchip == Irqchip.Full)
        {
            await vm.PlaceGicAsync();
        }
    }
}

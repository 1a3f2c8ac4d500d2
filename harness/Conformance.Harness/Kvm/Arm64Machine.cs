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

    public override Action<Vm> AskForIrqchip(CallBurst burst, FdArgument vm, VmOptions options)
    {
        if (options.Irqchip != Irqchip.Full || options.Bare)
        {
            return _ => { };
        }

        Task<CallResult> asked = burst.Ioctl("KVM_CREATE_DEVICE(KVM_DEV_TYPE_ARM_VGIC_V3)", vm, KvmIoctl.KVM_CREATE_DEVICE,
            KernelSession.Bytes(new kvm_create_device { type = KvmConst.KVM_DEV_TYPE_ARM_VGIC_V3 }), "vgic");
        return made => made.AdoptGic((int)KernelSession.Read<kvm_create_device>(asked.Result.Buffers[0]).fd);
    }

    public override Action<CallBurst> AskForStart(CallBurst burst, FdArgument vm, FdArgument vcpu, VmOptions options, int index, uint id)
    {
        Task<CallResult> asked = burst.Ioctl("KVM_ARM_PREFERRED_TARGET", vm, KvmArm64Ioctl.KVM_ARM_PREFERRED_TARGET, KernelSession.Bytes(default(kvm_vcpu_init)), "");
        return next =>
        {
            const uint Features = 1u << (int)KVM_ARM_VCPU_PSCI_0_2;
            next.Ioctl("KVM_ARM_VCPU_INIT", vcpu, KvmArm64Ioctl.KVM_ARM_VCPU_INIT, Vcpu.InitialisationOf(asked.Result.Buffers[0], Features), $"features 0x{Features:x}");
            foreach ((CoreRegister register, ulong value) in new[] { (CoreRegister.Pc, Arm64Layout.Entry), (CoreRegister.X0, Area(index)), (CoreRegister.X1, (ulong)index) })
            {
                next.Ask($"KVM_SET_ONE_REG({register})", Vcpu.SetRegisterCall(next.Call(vcpu, KvmIoctl.KVM_SET_ONE_REG, $"{register} = 0x{value:x}"), register.Id(), value), onlyZero: true);
            }
        };
    }

    public override async Task FinishAsync(Vm vm)
    {
        if (vm.Options.Irqchip == Irqchip.Full)
        {
            await vm.PlaceGicAsync();
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Guests;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>A PC without a chipset: memory from 0, local APICs, optionally PICs and an I/O APIC.</summary>
internal sealed class X86Machine(GuestLayout layout) : GuestMachine
{
    // KVM_PIO_PAGE_OFFSET is 1: port data is in the page behind the run structure.
    private const ulong PioPage = 4096;

    private byte[] _cpuid = [];

    public override string ImageName => layout.ImageName;

    public override ulong MemoryBase => 0;

    public override ulong ImageAddress => GuestLayout.Image;

    public override ulong Area(int index) => GuestLayout.Area(index);

    public override IReadOnlyList<VcpuRange> Ranges { get; } =
        [new(VcpuBase.Run, 0, kvm_run.HeadSize), new(VcpuBase.Run, PioPage, 8)];

    public override IReadOnlyList<VcpuCondition> CallOutConditions(uint value) =>
    [
        new(8, 4, uint.MaxValue, (uint)KvmExit.KVM_EXIT_IO),
        new(32, 4, uint.MaxValue, 1u | (4u << 8) | ((uint)GuestProtocol.CalloutPort << 16)),
        new((uint)PioPage, 4, uint.MaxValue, value),
    ];

    public override uint? CallOutOf(GuestExit exit) =>
        exit is { Error: Errno.None, Kicked: false, Reason: KvmExit.KVM_EXIT_IO }
        && exit.Run is { io_port: GuestProtocol.CalloutPort, io_direction: 1, io_size: 4 }
            ? (uint)exit.IoData
            : null;

    public override async Task PrepareAsync(KvmSystem system) => _cpuid = await system.SupportedCpuidAsync();

    public override Action<Vm> AskForIrqchip(CallBurst burst, FdArgument vm, VmOptions options)
    {
        switch (options.Irqchip)
        {
            case Irqchip.Full:
                burst.Ioctl("KVM_CREATE_IRQCHIP", vm, KvmIoctl.KVM_CREATE_IRQCHIP);
                break;
            case Irqchip.Split:
                AskForCap(burst, vm, KvmCap.SplitIrqchip, options.SplitIrqchipRoutes);
                break;
        }

        if (options.X2Apic32BitIds)
        {
            // KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK
            AskForCap(burst, vm, KvmCap.X2ApicApi, 3);
        }

        return _ => { };
    }

    public override Action<CallBurst> AskForStart(CallBurst burst, FdArgument vm, FdArgument vcpu, VmOptions options, int index, uint id)
    {
        byte[] cpuid = Cpuid(_cpuid, id);
        burst.Ioctl("KVM_SET_CPUID2", vcpu, KvmX86Ioctl.KVM_SET_CPUID2, cpuid, $"{(cpuid.Length - 8) / Marshal.SizeOf<kvm_cpuid_entry2>()} entries");
        Task<CallResult> asked = burst.Ioctl("KVM_GET_SREGS", vcpu, KvmX86Ioctl.KVM_GET_SREGS, KernelSession.Bytes(default(kvm_sregs)), "");
        return next =>
        {
            kvm_sregs special = KernelSession.Read<kvm_sregs>(asked.Result.Buffers[0]);
            kvm_regs registers = default;
            layout.Start(index, ref special, ref registers);
            next.Ioctl("KVM_SET_SREGS", vcpu, KvmX86Ioctl.KVM_SET_SREGS, KernelSession.Bytes(special), $"cr0 0x{special.cr0:x}");
            next.Ioctl("KVM_SET_REGS", vcpu, KvmX86Ioctl.KVM_SET_REGS, KernelSession.Bytes(registers), $"rip 0x{registers.rip:x}");
            // KVM_CREATE_VCPU leaves all but the boot vCPU waiting for an INIT that nobody sends here.
            if (options.Irqchip != Irqchip.None)
            {
                next.Ioctl("KVM_SET_MP_STATE(runnable)", vcpu, KvmIoctl.KVM_SET_MP_STATE,
                    KernelSession.Bytes(new kvm_mp_state { mp_state = KvmConst.KVM_MP_STATE_RUNNABLE }), $"{KvmConst.KVM_MP_STATE_RUNNABLE}");
            }
        };
    }
    private static void AskForCap(CallBurst burst, FdArgument vm, KvmCap cap, ulong argument) => burst.Ioctl(
        cap.CName(), vm, KvmIoctl.KVM_ENABLE_CAP, KernelSession.Bytes(new kvm_enable_cap { cap = (uint)cap, args = argument }), $"{cap.CName()}, 0x{argument:x}");

    private static byte[] Cpuid(byte[] supported, uint id)
    {
        byte[] table = [.. supported];
        foreach (ref kvm_cpuid_entry2 entry in MemoryMarshal.Cast<byte, kvm_cpuid_entry2>(table.AsSpan(8)))
        {
            switch (entry.function)
            {
                case 1:
                    entry.ebx = (entry.ebx & 0x00ffffff) | (id << 24);
                    // x2APIC and TSC deadline: KVM emulates them wherever the local APIC is its own.
                    entry.ecx |= (1u << 21) | (1u << 24);
                    break;
                case 0xb:
                    entry.edx = id;
                    break;
            }
        }

        return table;
    }
}

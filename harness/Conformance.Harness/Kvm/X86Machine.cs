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

    public override async Task CreateIrqchipAsync(Vm vm)
    {
        switch (vm.Options.Irqchip)
        {
            case Irqchip.Full:
                Vm.Expect((await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_CREATE_IRQCHIP)).Outcome, "KVM_CREATE_IRQCHIP");
                break;
            case Irqchip.Split:
                Vm.Expect(await vm.TryEnableCapAsync(KvmCap.SplitIrqchip, vm.Options.SplitIrqchipRoutes), "KVM_CAP_SPLIT_IRQCHIP");
                break;
        }

        if (vm.Options.X2Apic32BitIds)
        {
            // KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK
            Vm.Expect(await vm.TryEnableCapAsync(KvmCap.X2ApicApi, 3), "KVM_CAP_X2APIC_API");
        }
    }

    public override async Task InitialiseAsync(Vcpu vcpu)
    {
        await SetCpuidAsync(vcpu);
        kvm_sregs special = await vcpu.GetSpecialRegistersAsync();
        kvm_regs registers = default;
        layout.Start(vcpu.Index, ref special, ref registers);
        await vcpu.SetSpecialRegistersAsync(special);
        await vcpu.SetRegistersAsync(registers);
        // KVM_CREATE_VCPU leaves all but the boot vCPU waiting for an INIT that nobody sends here.
        if (vcpu.Vm.Options.Irqchip != Irqchip.None)
        {
            Vm.Expect(await vcpu.TrySetMpStateAsync(KvmConst.KVM_MP_STATE_RUNNABLE), "KVM_SET_MP_STATE(runnable)");
        }
    }

    private static async Task SetCpuidAsync(Vcpu vcpu)
    {
        byte[] supported = [.. await vcpu.Vm.System.SupportedCpuidAsync()];
        Span<kvm_cpuid_entry2> entries = MemoryMarshal.Cast<byte, kvm_cpuid_entry2>(supported.AsSpan(8));
        foreach (ref kvm_cpuid_entry2 entry in entries)
        {
            switch (entry.function)
            {
                case 1:
                    entry.ebx = (entry.ebx & 0x00ffffff) | (vcpu.Id << 24);
                    // x2APIC and TSC deadline: KVM emulates them wherever the local APIC is its own.
                    entry.ecx |= (1u << 21) | (1u << 24);
                    break;
                case 0xb:
                    entry.edx = vcpu.Id;
                    break;
            }
        }

        int count = entries.Length;
        Vm.Expect((await vcpu.Vm.Session.IoctlAsync(vcpu.Fd, KvmX86Ioctl.KVM_SET_CPUID2, supported, $"{count} entries")).Outcome, "KVM_SET_CPUID2");
    }
}

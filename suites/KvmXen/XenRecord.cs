// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>One vCPU's Xen attributes. An HVA is told relative to guest memory, which a new VM has elsewhere.</summary>
internal sealed record XenVcpuRecord(
    ulong VcpuInfo, ulong VcpuInfoHva, ulong TimeInfo, ulong? RunstateAddress, XenRunstate Runstate, uint VcpuId, XenTimer Timer, byte UpcallVector);

/// <summary>Everything of Xen that a VMM saves.</summary>
internal sealed record XenRecord(
    ulong Clock, byte LongMode, ulong SharedInfo, ulong SharedInfoHva, byte UpcallVector, uint XenVersion, byte RunstateUpdateFlag, IReadOnlyList<XenVcpuRecord> Vcpus)
{
    private static ulong Offset(Vm vm, ulong hva) => hva == 0 ? 0 : hva - vm.Memory.Address;

    private static ulong Address(Vm vm, ulong offset) => vm.Memory.Address + offset;

    /// <summary>Timers first: reading one may deliver its event, which everything else then has to show.</summary>
    public static async Task<XenRecord> SaveAsync(XenDomain domain)
    {
        Vm vm = domain.Vm;
        var vcpus = new List<XenVcpuRecord>();
        ulong clock = (await vm.GetClockAsync()).Clock;
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            XenTimer timer = await vm.Xen.GetTimerAsync(vcpu);
            (Errno error, kvm_xen_vcpu_attr runstate) = await vm.Xen.TryGetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR);
            vcpus.Add(new XenVcpuRecord(
                (await vm.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO)).gpa,
                Offset(vm, (await vm.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA)).hva),
                (await vm.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO)).gpa,
                error == Errno.ENOENT ? null : runstate.gpa,
                await vm.Xen.GetRunstateAsync(vcpu),
                (await vm.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID)).vcpu_id,
                timer,
                (await vm.Xen.GetAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR)).vector));
        }

        return new XenRecord(
            clock,
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_LONG_MODE)).long_mode,
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_SHARED_INFO)).shared_info_gfn,
            Offset(vm, (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA)).shared_info_hva),
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR)).vector,
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_XEN_VERSION)).xen_version,
            (await vm.Xen.GetAsync(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG)).runstate_update_flag,
            vcpus);
    }

    public async Task RestoreVmAsync(Vm vm)
    {
        XenDomain.Expect(await vm.Xen.TrySetLongModeAsync(LongMode), "LONG_MODE");
        if (SharedInfoHva != 0)
        {
            await vm.Xen.SetSharedInfoHvaAsync(Address(vm, SharedInfoHva));
        }
        else
        {
            XenDomain.Expect(await vm.Xen.TrySetSharedInfoAsync(SharedInfo), "SHARED_INFO");
        }

        XenDomain.Expect(await vm.Xen.TrySetUpcallVectorAsync(UpcallVector), "UPCALL_VECTOR");
        XenDomain.Expect(await vm.Xen.TrySetXenVersionAsync(XenVersion), "XEN_VERSION");
        XenDomain.Expect(await vm.Xen.TrySetRunstateUpdateFlagAsync(RunstateUpdateFlag), "RUNSTATE_UPDATE_FLAG");
    }

    public async Task RestoreVcpuAsync(Vcpu vcpu)
    {
        XenVcpuRecord record = Vcpus[vcpu.Index];
        XenHvm xen = vcpu.Vm.Xen;
        XenDomain.Expect(record.VcpuInfoHva != 0
            ? await xen.TrySetVcpuInfoHvaAsync(vcpu, Address(vcpu.Vm, record.VcpuInfoHva))
            : await xen.TrySetVcpuInfoAsync(vcpu, record.VcpuInfo), "VCPU_INFO");
        XenDomain.Expect(await xen.TrySetTimeInfoAsync(vcpu, record.TimeInfo), "VCPU_TIME_INFO");
        XenDomain.Expect(await xen.TrySetRunstateAsync(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA, record.Runstate), "RUNSTATE_DATA");
        XenDomain.Expect(await xen.TrySetRunstateAddressAsync(vcpu, record.RunstateAddress ?? KVM_XEN_INVALID_GPA), "RUNSTATE_ADDR");
        XenDomain.Expect(await xen.TrySetVcpuIdAsync(vcpu, record.VcpuId), "VCPU_ID");
        XenDomain.Expect(await xen.TrySetTimerAsync(vcpu, record.Timer), "TIMER");
        XenDomain.Expect(await xen.TrySetVcpuUpcallVectorAsync(vcpu, record.UpcallVector), "UPCALL_VECTOR");
    }

    /// <summary>Copies what a guest uses of its memory, at native speed.</summary>
    public static async Task CopyMemoryAsync(Vm from, Vm to)
    {
        (ulong Start, ulong End)[] regions =
        [
            (GuestLayout.TestPages, GuestLayout.TestPagesEnd),
            (GuestLayout.Image, GuestLayout.Image + 0x20000),
            (GuestLayout.Areas, GuestLayout.Area(from.Vcpus.Count)),
        ];
        var program = new AgentProgram("move guest memory");
        ProgramThread thread = program.Thread();
        foreach ((ulong start, ulong end) in regions)
        {
            thread.Copy(to.Memory.Address + start, from.Memory.Address + start, end - start);
        }

        await from.Session.Agent.RunProgramAsync(program);
    }
}

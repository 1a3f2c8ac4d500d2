// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>KVM_GET_LAPIC and KVM_SET_LAPIC, as far as interrupts depend on them.</summary>
public sealed class LapicStateTests(KernelUnderTest kernel)
{
    [Fact]
    [Clause("lapic-state/round-trip")]
    public async Task RegistersAreGotAsTheyWereSet()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        LapicState state = await vcpu.ReadLapicAsync();
        state[LapicState.SpuriousVector] = 0x1e7;
        state[LapicState.LogicalDestination] = 0x5a000000;
        state[LapicState.DestinationFormat] = LapicState.ClusterModel;
        state[LapicState.TaskPriority] = 0x30;
        foreach (byte vector in new byte[] { 0x21, 0x3f, 0x40, 0x7f, 0x80, 0xff })
        {
            state.SetVector(LapicState.Request, new ApicVector(vector));
            state.SetVector(LapicState.InService, new ApicVector((byte)(vector ^ 0x10)));
            state.SetVector(LapicState.TriggerMode, new ApicVector((byte)(vector ^ 0x08)));
        }

        await vcpu.WriteLapicAsync(state);

        LapicState read = await vcpu.ReadLapicAsync();
        foreach (int register in new[] { LapicState.SpuriousVector, LapicState.LogicalDestination, LapicState.DestinationFormat, LapicState.TaskPriority })
        {
            read[register].Should().Be(state[register], "register 0x{0:x}", register);
        }

        foreach (int bank in new[] { LapicState.Request, LapicState.InService, LapicState.TriggerMode })
        {
            read.Vectors(bank).Should().Equal(state.Vectors(bank));
        }
    }

    [Fact]
    [Clause("lapic-state/pending-is-taken")]
    [Clause("lapic-state/in-service-holds-back")]
    public async Task RestoredRequestsAreTakenOnceAndByPriority()
    {
        await kernel.RequireInServiceAsync();
        await using Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        await vm.BootAsync();
        await vcpu.UpdateLapicAsync(l =>
        {
            l.SetVector(LapicState.InService, Vectors.B);
            foreach (ApicVector vector in new[] { Vectors.A, new ApicVector(0x5f), Vectors.C, Vectors.D })
            {
                l.SetVector(LapicState.Request, vector);
            }
        });

        (await vm.TakeAsync()).Should().Be("0x74 0x63", "0x5f is of the class in service");
        await vcpu.AcknowledgeAsync();
        (await vm.TakeAsync()).Should().Be("0x5f 0x41");
        (await vm.TakeAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("lapic-state/destinations-follow")]
    public async Task RestoredIdIsWhereInterruptsGo()
    {
        await using Vm vm = await kernel.CreateVmAsync(2);
        await vm.EnableLocalApicsAsync();
        await vm.Vcpus[1].UpdateLapicAsync(l => l[LapicState.Id] = 0x33000000);

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0x33, Vectors.A))).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("- | 0x41");
        (await vm.SignalMsiAsync(MsiMessage.Fixed(1, Vectors.B))).Should().Be(0);
        (await vm.PendingAsync()).Should().Be("- | 0x41");
    }

    [Fact]
    [Clause("lapic-state/x2apic-id")]
    public async Task X2ApicIdIsTheVcpusOwn()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 2, VcpuIds = [0, 0x123], X2Apic32BitIds = true });
        Vcpu vcpu = vm.Vcpus[1];
        await vcpu.EnterX2ApicAsync();
        LapicState state = await vcpu.ReadLapicAsync();
        state[LapicState.Id].Should().Be(0x123);

        state[LapicState.Id] = 0x124;
        (await vcpu.TrySetLapicAsync(state.Registers)).Should().Be(Errno.EINVAL);
        state[LapicState.Id] = 0x123;
        (await vcpu.TrySetLapicAsync(state.Registers)).Should().Be(Errno.None);
    }

    [Fact]
    [Clause("lapic-state/round-trip")]
    public async Task WithoutALocalApicInTheKernelThereIsNone()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.None });

        (await vm.Vcpus[0].TrySetLapicAsync(new byte[1024])).Should().Be(Errno.EINVAL);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.KvmXen;

/// <summary>A vCPU's own upcall vector, through its local APIC.</summary>
public sealed class VcpuUpcallVectorTests(KernelUnderTest kernel)
{
    private static readonly XenDomainOptions Own = XenDomainOptions.Default with { Upcall = UpcallPath.VcpuVector };

    [Theory]
    [InlineData(XenAbi.Bits64, VcpuState.Halted)]
    [InlineData(XenAbi.Bits64, VcpuState.Running)]
    [InlineData(XenAbi.Bits32, VcpuState.Halted)]
    [InlineData(XenAbi.Bits32, VcpuState.Running)]
    [Clause("kvm-xen/upcall/vcpu-vector/delivers-once")]
    [Clause("kvm-xen/upcall/wakes")]
    public async Task SentEventInterruptsOnce(XenAbi abi, VcpuState state)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own with { Abi = abi });

        (await domain.ObserveAsync(state, () => domain.Xen.SendAsync(66))).Should().Equal(domain.Delivered(66));
    }

    [Theory]
    [InlineData(XenAbi.Bits64)]
    [InlineData(XenAbi.Bits32)]
    [Clause("kvm-xen/upcall/vcpu-vector/local-apic-enabled-later")]
    [FixedBy("8e62bf2bfa46367e14d0ffdcde5aada08759497c", "KVM: x86/xen: inject vCPU upcall vector when local APIC is enabled")]
    public async Task EventBeforeTheLocalApicIsEnabledInterruptsOnceItIs(XenAbi abi)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own with { Abi = abi });

        // Every VMM restores or resets the local APIC before the first run. Without that the vCPU is not in KVM's map of destinations
        // until after the upcall is looked for, and it is lost.
        XenDomain.Expect(await domain.Vcpu.TrySetLapicAsync(await domain.Vcpu.GetLapicAsync()), "KVM_SET_LAPIC");

        // The guest's first command enables its local APIC, which was disabled when the event came.
        (await domain.ObserveAsync(VcpuState.NotYetRun, () => domain.Xen.SendAsync(66))).Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/upcall/vcpu-vector/local-apic-enabled-later")]
    public async Task EnablingTheLocalApicWithNothingPendingDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own);

        (await domain.ObserveNothingAsync(VcpuState.NotYetRun, () => Task.CompletedTask)).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/vcpu-vector/destination")]
    public async Task EventInterruptsItsVcpuAndNoOther()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own with { Vcpus = 3, VcpuIds = [0, 5, 1] });
        for (int vcpu = 0; vcpu < 3; vcpu++)
        {
            await domain.HaltAsync(vcpu);
        }

        await domain.Xen.SendAsync(66, 5);
        await domain.Vcpus[1].WaitForNotifyAsync();
        await domain.Xen.SendAsync(130, 1);
        await domain.Vcpus[2].WaitForNotifyAsync();

        (await domain.FenceAsync(1)).Should().Equal(domain.Delivered(66));
        (await domain.FenceAsync(2)).Should().Equal(domain.Delivered(130));
        (await domain.FenceAsync(0)).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/vcpu-vector/vector")]
    public async Task EachVcpuHasAVectorOfItsOwn()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, XenDomainOptions.Default with { Vcpus = 2, Upcall = UpcallPath.None });
        ApicVector[] vectors = [new(0x61), new(0x72)];
        for (int vcpu = 0; vcpu < 2; vcpu++)
        {
            await domain.Xen.SetVcpuUpcallVectorAsync(domain.Vcpus[vcpu], vectors[vcpu]);
            await domain.SetUpcallHandlerAsync(vcpu, new HandlerPolicy { Notify = true, Actions = [domain.UpcallAction(vcpu)] }, vectors[vcpu]);
        }

        for (int vcpu = 0; vcpu < 2; vcpu++)
        {
            uint id = (uint)vcpu;
            (await domain.ObserveAsync(VcpuState.Halted, () => domain.Xen.SendAsync(5, id), vcpu)).Should().Equal(
                $"taken {vectors[vcpu]}", "upcall pending 1 mask 0 selector 0x1", "port 5 pending (word 0x20)", $"taken {XenDomain.Fence}");
        }
    }

    [Fact]
    [Clause("kvm-xen/upcall/vcpu-vector/needs-eoi")]
    public async Task NextEventWaitsForTheAcknowledgement()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own);
        await domain.SetUpcallHandlerAsync(0, new HandlerPolicy { Acknowledge = Acknowledgement.Never, Actions = [domain.UpcallAction(0)] });
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));
        await domain.Xen.SendAsync(66);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.InterruptsOn).Add(GuestCommand.Nop));
        await domain.Xen.SendAsync(67);

        await domain.Vcpu.StartAsync(domain.Script()
            .Add(GuestCommand.InterruptsOn)
            .Add(GuestCommand.Nop)
            .Add(GuestCommand.Mark(1))
            .Add(GuestCommand.Eoi)
            .Add(GuestCommand.Nop)
            .Add(GuestCommand.Eoi)
            .Add(domain.HaltUntilFence()));
        await domain.Vcpu.WaitUntilHaltingAsync();

        (await domain.FenceAsync()).Should().Equal([.. domain.Upcalled(66), "mark 0x1 0x0", .. domain.Delivered(67)]);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/selector-already-set")]
    public async Task EventInASelectedWordDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own);

        IReadOnlyList<string> log = await domain.ObserveNothingAsync(VcpuState.Halted, async () =>
        {
            await domain.VcpuInfo.SetSelectorAsync(2);
            await domain.Xen.SendAsync(66);
        });

        log.Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/evtchn/masked")]
    public async Task MaskedEventDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own);
        await domain.SharedInfo.MaskAsync(66);

        (await domain.ObserveNothingAsync(VcpuState.Halted, () => domain.Xen.SendAsync(66))).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/vcpu-vector/edge")]
    public async Task FlagThatUserSpaceSetDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own);
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.Nop));

        (await domain.ObserveNothingAsync(VcpuState.NotYetRun, () => domain.VcpuInfo.SetUpcallPendingAsync(1))).Should().Equal(XenDomain.NothingDelivered);
    }

    [Fact]
    [Clause("kvm-xen/upcall/disable")]
    public async Task ZeroVectorDoesNotInterrupt()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own);
        await domain.Xen.SetVcpuUpcallVectorAsync(domain.Vcpu, new ApicVector(0));

        (await domain.ObserveNothingAsync(VcpuState.Halted, () => domain.Xen.SendAsync(66))).Should().Equal(XenDomain.NothingDelivered);
        (await domain.VcpuInfo.ReadAsync()).UpcallPending.Should().Be(1);
    }

    [Theory]
    [InlineData(XenAbi.Bits64, VcpuState.Halted)]
    [InlineData(XenAbi.Bits64, VcpuState.Running)]
    [InlineData(XenAbi.Bits32, VcpuState.Halted)]
    [Clause("kvm-xen/upcall/stale-translation")]
    public async Task EventAfterAMemslotChangeInterruptsOnce(XenAbi abi, VcpuState state)
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel, Own with { Abi = abi });

        IReadOnlyList<string> log = await domain.ObserveAsync(state, async () =>
        {
            await domain.MakeTranslationsStaleAsync();
            await domain.Xen.SendAsync(66);
        });

        log.Should().Equal(domain.Delivered(66));
    }
}

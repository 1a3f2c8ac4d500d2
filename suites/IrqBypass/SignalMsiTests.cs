// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>Where a message goes and what the kernel says of it; seen in the local APICs, no guest runs.</summary>
public sealed class SignalMsiTests(KernelUnderTest kernel)
{
    private static readonly ApicVector Vector = Vectors.A;

    private async Task<Vm> CreateAsync(int vcpus = 3)
    {
        Vm vm = await kernel.CreateVmAsync(vcpus);
        await vm.EnableLocalApicsAsync();
        return vm;
    }

    private Task<Vm> CreateLogicalAsync(uint model, params byte[] logicalIds) => CreateLogicalAsync(VmOptions.Default with { Vcpus = logicalIds.Length }, model, logicalIds);

    private async Task<Vm> CreateLogicalAsync(VmOptions options, uint model, params byte[] logicalIds)
    {
        Vm vm = await kernel.CreateVmAsync(options);
        for (int i = 0; i < logicalIds.Length; i++)
        {
            uint id = (uint)logicalIds[i] << 24;
            await vm.Vcpus[i].UpdateLapicAsync(l =>
            {
                l[LapicState.SpuriousVector] = LapicState.SoftwareEnable;
                l[LapicState.DestinationFormat] = model;
                l[LapicState.LogicalDestination] = id;
            });
        }

        return vm;
    }

    private async Task RequireVectorHashingAsync()
    {
        KvmSystem kvm = await kernel.OpenKvmAsync();
        string value = (await kvm.Session.ReadFileAsync("/sys/module/kvm/parameters/vector_hashing") ?? "absent").Trim();
        Skipping.UnlessCapability(value == "Y", "vector hashing", $"kvm.vector_hashing = {value}");
    }

    [Fact]
    [Clause("kvm-signal-msi/needs-an-irqchip")]
    public async Task WithoutAnIrqchipItIsInvalid()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true, Irqchip = Irqchip.None });

        IoctlAnswer answer = await vm.TrySignalMsiAsync(MsiMessage.Fixed(0, Vector));

        answer.Error.Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("kvm-signal-msi/flags")]
    public async Task FlagsOtherThanValidDevidAreInvalidAndDeliverNothing()
    {
        await using Vm vm = await CreateAsync(1);
        foreach (uint flags in new uint[] { 2, 3, 4, 0x80000000, uint.MaxValue })
        {
            (await vm.TrySignalMsiAsync(new kvm_msi { address_lo = 0xfee00000, data = Vector.Value, flags = flags }, $"flags 0x{flags:x}"))
                .Error.Should().Be(Errno.EINVAL, "of flags 0x{0:x}", flags);
        }

        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("kvm-signal-msi/flags")]
    [Clause("kvm-signal-msi/padding")]
    public async Task DeviceIdAndPaddingAreIgnored()
    {
        await using Vm vm = await CreateAsync(1);
        byte[] message = new byte[32];
        message.AsSpan(16).Fill(0xee);
        BitConverter.TryWriteBytes(message, 0xfee00000u);
        BitConverter.TryWriteBytes(message.AsSpan(8), (uint)Vector.Value);
        BitConverter.TryWriteBytes(message.AsSpan(12), KvmConst.KVM_MSI_VALID_DEVID);

        IoctlAnswer answer = await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_SIGNAL_MSI, message, "device id and padding 0xee");

        answer.Error.Should().Be(Errno.None);
        answer.Result.Should().Be(1);
        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-signal-msi/unreadable")]
    public async Task UnreadableArgumentFaults()
    {
        await using Vm vm = await CreateAsync(1);

        IoctlAnswer answer = await vm.Session.IoctlAsync(vm.Fd, KvmIoctl.KVM_SIGNAL_MSI, 8);

        answer.Error.Should().Be(Errno.EFAULT);
    }

    [Fact]
    [Clause("kvm-signal-msi/no-vcpu")]
    public async Task WithoutAVcpuItIsNotPermitted()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Bare = true });

        IoctlAnswer answer = await vm.TrySignalMsiAsync(MsiMessage.Fixed(0, Vector));

        answer.Error.Should().Be(Errno.EPERM);
    }

    [Fact]
    [Clause("kvm-signal-msi/split-irqchip")]
    public async Task SplitIrqchipDelivers()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Irqchip = Irqchip.Split, Vcpus = 2 });
        await vm.EnableLocalApicsAsync();

        (await vm.SignalMsiAsync(MsiMessage.Fixed(1, Vector))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be("- | 0x41");
    }

    [Theory]
    [InlineData(0, "0x41 | - | -")]
    [InlineData(1, "- | 0x41 | -")]
    [InlineData(2, "- | - | 0x41")]
    [Clause("kvm-signal-msi/physical-destination")]
    [Clause("kvm-signal-msi/returns-the-number-of-takers")]
    public async Task PhysicalDestinationAloneTakesIt(uint destination, string pending)
    {
        await using Vm vm = await CreateAsync();

        (await vm.SignalMsiAsync(MsiMessage.Fixed(destination, Vector))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Theory]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(0x7f)]
    [InlineData(0xfe)]
    [Clause("kvm-signal-msi/returns-the-number-of-takers")]
    public async Task AbsentDestinationTakesNothing(uint destination)
    {
        await using Vm vm = await CreateAsync();

        (await vm.SignalMsiAsync(MsiMessage.Fixed(destination, Vector))).Should().Be(0);

        (await vm.PendingAsync()).Should().Be("- | - | -");
    }

    [Fact]
    [Clause("kvm-signal-msi/returns-the-number-of-takers")]
    [Clause("lapic-state/software-disabled")]
    public async Task SoftwareDisabledLocalApicTakesNoFixedInterruptButAnNmi()
    {
        await using Vm vm = await CreateAsync(1);
        await vm.Vcpus[0].UpdateLapicAsync(l => l[LapicState.SpuriousVector] = 0xff);

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vector))).Should().Be(0);
        (await vm.PendingAsync()).Should().Be("-");
        (await vm.SignalMsiAsync(MsiMessage.Nmi(0))).Should().Be(1);
        (await vm.Vcpus[0].GetEventsAsync()).nmi_pending.Should().Be(1);
    }

    [Fact]
    [Clause("kvm-signal-msi/returns-the-number-of-takers")]
    [Clause("lapic-state/disabled")]
    public async Task LocalApicThatItsBaseDisablesIsNoDestination()
    {
        await using Vm vm = await CreateAsync(2);
        await DisableAsync(vm.Vcpus[1]);

        (await vm.SignalMsiAsync(MsiMessage.Fixed(1, Vector))).Should().Be(0);
        (await vm.SignalMsiAsync(MsiMessage.Fixed(0xff, Vector))).Should().Be(1);
        (await vm.SignalMsiAsync(MsiMessage.Nmi(0xff))).Should().Be(1);
        (await vm.PendingAsync()).Should().Be("0x41 | -");
        (await vm.Vcpus[0].GetEventsAsync()).nmi_pending.Should().Be(1);
        (await vm.Vcpus[1].GetEventsAsync()).nmi_pending.Should().Be(0);
        await DisableAsync(vm.Vcpus[0]);
        (await vm.TrySignalMsiAsync(MsiMessage.Fixed(0xff, Vector))).Error.Should().Be(Errno.EPERM, "it is as without a vCPU");
    }

    private static async Task GoesToOneAsync(Vm vm, byte destinations, byte vector, string pending)
    {
        (await vm.SignalMsiAsync(MsiMessage.X86(destinations, new ApicVector(vector), ApicDeliveryMode.LowestPriority, logical: true))).Should().Be(1);
        (await vm.PendingAsync()).Should().Be(pending);
    }

    private static async Task DisableAsync(Vcpu vcpu)
    {
        kvm_sregs special = await vcpu.GetSpecialRegistersAsync();
        special.apic_base &= ~(1ul << 11);
        await vcpu.SetSpecialRegistersAsync(special);
    }

    [Fact]
    [Clause("kvm-signal-msi/pending-already")]
    public async Task PendingVectorStillCountsItsTaker()
    {
        await using Vm vm = await CreateAsync(1);

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vector))).Should().Be(1);
        (await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vector))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Fact]
    [Clause("kvm-signal-msi/vector")]
    public async Task EveryVectorIsItsOwn()
    {
        await using Vm vm = await CreateAsync(1);
        for (int vector = 16; vector < 256; vector++)
        {
            (await vm.SignalMsiAsync(MsiMessage.Fixed(0, new ApicVector((byte)vector)))).Should().Be(1);
            LapicState lapic = await vm.Vcpus[0].ReadLapicAsync();
            lapic.Vectors(LapicState.Request).Should().HaveCount(vector - 15).And.EndWith(new ApicVector((byte)vector));
        }
    }

    [Fact]
    [Clause("kvm-signal-msi/low-vectors")]
    public async Task VectorsBelowSixteenAreAccepted()
    {
        await using Vm vm = await CreateAsync(1);

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0, new ApicVector(15)))).Should().Be(1);
        (await vm.SignalMsiAsync(MsiMessage.Fixed(0, new ApicVector(0)))).Should().Be(1);
    }

    [Theory]
    [InlineData(ApicDeliveryMode.Fixed)]
    [InlineData(ApicDeliveryMode.LowestPriority)]
    [Clause("kvm-signal-msi/physical-broadcast")]
    public async Task PhysicalBroadcastIsForEveryProcessor(ApicDeliveryMode mode)
    {
        await using Vm vm = await CreateAsync();

        (await vm.SignalMsiAsync(MsiMessage.X86(0xff, Vector, mode))).Should().Be(3);

        (await vm.PendingAsync()).Should().Be("0x41 | 0x41 | 0x41");
    }

    [Fact]
    [Clause("kvm-signal-msi/physical-broadcast")]
    public async Task BroadcastCountsOnlyThoseWhoTookIt()
    {
        await using Vm vm = await CreateAsync();
        await vm.Vcpus[1].UpdateLapicAsync(l => l[LapicState.SpuriousVector] = 0xff);

        (await vm.SignalMsiAsync(MsiMessage.X86(0xff, Vector))).Should().Be(2);

        (await vm.PendingAsync()).Should().Be("0x41 | - | 0x41");
    }

    [Theory]
    [InlineData(0x01, "0x41 | - | -")]
    [InlineData(0x02, "- | 0x41 | -")]
    [InlineData(0x04, "- | - | 0x41")]
    [InlineData(0x05, "0x41 | - | 0x41")]
    [InlineData(0x07, "0x41 | 0x41 | 0x41")]
    [InlineData(0xfa, "- | 0x41 | -")]
    [InlineData(0x08, "- | - | -")]
    [InlineData(0x00, "- | - | -")]
    [InlineData(0xff, "0x41 | 0x41 | 0x41")]
    [Clause("kvm-signal-msi/logical-flat")]
    [Clause("lapic-state/destinations-follow")]
    public async Task FlatLogicalDestinationIsASetOfProcessors(byte destination, string pending)
    {
        await using Vm vm = await CreateLogicalAsync(LapicState.FlatModel, 0x01, 0x02, 0x04);

        long takers = await vm.SignalMsiAsync(MsiMessage.X86(destination, Vector, logical: true));

        (await vm.PendingAsync()).Should().Be(pending);
        takers.Should().Be(pending.Count(c => c == 'x'));
    }

    [Theory]
    [InlineData(0x11, "0x41 | - | -")]
    [InlineData(0x13, "0x41 | 0x41 | -")]
    [InlineData(0x21, "- | - | 0x41")]
    [InlineData(0x22, "- | - | -")]
    [InlineData(0x31, "- | - | -")]
    [InlineData(0x1f, "0x41 | 0x41 | -")]
    [InlineData(0xff, "0x41 | 0x41 | 0x41")]
    [Clause("kvm-signal-msi/logical-cluster")]
    public async Task ClusterLogicalDestinationNamesAClusterAndItsMembers(byte destination, string pending)
    {
        await using Vm vm = await CreateLogicalAsync(LapicState.ClusterModel, 0x11, 0x12, 0x21);

        long takers = await vm.SignalMsiAsync(MsiMessage.X86(destination, Vector, logical: true));

        (await vm.PendingAsync()).Should().Be(pending);
        takers.Should().Be(pending.Count(c => c == 'x'));
    }

    [Fact]
    [Clause("kvm-signal-msi/logical-flat")]
    public async Task LocalApicsInDifferentModelsMatchEachByItsOwn()
    {
        await using Vm vm = await CreateLogicalAsync(LapicState.FlatModel, 0x01, 0x02);
        await vm.Vcpus[1].UpdateLapicAsync(l =>
        {
            l[LapicState.DestinationFormat] = LapicState.ClusterModel;
            l[LapicState.LogicalDestination] = 0x31u << 24;
        });

        (await vm.SignalMsiAsync(MsiMessage.X86(0x01, Vector, logical: true))).Should().Be(1);
        (await vm.DrainPendingAsync()).Should().Be("0x41 | -");
        (await vm.SignalMsiAsync(MsiMessage.X86(0x31, Vectors.B, logical: true))).Should().Be(2);
        (await vm.PendingAsync()).Should().Be("0x52 | 0x52");
    }

    [Theory]
    [InlineData(0x01, "0x41 | - | -")]
    [InlineData(0x06, "- | 0x41 | 0x41")]
    [InlineData(0x08, "- | - | -")]
    [Clause("kvm-signal-msi/logical-x2apic")]
    public async Task X2ApicLogicalDestinationIsASetWithinItsCluster(byte destination, string pending)
    {
        await using Vm vm = await CreateAsync();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.EnterX2ApicAsync();
        }

        await vm.SignalMsiAsync(MsiMessage.X86(destination, Vector, logical: true));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Theory]
    [InlineData(0x40, "- | 0x40 | -")]
    [InlineData(0x41, "- | - | 0x41")]
    [InlineData(0x42, "0x42 | - | -")]
    [InlineData(0xff, "0xff | - | -")]
    [Clause("kvm-signal-msi/lowest-priority")]
    public async Task LowestPriorityGoesToTheProcessorTheVectorSelects(byte vector, string pending)
    {
        await RequireVectorHashingAsync();
        await using Vm vm = await CreateLogicalAsync(LapicState.FlatModel, 0x01, 0x02, 0x04);

        await GoesToOneAsync(vm, 0x07, vector, pending);
    }

    [Theory]
    [InlineData(0x07, 0x40, "- | 0x40 | -")]
    [InlineData(0x07, 0x42, "0x42 | - | -")]
    [InlineData(0xff, 0x40, "- | 0x40 | -")]
    [InlineData(0xff, 0x41, "- | - | 0x41")]
    [InlineData(0xff, 0x42, "0x42 | - | -")]
    [Clause("kvm-signal-msi/lowest-priority")]
    public async Task LowestPriorityCountsProcessorsAndNotTheirIds(byte destination, byte vector, string pending)
    {
        await RequireVectorHashingAsync();
        await using Vm vm = await CreateLogicalAsync(VmOptions.Default with { Vcpus = 3, VcpuIds = [9, 1, 5] }, LapicState.FlatModel, 0x01, 0x02, 0x04);

        await GoesToOneAsync(vm, destination, vector, pending);
    }

    [Theory]
    [InlineData(0x40, "0x40 | - | -")]
    [InlineData(0x41, "- | - | 0x41")]
    [Clause("kvm-signal-msi/lowest-priority")]
    public async Task LowestPriorityChoosesAmongTheNamedOnly(byte vector, string pending)
    {
        await RequireVectorHashingAsync();
        await using Vm vm = await CreateLogicalAsync(LapicState.FlatModel, 0x01, 0x02, 0x04);

        await GoesToOneAsync(vm, 0x05, vector, pending);
    }

    [Theory]
    [InlineData(0x40, "0x40 | - | - | -")]
    [InlineData(0x41, "- | - | 0x41 | -")]
    [InlineData(0x43, "- | - | 0x43 | -")]
    [Clause("kvm-signal-msi/lowest-priority-skips-disabled")]
    public async Task LowestPriorityBroadcastCountsOnlyEnabledLocalApics(byte vector, string pending)
    {
        await RequireVectorHashingAsync();
        await using Vm vm = await CreateLogicalAsync(LapicState.FlatModel, 0x01, 0x02, 0x04, 0x08);
        await vm.Vcpus[1].UpdateLapicAsync(l => l[LapicState.SpuriousVector] = 0xff);
        await vm.Vcpus[3].UpdateLapicAsync(l => l[LapicState.SpuriousVector] = 0xff);

        await GoesToOneAsync(vm, 0xff, vector, pending);
    }

    [Theory]
    [InlineData(0x07, 0x40, "- | 0x40 | -")]
    [InlineData(0x07, 0x41, "- | - | 0x41")]
    [InlineData(0xff, 0x42, "0x42 | - | -")]
    [Clause("kvm-signal-msi/redirection-hint")]
    public async Task RedirectionHintHasTheEffectOfLowestPriority(byte destination, byte vector, string pending)
    {
        await RequireVectorHashingAsync();
        await using Vm vm = await CreateLogicalAsync(LapicState.FlatModel, 0x01, 0x02, 0x04);

        (await vm.SignalMsiAsync(MsiMessage.X86(destination, new ApicVector(vector), logical: true, redirectionHint: true))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Fact]
    [Clause("kvm-signal-msi/trigger-mode")]
    public async Task TriggerModeIsWhatTheTmrShows()
    {
        await using Vm vm = await CreateAsync(1);

        await vm.SignalMsiAsync(MsiMessage.X86(0, Vector, level: true));
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().Equal(Vector);
        await vm.SignalMsiAsync(MsiMessage.X86(0, Vectors.B, level: true));
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().Equal(Vector, Vectors.B);
        await vm.SignalMsiAsync(MsiMessage.X86(0, Vector));
        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().Equal(Vectors.B);
    }

    [Theory]
    [InlineData(0x8000, true)]
    [InlineData(0x4000, false)]
    [Clause("kvm-signal-msi/trigger-mode")]
    public async Task TriggerModeIsNotTheAssertBit(uint bits, bool level)
    {
        await using Vm vm = await CreateAsync(1);

        await vm.SignalMsiAsync(MsiMessage.Fixed(0, Vector) with { Data = Vector.Value | bits });

        (await vm.Vcpus[0].ReadLapicAsync()).Vectors(LapicState.TriggerMode).Should().Equal(level ? [Vector] : []);
    }

    [Fact]
    [Clause("kvm-signal-msi/level-needs-no-assert-bit")]
    public async Task LevelTriggeredMessageIsDeliveredWithoutItsAssertBit()
    {
        await using Vm vm = await CreateAsync(1);

        (await vm.SignalMsiAsync(MsiMessage.X86(0, Vector, level: true, deassert: true))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be("0x41");
    }

    [Theory]
    [InlineData(0x00)]
    [InlineData(0x41)]
    [Clause("kvm-signal-msi/nmi")]
    public async Task NmiIgnoresTheVector(byte vector)
    {
        await using Vm vm = await CreateAsync(2);

        (await vm.SignalMsiAsync(MsiMessage.X86(1, new ApicVector(vector), ApicDeliveryMode.Nmi))).Should().Be(1);

        (await vm.Vcpus[0].GetEventsAsync()).nmi_pending.Should().Be(0);
        (await vm.Vcpus[1].GetEventsAsync()).nmi_pending.Should().Be(1);
        (await vm.PendingAsync()).Should().Be("- | -");
    }

    [Fact]
    [Clause("kvm-signal-msi/init")]
    public async Task InitMakesTheDestinationWaitForAStartup()
    {
        await using Vm vm = await CreateAsync(2);

        (await vm.SignalMsiAsync(MsiMessage.X86(1, Vector, ApicDeliveryMode.Init))).Should().Be(1);

        (await vm.Vcpus[1].GetMpStateAsync()).Should().Be(KvmConst.KVM_MP_STATE_INIT_RECEIVED);
        (await vm.Vcpus[0].GetMpStateAsync()).Should().Be(KvmConst.KVM_MP_STATE_RUNNABLE);
    }

    [Fact]
    [Clause("kvm-signal-msi/smi")]
    public async Task SmiIsPendingOnTheDestination()
    {
        await kernel.RequireAsync(KvmCap.X86Smm);
        await using Vm vm = await CreateAsync(2);

        (await vm.SignalMsiAsync(MsiMessage.X86(1, Vector, ApicDeliveryMode.Smi))).Should().Be(1);

        (await vm.Vcpus[1].GetEventsAsync()).smi_pending.Should().Be(1);
        (await vm.Vcpus[0].GetEventsAsync()).smi_pending.Should().Be(0);
        (await vm.PendingAsync()).Should().Be("- | -");
    }

    [Fact]
    [Clause("kvm-signal-msi/extint")]
    public async Task ExtIntDeliversNothing()
    {
        await using Vm vm = await CreateAsync(1);

        (await vm.SignalMsiAsync(MsiMessage.X86(0, Vector, ApicDeliveryMode.ExtInt))).Should().Be(0);

        (await vm.PendingAsync()).Should().Be("-");
    }

    [Theory]
    [InlineData(0x123u, "- | 0x41 | -")]
    [InlineData(0x223u, "- | - | 0x41")]
    [InlineData(0x023u, "- | - | -")]
    [InlineData(0x323u, "- | - | -")]
    [InlineData(0x000u, "0x41 | - | -")]
    [InlineData(0xffffffffu, "0x41 | 0x41 | 0x41")]
    [Clause("kvm-signal-msi/id-beyond-255")]
    [Clause("kvm-signal-msi/broadcast-quirk")]
    public async Task ThirtyTwoBitIdReachesItsProcessor(uint destination, string pending)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 3, VcpuIds = [0, 0x123, 0x223], X2Apic32BitIds = true });
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.EnterX2ApicAsync();
        }

        await vm.EnableLocalApicsAsync();

        await vm.SignalMsiAsync(MsiMessage.Fixed(destination, Vector));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Fact]
    [Clause("kvm-signal-msi/broadcast-quirk")]
    public async Task WithTheQuirkDisabledDestination255IsAnIdLikeAnyOther()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 2, VcpuIds = [0, 0xff], X2Apic32BitIds = true });
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.EnterX2ApicAsync();
        }

        await vm.EnableLocalApicsAsync();

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0xff, Vector))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be("- | 0x41");
    }

    [Fact]
    [Clause("kvm-signal-msi/physical-broadcast")]
    public async Task WithTheQuirkDestination255IsEveryX2ApicProcessor()
    {
        await using Vm vm = await CreateAsync(2);
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.EnterX2ApicAsync();
        }

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0xff, Vector))).Should().Be(2);

        (await vm.PendingAsync()).Should().Be("0x41 | 0x41");
    }

    [Fact]
    [Clause("kvm-signal-msi/hotplug-id")]
    public async Task XApicProcessorIsReachedByAnIdBeyond255()
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 2, VcpuIds = [0, 0x123], X2Apic32BitIds = true });
        await vm.EnableLocalApicsAsync();

        (await vm.SignalMsiAsync(MsiMessage.Fixed(0x123, Vector))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be("- | 0x41");
    }

    [Theory]
    [InlineData(0x00000001u)]
    [InlineData(0x00000080u)]
    [InlineData(0x000001ffu)]
    [Clause("kvm-signal-msi/high-address-low-byte")]
    public async Task LowByteOfTheHighHalfIsInvalidWithThirtyTwoBitIds(uint high)
    {
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { X2Apic32BitIds = true });
        await vm.EnableLocalApicsAsync();

        IoctlAnswer answer = await vm.TrySignalMsiAsync(new MsiMessage(((ulong)high << 32) | 0xfee00000, Vector.Value));

        answer.Error.Should().Be(Errno.EINVAL);
        (await vm.PendingAsync()).Should().Be("-");
    }

    [Fact]
    [Clause("gsi-routing/msi/high-address-ignored")]
    public async Task HighHalfIsIgnoredWithoutThirtyTwoBitIds()
    {
        await using Vm vm = await CreateAsync(2);

        (await vm.SignalMsiAsync(new MsiMessage(0xdeadbeef_fee01000, Vector.Value))).Should().Be(1);

        (await vm.PendingAsync()).Should().Be("- | 0x41");
    }

    [Fact]
    [Clause("kvm-signal-msi/priority-order")]
    public async Task PendingMessagesAreTakenHighestVectorFirst()
    {
        await kernel.RequireInServiceAsync();
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.BootAsync();
        foreach (ApicVector vector in new[] { Vectors.B, Vectors.Fence, Vectors.D, Vectors.A, Vectors.C })
        {
            await vm.SignalMsiAsync(MsiMessage.Fixed(0, vector));
        }

        (await vm.TakeAsync()).Should().Be("0x74 0x63 0x52 0x41 0x31");
    }

    [Fact]
    [Clause("kvm-signal-msi/nmi")]
    public async Task GuestTakesTheNmi()
    {
        await using Vm vm = await kernel.CreateVmAsync();
        await vm.BootAsync();

        await vm.SignalMsiAsync(MsiMessage.Nmi(0));

        (await vm.TakeAsync()).Should().Be("NMI");
    }
}

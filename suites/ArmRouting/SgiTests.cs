// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

/// <summary>Interrupts that vCPUs send each other.</summary>
public sealed class SgiTests(KernelUnderTest kernel)
{
    private const ulong ToAllOthers = 1ul << 40;
    private static readonly Sgi s_sgi = new(3);

    [Fact]
    [Clause("arm-sgi/target-list")]
    public async Task SgiReachesTheVcpusOfItsList()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 4);
        await SendAsync(vm, IccRegister.Sgi1r, 0b1010);
        (await TakenByAsync(vm)).Should().Equal("", "SGI 3", "", "SGI 3");
    }

    [Fact]
    [Clause("arm-sgi/target-list")]
    public async Task SgiMayGoToItsSender()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await SendAsync(vm, IccRegister.Sgi1r, 0b01);
        (await TakenByAsync(vm)).Should().Equal("SGI 3", "");
    }

    [Fact]
    [Clause("arm-sgi/all-others")]
    public async Task SgiToAllOthersSparesItsSender()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 3);
        await SendAsync(vm, IccRegister.Sgi1r, ToAllOthers);
        (await TakenByAsync(vm)).Should().Equal("", "SGI 3", "SGI 3");
    }

    [Fact]
    [Clause("arm-sgi/affinity")]
    public async Task ListCountsWithinOneAffinity()
    {
        kernel.RequireChange("arm-vcpu-by-id");
        // Ids 0, 1, 17 and 257 are the affinities 0.0, 0.1, 1.1 and 16.1.
        await using Vm vm = await kernel.CreateVmAsync(VmOptions.Default with { Vcpus = 4, VcpuIds = [0, 1, 17, 257] });
        await SendAsync(vm, IccRegister.Sgi1r, 0b10 | (1ul << 16));
        (await TakenByAsync(vm)).Should().Equal("", "", "SGI 3", "");
        await SendAsync(vm, IccRegister.Sgi1r, 0b10 | (16ul << 16));
        (await TakenByAsync(vm)).Should().Equal("", "", "", "SGI 3");
        await SendAsync(vm, IccRegister.Sgi1r, 0b11);
        (await TakenByAsync(vm)).Should().Equal("SGI 3", "SGI 3", "", "");
        await SendAsync(vm, IccRegister.Sgi1r, 0b10 | (2ul << 16));
        (await TakenByAsync(vm)).Should().Equal(["", "", "", ""], "nobody has that affinity");
    }

    [Theory]
    [InlineData(16)]
    [InlineData(32)]
    [InlineData(48)]
    [Clause("arm-sgi/affinity")]
    public async Task SgiToAnAffinityNobodyHasReachesNobody(int level)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await SendAsync(vm, IccRegister.Sgi1r, 0b11 | (1ul << level));
        (await TakenByAsync(vm)).Should().Equal("", "");
    }

    [Theory]
    [InlineData(IccRegister.Sgi0r, 0b10)]
    [InlineData(IccRegister.Sgi0r, ToAllOthers)]
    [InlineData(IccRegister.Asgi1r, 0b10)]
    [InlineData(IccRegister.Asgi1r, ToAllOthers)]
    [Clause("arm-sgi/group")]
    public async Task OtherGenerationRegistersRaiseGroupZeroOnly(IccRegister register, ulong targets)
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await SendAsync(vm, register, targets);
        (await TakenByAsync(vm)).Should().Equal(["", ""], "the SGI is of group 1");

        await vm.Gic.WriteRedistributorAsync(1, Gicr.Igroupr0, ~(1u << (int)s_sgi.Value));
        await SendAsync(vm, register, targets);
        (await vm.Gic.ReadRedistributorAsync(1, Gicr.Ispendr0)).Should().Be(1u << (int)s_sgi.Value);
    }

    [Fact]
    [Clause("arm-sgi/coalesce")]
    public async Task SgisCoalesceUntilTaken()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await SendAsync(vm, IccRegister.Sgi1r, 0b10);
        await SendAsync(vm, IccRegister.Sgi1r, 0b10);
        (await TakenByAsync(vm)).Should().Equal("", "SGI 3");
    }

    [Fact]
    [Clause("arm-gicd/enable/delivers-what-was-pending")]
    public async Task SgiThatWasDisabledIsTakenOnceItIsEnabled()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        uint bit = 1u << (int)s_sgi.Value;
        (await vm.Vcpus[1].TakePendingAsync(Arm64Command.StoreRedistributor(1, Gicr.Icenabler0, bit))).Should().BeEmpty();
        await SendAsync(vm, IccRegister.Sgi1r, 0b10);
        (await TakenByAsync(vm)).Should().Equal("", "");
        (await vm.Vcpus[1].TakePendingAsync(Arm64Command.StoreRedistributor(1, Gicr.Isenabler0, bit))).Should().Equal(s_sgi);
    }

    [Fact]
    [Clause("arm-vgic/inject/wakes-a-halted-vcpu")]
    public async Task SgiWakesAHaltedVcpu()
    {
        await using Vm vm = await kernel.CreateGicVmAsync(vcpus: 2);
        await vm.Vcpus[1].HaltUntilTakenAsync(s_sgi);
        await SendAsync(vm, IccRegister.Sgi1r, 0b10);
        await vm.Vcpus[1].FinishAsync();
        (await vm.Vcpus[1].TakenAsync()).Should().Equal(s_sgi);
    }

    /// <param name="targets">The register's other fields.</param>
    private static Task SendAsync(Vm vm, IccRegister register, ulong targets) =>
        vm.Vcpus[0].ExecuteAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(Arm64Command.Write(register, targets | ((ulong)s_sgi.Value << 24))));

    private static async Task<string[]> TakenByAsync(Vm vm)
    {
        var taken = new List<string>();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            taken.Add(string.Join(' ', await vcpu.TakePendingAsync()));
        }

        return [.. taken];
    }
}

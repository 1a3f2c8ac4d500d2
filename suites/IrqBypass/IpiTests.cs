// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>What a vCPU sends by writing its ICR, as far as it goes the way of routed messages.</summary>
public sealed class IpiTests(KernelUnderTest kernel)
{
    private const uint Logical = 1 << 11;

    [Theory]
    [InlineData(0, "- | - | 0x41")]
    [InlineData(1, "- | 0x41 | -")]
    [InlineData(2, "0x41 | 0x41 | 0x41")]
    [InlineData(3, "0x41 | - | 0x41")]
    [Clause("lapic-ipi/shorthand")]
    public async Task ShorthandReplacesTheDestination(uint shorthand, string pending)
    {
        await using Vm vm = await CreateAsync();

        await vm.Vcpus[1].ExecuteAsync(GuestCommand.SendIpi(2, Vectors.A.Value | (shorthand << 18)));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    [Theory]
    [InlineData(false, 0, "0x41 | - | -")]
    [InlineData(false, 2, "- | - | 0x41")]
    [InlineData(false, 3, "- | - | -")]
    [InlineData(false, 0xff, "0x41 | 0x41 | 0x41")]
    [InlineData(true, 0x10, "0x41 | - | -")]
    [InlineData(true, 0x60, "- | 0x41 | 0x41")]
    [InlineData(true, 0x0f, "- | - | -")]
    [Clause("lapic-ipi/destination")]
    public async Task DestinationIsAnApicIdOrASetOfLogicalOnes(bool logical, uint destination, string pending)
    {
        await using Vm vm = await CreateAsync();

        await vm.Vcpus[1].ExecuteAsync(GuestCommand.SendIpi(destination, Vectors.A.Value | (logical ? Logical : 0)));

        (await vm.PendingAsync()).Should().Be(pending);
    }

    // xAPICs, flat model: vCPU n is bit 4 + n.
    private async Task<Vm> CreateAsync()
    {
        Vm vm = await kernel.CreateVmAsync(3);
        await vm.EnableLocalApicsAsync();
        foreach (Vcpu vcpu in vm.Vcpus)
        {
            await vcpu.UpdateLapicAsync(l =>
            {
                l[LapicState.DestinationFormat] = LapicState.FlatModel;
                l[LapicState.LogicalDestination] = 0x10000000u << vcpu.Index;
            });
        }

        return vm;
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.KvmXen;

/// <summary>Claims that are wrong on purpose: each must fail, or this suite's green means nothing.</summary>
public sealed class NegativeControlTests(KernelUnderTest kernel)
{
    [Fact]
    [NegativeControl]
    public async Task EventOnAnotherPortIsNoticed()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        await domain.HaltAsync();
        await domain.Vm.Xen.SendAsync(port: 16);
        IReadOnlyList<string> log = await domain.FenceAsync();
        log.Should().Contain("port 15");
    }

    [Fact]
    [NegativeControl]
    public async Task VectorThatWasNeverSetIsNoticed()
    {
        XenDomain domain = await XenDomain.CreateAsync(kernel);
        kvm_xen_hvm_attr vector = await domain.Vm.Xen.GetAsync(KvmXenConst.KVM_XEN_ATTR_TYPE_UPCALL_VECTOR);
        new ApicVector(vector.vector).Should().Be(new ApicVector(0xee));
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class ModuleNameTests
{
    [Theory]
    [InlineData("kvm-amd")]
    [InlineData("kvm_amd")]
    [InlineData("kvm-amd.ko")]
    [InlineData("kvm_amd.ko.xz")]
    [InlineData("kernel/arch/x86/kvm/kvm-amd.ko.zst")]
    [InlineData("arch/x86/kvm/kvm-amd.o")]
    public void EverySpellingIsOneName(string name)
    {
        ModuleName.Canonical(name).Should().Be("kvm_amd");
        ModuleName.Comparer.Equals(name, "kvm_amd").Should().BeTrue();
        ModuleName.Comparer.GetHashCode(name).Should().Be(ModuleName.Comparer.GetHashCode("kvm_amd"));
    }

    [Fact]
    public void OtherNamesDiffer() => ModuleName.Comparer.Equals("kvm", "kvm_amd").Should().BeFalse();
}

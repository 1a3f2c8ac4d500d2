// SPDX-License-Identifier: MIT
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class TestPatternTests
{
    private const string Id = "IrqBypass.MsiRoute.SignalledIrqfdDeliversTheRoutedVectorOnce";

    [Theory]
    [InlineData(Id)]
    [InlineData("IrqBypass.MsiRouteTests.SignalledIrqfdDeliversTheRoutedVectorOnce")]
    [InlineData("MsiRouteTests.SignalledIrqfdDeliversTheRoutedVectorOnce")]
    [InlineData("MsiRoute.SignalledIrqfdDeliversTheRoutedVectorOnce")]
    [InlineData("SignalledIrqfdDeliversTheRoutedVectorOnce")]
    [InlineData("MsiRoute")]
    [InlineData("MsiRouteTests")]
    [InlineData("IrqBypass")]
    [InlineData("IrqBypass.*")]
    [InlineData("*.Signalled*")]
    [InlineData("Signalled*Once")]
    [InlineData("MsiRoute.Signalled?rqfd*")]
    [InlineData("*")]
    public void PatternMeansTheTest(string pattern) => new TestPattern(pattern).Matches(Id).Should().BeTrue();

    [Theory]
    [InlineData("Msi")]
    [InlineData("KvmXen")]
    [InlineData("IrqBypass.SignalledIrqfdDeliversTheRoutedVectorOnce")]
    [InlineData("MsiRoute.Signalled")]
    [InlineData("Route*")]
    [InlineData("MsiRoute.*.x")]
    [InlineData("")]
    public void PatternMeansAnother(string pattern) => new TestPattern(pattern).Matches(Id).Should().BeFalse();

    [Theory]
    [InlineData("KvmXen.Upcall.Delivers", true)]
    [InlineData("Delivers.x2apic", true)]
    [InlineData("UpcallTests.Delivers.x2*", true)]
    [InlineData("KvmXen.*", true)]
    [InlineData("x2apic", false)]
    [InlineData("Masks.x2apic", false)]
    public void PatternMayMeanARow(string pattern, bool may) =>
        new TestPattern(pattern).MayMatchRowOf("KvmXen.Upcall.Delivers").Should().Be(may);
}

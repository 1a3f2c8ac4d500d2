// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class DebianVersionTests
{
    [Theory]
    [InlineData("6.12.95-1", "6.12.117-1")]
    [InlineData("6.9-1", "6.12-1")]
    [InlineData("6.12.117-1~bpo12+1", "6.12.117-1")]
    [InlineData("6.12.117-1~deb12u1", "6.12.117-1")]
    [InlineData("6.12.117-1~bpo12+1", "6.12.117-1~deb12u1")]
    [InlineData("6.1.192-1", "6.1.192-2")]
    [InlineData("7.3~rc7-1~exp1", "7.3-1")]
    [InlineData("7.3~rc9-1", "7.3~rc10-1")]
    [InlineData("6.12.74-2", "6.12.74-10")]
    [InlineData("9.9-1", "1:1.0-1")]
    [InlineData("1.0~~-1", "1.0~-1")]
    [InlineData("1.0a-1", "1.0+-1")]
    [InlineData("1.0-1", "1.0a-1")]
    [InlineData("1.0", "1.0-1")]
    public void OlderComesFirst(string older, string newer)
    {
        new DebianVersion(older).CompareTo(new DebianVersion(newer)).Should().BeNegative();
        new DebianVersion(newer).CompareTo(new DebianVersion(older)).Should().BePositive();
    }

    [Theory]
    [InlineData("6.12-1", "6.12-1")]
    [InlineData("6.012-1", "6.12-1")]
    [InlineData("0:6.12-1", "6.12-1")]
    public void LeadingZeroesDoNotCount(string one, string other) =>
        new DebianVersion(one).CompareTo(new DebianVersion(other)).Should().Be(0);

    [Theory]
    [InlineData("6.12.117-1~deb12u1", "6.12.117")]
    [InlineData("7.3~rc7-1~exp1", "7.3~rc7")]
    [InlineData("1:6.1-2", "6.1")]
    public void UpstreamIsTheKernelsOwn(string version, string upstream) =>
        new DebianVersion(version).Upstream.Should().Be(upstream);
}

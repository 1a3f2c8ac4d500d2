// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class CacheDirectoryTests
{
    [Theory]
    [InlineData("/mine", "/xdg", "/mine")]
    [InlineData(null, "/xdg", "/xdg/conformance")]
    [InlineData("", "", "/home/me/.cache/conformance")]
    [InlineData(null, "relative", "/home/me/.cache/conformance")]
    [InlineData(null, null, "/home/me/.cache/conformance")]
    public void MostSpecificWishWins(string? ours, string? xdg, string directory) =>
        CacheDirectory.Resolve(name => name == "CONFORMANCE_CACHE" ? ours : name == "XDG_CACHE_HOME" ? xdg : null, "/home/me").Should().Be(directory);

    [Fact]
    public void WithoutAHomeOneMustBeNamed()
    {
        Action resolve = () => CacheDirectory.Resolve(_ => null, "");

        resolve.Should().Throw<MachineFaultException>().WithMessage("*Set CONFORMANCE_CACHE*");
    }
}

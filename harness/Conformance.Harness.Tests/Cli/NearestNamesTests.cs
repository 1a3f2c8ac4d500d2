// SPDX-License-Identifier: MIT
using Conformance.Cli;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class NearestNamesTests
{
    private static readonly string[] Known =
        ["KvmXen.EventChannel.MaskedPortSetsPending", "IrqBypass.MsiRoute.SignalDelivers", "IrqBypass.MsiRoute", "KvmXen", "IrqBypass"];

    [Theory]
    [InlineData("KvmXn", "KvmXen")]
    [InlineData("kvmxen", "KvmXen")]
    [InlineData("MsiRoute.SignalDeliver", "IrqBypass.MsiRoute.SignalDelivers")]
    [InlineData("MaskedPort", "KvmXen.EventChannel.MaskedPortSetsPending")]
    public void NearestIsFirst(string wanted, string nearest) => NearestNames.Of(wanted, Known)[0].Should().Be(nearest);

    [Fact]
    public void NothingNearIsSaidPlainly() => NearestNames.Hint("Zebra", Known).Should().StartWith("There is: KvmXen.EventChannel");
}

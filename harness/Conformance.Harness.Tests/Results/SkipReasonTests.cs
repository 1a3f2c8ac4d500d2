// SPDX-License-Identifier: MIT
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class SkipReasonTests
{
    [Theory]
    [InlineData(SkipKind.CapabilityAbsent, "capability-absent: needs KVM_XEN_HVM_CONFIG_EVTCHN_SEND; KVM_CAP_XEN_HVM = 0x1f")]
    [InlineData(SkipKind.HardwareAbsent, "hardware-absent: needs KVM_XEN_HVM_CONFIG_EVTCHN_SEND; KVM_CAP_XEN_HVM = 0x1f")]
    [InlineData(SkipKind.KernelPredates, "kernel-predates: needs KVM_XEN_HVM_CONFIG_EVTCHN_SEND; KVM_CAP_XEN_HVM = 0x1f")]
    public void TextReadsBackAsTheSameReason(SkipKind kind, string text)
    {
        SkipReason reason = new(kind, "KVM_XEN_HVM_CONFIG_EVTCHN_SEND", "KVM_CAP_XEN_HVM = 0x1f");

        reason.ToString().Should().Be(text);
        SkipReason.TryParse(text, out SkipReason? read).Should().BeTrue();
        read.Should().Be(reason);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("not today")]
    [InlineData("capability-absent: needs X")]
    [InlineData("capability-absent: needs ; seen")]
    [InlineData("capability-absent: needs X; ")]
    public void AnyOtherTextIsNoReason(string? text) => SkipReason.TryParse(text, out _).Should().BeFalse();
}

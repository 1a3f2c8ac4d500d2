// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using FluentAssertions;
using Xunit;

namespace Conformance.Specimen;

/// <summary>One test for every way a test can end.</summary>
public sealed class VerdictTests
{
    [Fact]
    [Clause("specimen/claims/hold")]
    [Clause("specimen/claims/are-listed")]
    public void ClaimThatHolds()
    {
        TestEvidence.Current!.AddJournal(() => "ioctl(vm 7, KVM_IRQFD, gsi 24 fd 9) = 0\n");
        TestEvidence.Current.Note("vm", "dropped on a pass");
    }

    [Fact]
    [Clause("specimen/claims/hold")]
    [FixedBy("b1bd5cba3306", "KVM: X86: MMU: Use the correct inherited permissions")]
    public void BrokenClaimWithWantedAndTaken()
    {
        SampleVector[] taken = [new(0x31)];
        TestEvidence.Current!.Note("vm", "routes: 24 msi 0xfee00000/0x0041");
        taken.Should().Equal(new SampleVector(0x41), new SampleVector(0x31));
    }

    [Fact]
    public void BrokenClaimInXunitsWords() => Assert.Equal("EBUSY", string.Concat("E", "INVAL"));

    [Fact]
    public void AbsentCapabilitySkips() => Skipping.UnlessCapability(false, "KVM_XEN_HVM_CONFIG_EVTCHN_SEND", "KVM_CAP_XEN_HVM = 0x1f");

    [Fact]
    public void SkipForNoKnownReasonIsBroken() => Assert.Skip("not today");

    [Fact]
    public async Task DeadKernelIsACrash()
    {
        await Task.Yield();
        throw new KernelCrashException("BUG: unable to handle page fault", "[  1.0] BUG: unable to handle page fault\n");
    }

    [Fact]
    public void WarningDuringAPassingTestIsACrash() =>
        TestEvidence.Current!.AddKernelReport("WARNING in kvm_xen_set_evtchn", "[  1.0] WARNING: CPU: 0 PID: 1 at arch/x86/kvm/xen.c:1\n");

    [Fact]
    public void DeadlineIsAHang() => throw new HangException("no answer to KVM_RUN within 5 s");

    [Fact]
    public void AnythingElseIsBroken() => throw new InvalidDataException("frame of 3 bytes");

    [Fact]
    public void AssertionInsideAnotherExceptionIsBroken() =>
        throw new InvalidOperationException("wrapped", Assert.Throws<Xunit.Sdk.EqualException>(() => Assert.Equal(1, 2)));
}

/// <summary>A value type as the domain has them.</summary>
/// <param name="Value">The vector.</param>
public readonly record struct SampleVector(byte Value)
{
    /// <inheritdoc/>
    public override string ToString() => $"0x{Value:x2}";
}

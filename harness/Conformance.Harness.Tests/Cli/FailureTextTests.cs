// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Harness.Tests.Results;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class FailureTextTests
{
    [Fact]
    public void CrashSaysItsReasonFirstAndWhereTheEvidenceIs()
    {
        TestRecord test = Samples.Test("KvmXen.EventChannel.Masks", Verdict.Crash, "KASAN: use-after-free Read in kvm_xen_set_evtchn") with
        {
            Console = "console/x.txt",
            Journal = "journal/x.txt",
            Source = "suites/KvmXen/EventChannelTests.cs:12",
            Explained = [new Explanation("test", "Fail: expected\nmore")],
        };

        FailureText.Lines(test, Samples.Kernel, "results/debian-6.12.117-amd64", "conformance run …", id => id.EndsWith("masked") ? "selftest xen_shinfo_test" : null)
            .Should().Equal(
                "KvmXen.EventChannel.Masks   kernel 6.12.117+deb13-amd64 x86_64",
                "  crash    KASAN: use-after-free Read in kvm_xen_set_evtchn",
                "  test     Fail: expected",
                "           more",
                "  clause   kvm-xen/evtchn-send/masked (selftest xen_shinfo_test)",
                "  at       suites/KvmXen/EventChannelTests.cs:12",
                "  journal  results/debian-6.12.117-amd64/journal/x.txt",
                "  console  results/debian-6.12.117-amd64/console/x.txt",
                "  again    conformance run …");
    }

    [Fact]
    public void CommandToSeeItAgainNamesAllThatMatters()
    {
        RunRequest request = new()
        {
            Architecture = "arm64",
            Modules = ["kvm.ko=my tree/kvm.ko"],
            VfioDevices = ["01:00.0"],
            Append = ["kvm.eager=1 quiet"],
            FreshBoot = true,
            Offline = true,
            Jobs = 3,
        };

        FailureText.Again(request, "debian:6.12", "KvmXen.A.B").Should().Be(
            "conformance run --kernel debian:6.12 --arch arm64 --module 'kvm.ko=my tree/kvm.ko' --vfio-device 01:00.0 --append 'kvm.eager=1 quiet' --fresh-boot --test KvmXen.A.B");
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

/// <summary>What a row of the tables makes of a verdict: never green what is red, never quiet what changed.</summary>
public sealed class ExpectationsTests
{
    private const string Header = "test\tkernels\tfails\treason\tlink\towner\texpires\n";
    private const string Id = "KvmXen.EventChannel.Claim";
    private static readonly ChangeTable s_changes = ChangeTable.Parse("name\tcommit\tmainline\tstable\tsummary\n");
    private static readonly DateOnly s_day = new(2026, 11, 21);

    [Theory]
    [InlineData("Fail", Verdict.Fail, Verdict.Known)]
    [InlineData("Crash", Verdict.Crash, Verdict.Known)]
    [InlineData("Hang", Verdict.Hang, Verdict.Known)]
    [InlineData("Fail", Verdict.Crash, Verdict.Crash)]
    [InlineData("Crash", Verdict.Fail, Verdict.Fail)]
    [InlineData("Crash: KASAN*", Verdict.Crash, Verdict.Known)]
    [InlineData("Crash: BUG*", Verdict.Crash, Verdict.Crash)]
    [InlineData("Fail", Verdict.Pass, Verdict.Fail)]
    [InlineData("Fail", Verdict.Skip, Verdict.Skip)]
    [InlineData("Fail", Verdict.Broken, Verdict.Broken)]
    [InlineData("Fail?", Verdict.Fail, Verdict.Known)]
    [InlineData("Fail?", Verdict.Pass, Verdict.Pass)]
    [InlineData("Fail?", Verdict.Crash, Verdict.Crash)]
    [InlineData("Crash?: KASAN*", Verdict.Crash, Verdict.Known)]
    public void RowExplainsTheFailureItNamesAndNoOther(string fails, Verdict said, Verdict verdict) =>
        Apply(Row(fails: fails), said).Verdict.Should().Be(verdict);

    [Fact]
    public void KnownFailureSaysWhyWhoAndUntilWhen()
    {
        TestRecord known = Apply(Row(), Verdict.Fail);

        known.Reason.Should().Be("the line is lost (https://example.org/1; kvm team, until 2026-12-31)");
        known.Said.Should().Be(Verdict.Fail);
        known.Row.Should().Be("own.tsv:2");
        known.Explained![0].Should().Be(new Explanation("failed", "Fail: KASAN: use-after-free"));
    }

    [Fact]
    public void ClaimThatHoldsAgainIsRedAndSaysWhatToEdit()
    {
        TestRecord passed = Apply(Row(), Verdict.Pass);

        passed.Verdict.Should().Be(Verdict.Fail);
        passed.Reason.Should().Be("passes, and own.tsv:2 says that it fails");
        passed.Explained!.Single(e => e.Label == "edit").Text.Should().Be("own.tsv:2: remove the row, or narrow its test or its kernels (Claim on *)");
    }

    [Theory]
    [InlineData("2026-11-21", Verdict.Known)]
    [InlineData("2026-11-20", Verdict.Fail)]
    public void RowExplainsUntilItsLastDay(string expires, Verdict verdict)
    {
        TestRecord test = Apply(Row(expires: expires), Verdict.Fail);

        test.Verdict.Should().Be(verdict);
        if (verdict == Verdict.Fail)
        {
            test.Explained![^1].Text.Should().StartWith("own.tsv:2 explained this until 2026-11-20").And.Contain("Ask kvm team");
        }
    }

    [Theory]
    [InlineData("arm64", Verdict.Fail)]
    [InlineData("6.18..", Verdict.Fail)]
    [InlineData("6.12", Verdict.Known)]
    public void RowConcernsItsKernelsOnly(string kernels, Verdict verdict) =>
        Apply(Row(kernels: kernels), Verdict.Fail).Verdict.Should().Be(verdict);

    [Fact]
    public void ReleaseOfTheTargetDecidesWhereUnameDoesNotSayIt()
    {
        Expectations expected = Of(KnownFailure.Read(Header + Row(kernels: "6.1.192"), "own.tsv", s_changes));
        KernelIdentity debian = Samples.Kernel with { Release = "6.1.0-56-amd64" };
        TestRecord test = Samples.Test(Id, Verdict.Fail, "x");

        expected.Apply(test, debian, new TargetIdentity("emulated", "tcg", null) { Release = "6.1.192" }).Verdict.Should().Be(Verdict.Known);
        expected.Apply(test, debian, null).Verdict.Should().Be(Verdict.Fail);
    }

    [Fact]
    public void AppliedTwiceIsAppliedOnce()
    {
        Expectations expected = Of(KnownFailure.Read(Header + Row(), "own.tsv", s_changes));
        TestRecord once = expected.Apply(Samples.Test(Id, Verdict.Fail, "x"), Samples.Kernel, null);

        expected.Apply(once, Samples.Kernel, null).Should().BeSameAs(once);
    }

    [Theory]
    [InlineData("Claim\t*\tFail\n", "own.tsv:2: 3 fields; wanted 7*")]
    [InlineData("Claim\t*\tSkip\tx\thttps://x/1\tme\t2026-12-31\n", "own.tsv:2: 'Skip' is no way to fail*")]
    [InlineData("Claim\t*\tFail??\tx\thttps://x/1\tme\t2026-12-31\n", "own.tsv:2: 'Fail??' is no way to fail*")]
    [InlineData("Claim\t*\tBroken\tx\thttps://x/1\tme\t2026-12-31\n", "own.tsv:2: 'Broken' is no way to fail*")]
    [InlineData("Claim\t6\tFail\tx\thttps://x/1\tme\t2026-12-31\n", "own.tsv:2: '6' is no architecture*")]
    [InlineData("Claim\t*\tFail\tx\ta bug\tme\t2026-12-31\n", "own.tsv:2: 'a bug' is no link*")]
    [InlineData("Claim\t*\tFail\tx\thttps://x/1\t\t2026-12-31\n", "own.tsv:2: owner is empty.")]
    [InlineData("Claim\t*\tFail\tx\thttps://x/1\tme\t31.12.2026\n", "own.tsv:2: '31.12.2026' is no date; write it as 2027-01-31.")]
    public void WrongRowSaysWhereAndHow(string row, string message)
    {
        Action read = () => KnownFailure.Read(Header + row, "own.tsv", s_changes);

        read.Should().Throw<UsageException>().WithMessage(message);
    }

    [Theory]
    [InlineData("", "own.tsv: nothing in it; *")]
    [InlineData("test kernels fails\n", "own.tsv:1: the first line names the columns*")]
    public void TableWithoutItsColumnsIsRefused(string text, string message)
    {
        Action read = () => KnownFailure.Read(text, "own.tsv", s_changes);

        read.Should().Throw<UsageException>().WithMessage(message);
    }

    [Theory]
    [InlineData("capability-absent: needs A and KVM_CAP_X; y = 0", "6.12..", Verdict.Fail)]
    [InlineData("capability-absent: needs KVM_CAP_X; y = 0", "6.13..", Verdict.Skip)]
    [InlineData("capability-absent: needs KVM_CAP_XY; y = 0", "6.12..", Verdict.Skip)]
    [InlineData("hardware-absent: needs KVM_CAP_X; y = 0", "6.12..", Verdict.Skip)]
    [InlineData("kernel-predates: needs KVM_CAP_X; y = 0", "6.12..", Verdict.Skip)]
    public void CapabilityThatIsGoneIsRedWhereTheKernelMustHaveIt(string reason, string kernels, Verdict verdict)
    {
        Expectations expected = new() { Capabilities = Capabilities($"KVM_CAP_X\t{kernels}\t-\tit does x\n"), Day = s_day };

        TestRecord test = expected.Apply(Samples.Test(Id, Verdict.Skip, reason), Samples.Kernel, null);

        test.Verdict.Should().Be(verdict);
        if (verdict == Verdict.Fail)
        {
            test.Reason.Should().Be("KVM_CAP_X is gone, which this kernel must have");
            test.Explained!.Should().Contain(new Explanation("seen", "y = 0"));
        }
    }

    [Theory]
    [InlineData("CONFIG_KVM_XEN=y\n", true)]
    [InlineData("CONFIG_KVM_XEN=m\n", true)]
    [InlineData("# CONFIG_KVM_XEN is not set\n", false)]
    [InlineData(null, false)]
    public void CapabilityThatIsNotConfiguredIsNotExpected(string? config, bool expected)
    {
        using TemporaryFolder folder = new();
        string? file = config is null ? null : folder["config"];
        if (file is not null)
        {
            File.WriteAllText(file, config);
        }

        PreparedKernel kernel = new() { Id = "k", Release = "6.12.1", Architecture = KernelArchitecture.X86_64, Source = "k", Config = file };
        Expectations.Of(kernel, [], Capabilities("KVM_CAP_X\t*\tKVM_XEN\tit does x\n"), s_day).Capabilities.Should().HaveCount(expected ? 1 : 0);
    }

    [Fact]
    public void FolderKeepsThemForALaterMerge()
    {
        using TemporaryFolder folder = new();
        Of(KnownFailure.Read(Header + Row(kernels: "6.12"), "own.tsv", s_changes)).Write(folder.Path);
        using (ResultsJournal journal = ResultsJournal.Open(folder.Path, "KvmXen"))
        {
            journal.Append(Samples.Open("KvmXen"));
            journal.Append(Samples.Has(Id, Verdict.Fail));
        }

        ResultsFolder.Merge(folder.Path)!.Tests.Single().Verdict.Should().Be(Verdict.Known);
    }

    private static string Row(string kernels = "*", string fails = "Fail", string expires = "2026-12-31") =>
        $"Claim\t{kernels}\t{fails}\tthe line is lost.\thttps://example.org/1\tkvm team\t{expires}\n";

    private static Expectations Of(IReadOnlyList<KnownFailure> known) => new() { Known = known, Day = s_day };

    private static IReadOnlyList<ExpectedCapability> Capabilities(string rows) => ExpectedCapability.Read("name\tkernels\tconfig\tsummary\n" + rows, "caps.tsv", s_changes);

    private static TestRecord Apply(string row, Verdict said) => Of(KnownFailure.Read(Header + row, "own.tsv", s_changes))
        .Apply(Samples.Test(Id, said, said == Verdict.Pass ? null : "KASAN: use-after-free"), Samples.Kernel, null);
}

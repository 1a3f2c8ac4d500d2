// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class VerdictReporterTests(VerdictReporterTests.WholeRun whole) : IClassFixture<VerdictReporterTests.WholeRun>
{
    [Theory]
    [InlineData("ClaimThatHolds", Verdict.Pass, null)]
    [InlineData("BrokenClaimWithWantedAndTaken", Verdict.Fail, "Expected taken to be equal to {0x41, 0x31}, but {0x31} contains 1 item(s) less.")]
    [InlineData("BrokenClaimInXunitsWords", Verdict.Fail, "Assert.Equal() Failure: Strings differ")]
    [InlineData("AbsentCapabilitySkips", Verdict.Skip, "capability-absent: needs KVM_XEN_HVM_CONFIG_EVTCHN_SEND; KVM_CAP_XEN_HVM = 0x1f")]
    [InlineData("SkipForNoKnownReasonIsBroken", Verdict.Broken, "skipped for none of the three reasons: not today")]
    [InlineData("DeadKernelIsACrash", Verdict.Crash, "BUG: unable to handle page fault")]
    [InlineData("WarningDuringAPassingTestIsACrash", Verdict.Crash, "WARNING in kvm_xen_set_evtchn")]
    [InlineData("DeadlineIsAHang", Verdict.Hang, "no answer to KVM_RUN within 5 s")]
    [InlineData("AnythingElseIsBroken", Verdict.Broken, "InvalidDataException: frame of 3 bytes")]
    [InlineData("AssertionInsideAnotherExceptionIsBroken", Verdict.Broken, "InvalidOperationException: wrapped")]
    public void EachEndHasItsVerdict(string method, Verdict verdict, string? reason)
    {
        TestRecord record = whole.Run[method];

        record.Verdict.Should().Be(verdict);
        record.Reason.Should().Be(reason);
    }

    [Fact]
    public void FailureSaysWantedAndTakenAndWhere()
    {
        TestRecord record = whole.Run["BrokenClaimWithWantedAndTaken"];

        record.Explained!.Select(e => e.Label).Should().Equal("wanted", "taken", "vm", "at");
        record.Explained![0].Text.Should().Be("equal to {0x41, 0x31}");
        record.Explained[3].Text.Should().StartWith("harness/Conformance.Specimen/VerdictTests.cs:");
        record.FixedBy!.Single().Commit.Should().Be("b1bd5cba3306");
        record.Clauses.Should().Equal("specimen/claims/hold");
    }

    [Fact]
    public void PassCarriesItsJournalAndNoExplanation()
    {
        TestRecord record = whole.Run["ClaimThatHolds"];

        record.Explained.Should().BeNull();
        File.ReadAllText(Path.Combine(whole.Folder, record.Journal!)).Should().Be("ioctl(vm 7, KVM_IRQFD, gsi 24 fd 9) = 0\n");
    }

    [Fact]
    public void KernelReportIsKeptInAFile() =>
        File.ReadAllText(Path.Combine(whole.Folder, whole.Run["WarningDuringAPassingTestIsACrash"].Console!)).Should().Contain("xen.c:1");

    [Fact]
    public void CrashThatOnlyAnExceptionKnowsKeepsItsReport() =>
        whole.Run["DeadKernelIsACrash"].Explained!.Should().Contain(e => e.Label == "console" && e.Text.Contains("[  1.0]"));

    [Fact]
    public void WhatIsPrintedIsWhatIsStored() =>
        whole.Run.Printed.Should().BeEquivalentTo(whole.Run.Stored, options => options.WithStrictOrdering());

    [Fact]
    public void PlanNamesEveryTestOnceAndEachGetsItsVerdict()
    {
        string[] planned = [.. whole.Run.Stored.Single(l => l.Event == JournalEvent.Plan).Tests!];

        planned.Should().OnlyHaveUniqueItems();
        whole.Run.Stored.Where(l => l.Event == JournalEvent.Verdict).Select(l => l.Record!.Id).Should().BeEquivalentTo(planned);
        whole.Run.Stored[^1].Event.Should().Be(JournalEvent.Close);
        whole.Run.ExitCode.Should().Be(0);
    }

    [Theory]
    [InlineData("Specimen.Row.ValueTypesNameRows.0x41_True")]
    [InlineData("Specimen.Row.LabelsNameRows.edge-rising")]
    [InlineData("Specimen.Row.NumbersKeepTheirSign.-1")]
    public void RowsAreNamedByWhatTheyHold(string id) =>
        whole.Run.Stored.Single(l => l.Event == JournalEvent.Plan).Tests.Should().Contain(id);

    [Fact]
    public void NegativeControlsAreLeftOutOfANormalRun() =>
        whole.Run.Stored.Single(l => l.Event == JournalEvent.Plan).Tests.Should().NotContain(id => id.Contains("Noticed"));

    [Fact]
    public async Task NegativeControlPassesByFailing()
    {
        using TemporaryFolder folder = new();
        SpecimenRun run = await SpecimenRun.StartAsync(folder.Path, new TestSelection { NegativeControls = true });

        run["WrongRouteIsNoticed"].Verdict.Should().Be(Verdict.Pass);
        run["WrongRouteIsNoticed"].Reason.Should().StartWith("failed, as it must: ");
        run["NothingIsNoticed"].Verdict.Should().Be(Verdict.Fail);
        run.Stored.Single(l => l.Event == JournalEvent.Plan).Tests.Should().HaveCount(2);
    }

    [Fact]
    public async Task DeathInTheMiddleLosesNothingBeforeIt()
    {
        using TemporaryFolder folder = new();
        SpecimenRun run = await SpecimenRun.StartAsync(folder.Path, new TestSelection { Patterns = ["ProcessTests"] }, "die");

        run.ExitCode.Should().Be(128 + 9);
        run.Stored.Should().NotContain(l => l.Event == JournalEvent.Close);
        run.Stored.Where(l => l.Event == JournalEvent.Begin).Select(l => l.Test).Should().Contain("Specimen.Process.MisbehavesWhenAsked");
        run.Stored.Select(l => l.Record?.Id).Should().NotContain("Specimen.Process.MisbehavesWhenAsked");
    }

    [Fact]
    public async Task FullDiskCostsNoTest()
    {
        using TemporaryFolder folder = new();
        File.CreateSymbolicLink(ResultsJournal.PathFor(folder.Path, "Specimen"), "/dev/full");
        SpecimenRun run = await SpecimenRun.StartAsync(folder.Path, new TestSelection { Patterns = ["RowTests"] });

        run.Printed.Where(l => l.Event == JournalEvent.Verdict).Should().HaveCount(8);
        run.Printed.Single(l => l.Event == JournalEvent.Fault).ResultsLost.Should().BeTrue();
        run.ExitCode.Should().Be(0);
    }

    /// <summary>One run of everything, shared by the tests above.</summary>
    public sealed class WholeRun : IAsyncLifetime
    {
        private readonly TemporaryFolder _folder = new();

        internal SpecimenRun Run { get; private set; } = null!;

        internal string Folder => _folder.Path;

        public async ValueTask InitializeAsync() => Run = await SpecimenRun.StartAsync(_folder.Path, new TestSelection());

        public ValueTask DisposeAsync()
        {
            _folder.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class ResultsJournalTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void EveryLineIsInTheFileWhenAppendReturns()
    {
        using ResultsJournal journal = ResultsJournal.Open(_folder.Path, "KvmXen");

        journal.Append(Samples.Open("KvmXen")).Should().BeTrue();
        File.ReadAllText(ResultsJournal.PathFor(_folder.Path, "KvmXen")).Should().EndWith("\n").And.Contain("\"Open\"");
        journal.Append(Samples.Has("KvmXen.A.B", Verdict.Pass)).Should().BeTrue();

        ResultsJournal.Read(ResultsJournal.PathFor(_folder.Path, "KvmXen")).Should().HaveCount(2);
    }

    [Fact]
    public void TornEndIsDroppedAndTheRestIsKept()
    {
        using (ResultsJournal journal = ResultsJournal.Open(_folder.Path, "KvmXen"))
        {
            journal.Append(Samples.Open("KvmXen"));
            journal.Append(Samples.Has("KvmXen.A.B", Verdict.Pass));
        }

        string path = ResultsJournal.PathFor(_folder.Path, "KvmXen");
        byte[] whole = File.ReadAllBytes(path);
        File.WriteAllBytes(path, whole[..^10]);

        using (ResultsJournal again = ResultsJournal.Open(_folder.Path, "KvmXen"))
        {
            again.Append(Samples.Has("KvmXen.A.C", Verdict.Fail));
        }

        ResultsJournal.Read(path).Select(l => l.Record?.Id).Should().Equal(null, "KvmXen.A.C");
    }

    [Fact]
    public void FullDiskIsReportedOnceAndLaterLinesAreTried()
    {
        File.CreateSymbolicLink(ResultsJournal.PathFor(_folder.Path, "KvmXen"), "/dev/full");
        using ResultsJournal journal = ResultsJournal.Open(_folder.Path, "KvmXen");

        journal.Append(Samples.Has("KvmXen.A.B", Verdict.Pass)).Should().BeFalse();
        journal.Append(Samples.Has("KvmXen.A.C", Verdict.Pass)).Should().BeFalse();

        journal.Fault.Should().Match("cannot write *verdicts-KvmXen.jsonl: *space*");
    }

    [Fact]
    public void KillInTheMiddleLeavesTheUnfinishedMissing()
    {
        using (ResultsJournal journal = ResultsJournal.Open(_folder.Path, "KvmXen"))
        {
            journal.Append(Samples.Open("KvmXen"));
            journal.Append(Samples.Plan("KvmXen.A.C", "KvmXen.A.B", "KvmXen.A.A"));
            journal.Append(Samples.Has("KvmXen.A.C", Verdict.Pass));
            journal.Append(JournalLine.Now(JournalEvent.Begin) with { Test = "KvmXen.A.B" });
        }

        RunRecord run = ResultsFolder.Merge(_folder.Path)!;

        run.Tests.Select(t => t.Id).Should().Equal("KvmXen.A.C");
        run.Missing.Should().Equal("KvmXen.A.A", "KvmXen.A.B");
        ExitCode.Of([run]).Should().Be(ExitCode.ResultsMissing);
    }

    [Fact]
    public void SuitesOfOneKernelMergeInOrderOfTheirIds()
    {
        foreach ((string suite, string id) in new[] { ("KvmXen", "KvmXen.A.B"), ("IrqBypass", "IrqBypass.A.B") })
        {
            using ResultsJournal journal = ResultsJournal.Open(_folder.Path, suite);
            journal.Append(Samples.Open(suite));
            journal.Append(Samples.Plan(id));
            journal.Append(JournalLine.Now(JournalEvent.Target) with { Target = new TargetIdentity("emulated", "tcg", "7.2") });
            journal.Append(Samples.Has(id, Verdict.Pass));
        }

        RunRecord run = ResultsFolder.Merge(_folder.Path)!;

        run.Tests.Select(t => t.Id).Should().Equal("IrqBypass.A.B", "KvmXen.A.B");
        run.Target!.Accelerator.Should().Be("tcg");
        run.Missing.Should().BeNull();
        run.Faults.Should().BeNull();
    }

    [Fact]
    public void MergeIsNeededUntilItIsWritten()
    {
        using (ResultsJournal journal = ResultsJournal.Open(_folder.Path, "KvmXen"))
        {
            journal.Append(Samples.Open("KvmXen"));
        }

        ResultsFolder.NeedsMerge(_folder.Path).Should().BeTrue();
        ResultsFolder.Write(_folder.Path, ResultsFolder.Merge(_folder.Path)!);

        ResultsFolder.NeedsMerge(_folder.Path).Should().BeFalse();
    }

    [Fact]
    public void ResultsThatDoNotFitLeaveTheOldOnes()
    {
        ResultsFolder.Write(_folder.Path, Samples.Run(Verdict.Pass));
        File.CreateSymbolicLink(_folder[ResultsFolder.FileName + ".partial"], "/dev/full");

        Action write = () => ResultsFolder.Write(_folder.Path, Samples.Run(Verdict.Fail));

        write.Should().Throw<IOException>().WithMessage("cannot write *results.json*");
        ResultsJson.Read(_folder[ResultsFolder.FileName]).Tests.Single().Verdict.Should().Be(Verdict.Pass);
    }
}

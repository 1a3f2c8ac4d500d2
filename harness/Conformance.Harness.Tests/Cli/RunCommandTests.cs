// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Harness.Tests.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class RunCommandTests : IDisposable
{
    private const string Kernel = "debian-6.12";

    private readonly SampleInstallation _sample = new();

    public void Dispose() => _sample.Dispose();

    private RunRecord Stored => ResultsJson.Read(Path.Combine(_sample.Kernel(Kernel), ResultsFolder.FileName));

    [Fact]
    public async Task GreenSelectionExitsWithZeroAndStoresEveryVerdict()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["RowTests"] });

        exit.Should().Be(ExitCode.Clean);
        Stored.Tests.Should().HaveCount(8).And.OnlyContain(t => t.Verdict == Verdict.Pass);
        Stored.Kernel.Source.Should().Be("debian:6.12");
        Stored.Missing.Should().BeNull();
        _sample.Out.ToString().Should().Contain("8 passed in ");
    }

    [Theory]
    [InlineData("ClaimThatHolds", ExitCode.Clean)]
    [InlineData("BrokenClaimInXunitsWords", ExitCode.ClaimFailed)]
    [InlineData("AbsentCapabilitySkips", ExitCode.ResultsMissing)]
    [InlineData("DeadKernelIsACrash", ExitCode.KernelDied)]
    [InlineData("DeadlineIsAHang", ExitCode.KernelDied)]
    [InlineData("AnythingElseIsBroken", ExitCode.MachineFault)]
    [InlineData("VerdictTests", ExitCode.KernelDied)]
    public async Task ExitCodeIsThatOfTheVerdicts(string test, int code) =>
        (await _sample.RunAsync(_sample.Request with { Tests = [test] })).Should().Be(code);

    [Fact]
    public async Task FailureIsExplainedAndSaysHowToSeeItAgain()
    {
        await _sample.RunAsync(_sample.Request with { Tests = ["BrokenClaimWithWantedAndTaken"] });

        string[] lines = _sample.Out.ToString().Split('\n');
        lines.Should().StartWith([
            "fail   Specimen.Verdict.BrokenClaimWithWantedAndTaken   kernel 6.12.117+deb13-amd64 x86_64",
            "  wanted   equal to {0x41, 0x31}",
            "  taken    {0x31} contains 1 item(s) less",
            "  vm       routes: 24 msi 0xfee00000/0x0041",
            "  clause   specimen/claims/hold",
            "  fix      this kernel may lack b1bd5cba3306 (\"KVM: X86: MMU: Use the correct inherited permissions\")",
        ]);
        lines.Should().Contain("  again    conformance run --kernel debian:6.12 --test Specimen.Verdict.BrokenClaimWithWantedAndTaken");
    }

    [Fact]
    public async Task DeadProcessCostsItsTestAndTheRestRun()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["ProcessTests"], Append = ["specimen=die"] });

        exit.Should().Be(ExitCode.MachineFault);
        Stored.Tests.Select(t => (t.Id, t.Verdict)).Should().Equal(
            ("Specimen.Process.ABeforeTheMisbehaviour", Verdict.Pass),
            ("Specimen.Process.MisbehavesWhenAsked", Verdict.Broken),
            ("Specimen.Process.ZAfterTheMisbehaviour", Verdict.Pass));
        TestRecord broken = Stored.Tests[1];
        broken.Reason.Should().Be("the suite's process was killed by signal 9 during this test");
        broken.Explained!.Single().Text.Should().Be("last words");
        Stored.Missing.Should().BeNull();
    }

    [Fact]
    public async Task StalledProcessIsAHangAndTheRestRun()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["ProcessTests"], Append = ["specimen=stall"], TestTimeout = 6 });

        exit.Should().Be(ExitCode.KernelDied);
        Stored.Tests.Select(t => t.Verdict).Should().Equal(Verdict.Pass, Verdict.Hang, Verdict.Pass);
        Stored.Tests[1].Reason.Should().Be("no verdict within 6 s");
    }

    [Fact]
    public async Task InterruptKeepsWhatIsKnownAndNamesWhatIsMissing()
    {
        using CancellationTokenSource interrupt = new();
        Task<int> run = _sample.RunAsync(_sample.Request with { Tests = ["ProcessTests"], Append = ["specimen=stall"] }, interrupt.Token);
        string journal = ResultsJournal.PathFor(_sample.Kernel(Kernel), "Specimen");
        await Eventually.IsTrueAsync(() =>
            File.Exists(journal) && ResultsJournal.Read(journal).Any(l => l.Event == JournalEvent.Begin && l.Test == "Specimen.Process.MisbehavesWhenAsked"));
        interrupt.Cancel();

        (await run).Should().Be(ExitCode.ResultsMissing);

        Stored.Missing.Should().Contain("Specimen.Process.MisbehavesWhenAsked");
        _sample.Out.ToString().Should().Contain("(interrupted)");
    }

    [Fact]
    public async Task KilledRunIsMergedByTheNextOneIntoPrevious()
    {
        using (ResultsJournal journal = ResultsJournal.Open(_sample.Kernel(Kernel), "Specimen"))
        {
            journal.Append(Samples.Open("Specimen"));
            journal.Append(Samples.Plan("Specimen.A.B", "Specimen.A.C"));
            journal.Append(Samples.Has("Specimen.A.B", Verdict.Fail));
        }

        await _sample.RunAsync(_sample.Request with { Tests = ["ClaimThatHolds"] });

        RunRecord previous = ResultsJson.Read(Path.Combine(_sample.Results, "previous", Kernel, ResultsFolder.FileName));
        previous.Tests.Single().Verdict.Should().Be(Verdict.Fail);
        previous.Missing.Should().Equal("Specimen.A.C");
        Stored.Tests.Single().Id.Should().Be("Specimen.Verdict.ClaimThatHolds");
    }

    [Fact]
    public async Task SeveralKernelsEachHaveTheirResults()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Kernels = ["debian:6.12", "debian:7.2"], Tests = ["RowTests"], Jobs = 2 });

        exit.Should().Be(ExitCode.Clean);
        foreach (string id in new[] { "debian-6.12", "debian-7.2" })
        {
            ResultsJson.Read(Path.Combine(_sample.Kernel(id), ResultsFolder.FileName)).Tests.Should().HaveCount(8);
        }
    }

    [Fact]
    public async Task NegativeControlsRunAloneAndPassByFailing()
    {
        int exit = await _sample.RunAsync(_sample.Request with { NegativeControls = true, Tests = ["WrongRouteIsNoticed"] });

        exit.Should().Be(ExitCode.Clean);
        Stored.Tests.Single().Verdict.Should().Be(Verdict.Pass);
    }

    [Fact]
    public async Task FullDiskIsAMachineFaultAndCostsNoTest()
    {
        Directory.CreateDirectory(_sample.Kernel(Kernel));
        File.CreateSymbolicLink(Path.Combine(_sample.Kernel(Kernel), ResultsFolder.FileName + ".partial"), "/dev/full");

        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["RowTests"] });

        exit.Should().Be(ExitCode.MachineFault);
        _sample.Error.ToString().Should().Contain("cannot write").And.Contain("space");
        _sample.Out.ToString().Should().Contain("8 passed");
        ResultsJournal.Read(ResultsJournal.PathFor(_sample.Kernel(Kernel), "Specimen"))
            .Count(l => l.Event == JournalEvent.Verdict).Should().Be(8);
    }

    [Fact]
    public async Task SelectionThatLeavesNothingIsNotGreen()
    {
        int exit = await _sample.RunAsync(_sample.Request with { NegativeControls = true, Tests = ["ClaimThatHolds"] });

        exit.Should().Be(ExitCode.ResultsMissing);
        _sample.Error.ToString().Should().Contain("nothing to run");
    }

    [Fact]
    public async Task RowThatDoesNotExistIsNotGreen() =>
        (await _sample.RunAsync(_sample.Request with { Tests = ["NumbersKeepTheirSign.7"] })).Should().Be(ExitCode.ResultsMissing);

    [Fact]
    public async Task PartsAreDisjointAndWholeTogether()
    {
        List<string> ids = [];
        for (int part = 1; part <= 3; part++)
        {
            await _sample.RunAsync(_sample.Request with { Tests = ["RowTests"], Shard = $"{part}/3" });
            Stored.Shard.Should().Be($"{part}/3");
            ids.AddRange(Stored.Tests.Select(t => t.Id));
        }

        ids.Should().HaveCount(8).And.OnlyHaveUniqueItems();
    }

    [Fact]
    public async Task PartsOnMachinesOfTheirOwnMakeOneWhole()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["RowTests"], Jobs = 2, TestsPerPart = 1 });

        exit.Should().Be(ExitCode.Clean);
        ResultsJournal.In(_sample.Kernel(Kernel)).Select(Path.GetFileName).Should().Equal("verdicts-Specimen.1of2.jsonl", "verdicts-Specimen.2of2.jsonl");
        Stored.Tests.Should().HaveCount(8).And.OnlyContain(t => t.Verdict == Verdict.Pass && t.Attempts == 1);
        Stored.Shard.Should().BeNull("the whole was asked for");
        Stored.Missing.Should().BeNull();
    }

    [Fact]
    public async Task RepeatedTestKeepsEveryVerdict()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["LeavesAMarkAndFailsTheSecondTime"], Append = [$"specimen=mark:{Path.Combine(_sample.Results, "mark")}"], Repeat = 3 });

        exit.Should().Be(ExitCode.ClaimFailed);
        TestRecord test = Stored.Tests.Single();
        test.Verdicts.Should().Equal(Verdict.Pass, Verdict.Fail, Verdict.Pass);
        (test.Attempts, test.Verdict).Should().Be((3, Verdict.Fail));
        test.Reason.Should().StartWith("not steady, 2 Pass, 1 Fail in 3: ");
        _sample.Out.ToString().Should().Contain("not steady   Specimen.Repeat.LeavesAMarkAndFailsTheSecondTime: 2 passed, 1 failed");
    }

    [Fact]
    public async Task UntilFailEndsAtTheFirstRedVerdict()
    {
        int exit = await _sample.RunAsync(_sample.Request with
        {
            Tests = ["LeavesAMarkAndFailsTheSecondTime"], Append = [$"specimen=mark:{Path.Combine(_sample.Results, "mark")}"], Repeat = 0, FailFast = true,
        });

        exit.Should().Be(ExitCode.ClaimFailed);
        Stored.Tests.Single().Verdicts.Should().Equal(Verdict.Pass, Verdict.Fail);
        _sample.Out.ToString().Should().Contain("(ended at the first red verdict)");
    }

    [Fact]
    public async Task FailFastLeavesTheRestMissing()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["VerdictTests"], FailFast = true });

        exit.Should().NotBe(ExitCode.Clean);
        Stored.Tests.Should().ContainSingle(t => t.Verdict != Verdict.Pass && t.Verdict != Verdict.Skip);
        Stored.Missing.Should().NotBeEmpty();
    }

    [Theory]
    [InlineData("01:00.0", "0000:01:00.0")]
    [InlineData("0000:0A:1f.7", "0000:0a:1f.7")]
    public void VfioDeviceIsNamedAsSysfsSpellsIt(string written, string address) =>
        new RunRequest { VfioDevices = [written] }.ParseVfioDevices([KernelSpec.Parse("host")]).Should().Equal(address);

    [Theory]
    [InlineData("debian:6.12", "01:00.0", "--kernel host")]
    [InlineData("host", "eth0", "0000:01:00.0")]
    [InlineData("host", "01:20.0", "0000:01:00.0")]
    public void VfioDeviceThatCannotBeMeantIsRefused(string kernel, string written, string advice)
    {
        Action parse = () => new RunRequest { VfioDevices = [written] }.ParseVfioDevices([KernelSpec.Parse(kernel)]);

        parse.Should().Throw<UsageException>().WithMessage($"*--vfio-device*{advice}*");
    }

    [Fact]
    public async Task DryRunStartsNothing()
    {
        (await _sample.RunAsync(_sample.Request with { Tests = ["RowTests"], Shard = "1/2", DryRun = true })).Should().Be(ExitCode.Clean);

        _sample.Out.ToString().Should().StartWith("# Specimen on debian-6.12 (6.12.117+deb13-amd64): ").And.Contain("Specimen.Row.");
        Directory.Exists(_sample.Results).Should().BeFalse();
    }

    [Fact]
    public async Task KnownFailureIsGreenAndShown()
    {
        int exit = await _sample.RunAsync(_sample.Request with { Tests = ["BrokenClaimInXunitsWords", "ClaimThatHolds"], KnownFailures = [Ledger("BrokenClaimInXunitsWords\t6.12\tFail")] });

        exit.Should().Be(ExitCode.Clean);
        Stored.Tests.Select(t => t.Verdict).Should().Equal(Verdict.Known, Verdict.Pass);
        _sample.Out.ToString().Should().Contain("1 passed, 1 known in ").And.Contain("known        Specimen.Verdict.BrokenClaimInXunitsWords: it is broken (https://example.org/1; me, until 2999-12-31)");
        ResultsJournal.Read(ResultsJournal.PathFor(_sample.Kernel(Kernel), "Specimen")).Where(l => l.Record?.Id.EndsWith("Words", StringComparison.Ordinal) == true)
            .Should().OnlyContain(l => l.Record!.Verdict == Verdict.Fail, "the journal keeps what the test said");
    }

    [Fact]
    public async Task RowOfTheRepositoryThatIsNotTrueAnyMoreIsRed()
    {
        File.Move(Ledger("ClaimThatHolds\t*\tFail"), Path.Combine(_sample.Installation.Suites, "known-failures.tsv"));

        (await _sample.RunAsync(_sample.Request with { Tests = ["ClaimThatHolds"] })).Should().Be(ExitCode.ClaimFailed);

        _sample.Out.ToString().Should().Contain("  edit     suites/known-failures.tsv:2: remove the row");
    }

    [Fact]
    public async Task CapabilityThatIsGoneIsRed()
    {
        await File.WriteAllTextAsync(Path.Combine(_sample.Installation.Suites, "capabilities.tsv"), "name\tkernels\tconfig\tsummary\nKVM_XEN_HVM_CONFIG_EVTCHN_SEND\t6.12..\t-\tKVM sends\n");

        (await _sample.RunAsync(_sample.Request with { Tests = ["AbsentCapabilitySkips"] })).Should().Be(ExitCode.ClaimFailed);

        _sample.Out.ToString().Should().Contain("  wanted   KVM_XEN_HVM_CONFIG_EVTCHN_SEND: KVM sends (6.12..; suites/capabilities.tsv:2)").And.Contain("  seen     KVM_CAP_XEN_HVM = 0x1f");
    }

    [Theory]
    [InlineData("ClaimThatHold\t*\tFail", "*own.tsv:2: There is no test 'ClaimThatHold'. Nearest: *ClaimThatHolds.")]
    [InlineData("ClaimThatHolds\t*\tPass", "*own.tsv:2: 'Pass' is no way to fail*")]
    [InlineData(null, "--known-failures *own.tsv: *")]
    public async Task LedgerThatCannotBeUsedIsBadUsage(string? row, string message)
    {
        string file = Path.Combine(_sample.Installation.Root, "own.tsv");
        Func<Task> run = () => _sample.RunAsync(_sample.Request with { KnownFailures = [row is null ? file : Ledger(row)] });

        await run.Should().ThrowAsync<UsageException>().WithMessage(message);
    }

    [Theory]
    [InlineData("Specimn", null, null, "There is no suite 'Specimn'. Nearest: Specimen.")]
    [InlineData(null, "ClaimThatHold", null, "There is no test 'ClaimThatHold'. Nearest: Specimen.Verdict.ClaimThatHolds.")]
    [InlineData(null, "VerdictTest", null, "There is no test 'VerdictTest'. Nearest: Specimen.Verdict*")]
    [InlineData(null, "Nothing*s", null, "There is no test 'Nothing*s'.*")]
    [InlineData(null, null, "kvm.ko", "--module kvm.ko: write NAME.ko=PATH*")]
    [InlineData(null, null, "kvm.ko=/nowhere/kvm.ko", "--module kvm.ko=/nowhere/kvm.ko: there is no file /nowhere/kvm.ko.")]
    public async Task MisspeltNameSaysWhatWasMeant(string? suite, string? test, string? module, string message)
    {
        Func<Task> run = () => _sample.RunAsync(_sample.Request with
        {
            Suites = suite is null ? [] : [suite],
            Tests = test is null ? [] : [test],
            Modules = module is null ? [] : [module],
        });

        await run.Should().ThrowAsync<UsageException>().WithMessage(message);
    }

    [Theory]
    [InlineData("arm64", "*no claims*", true)]
    [InlineData("mips", "'mips' is not an architecture tested here*", false)]
    public async Task WrongArchitectureIsBadUsage(string architecture, string message, bool named)
    {
        Func<Task> run = () => _sample.RunAsync(_sample.Request with { Architecture = architecture, Suites = named ? ["Specimen"] : [] });

        await run.Should().ThrowAsync<UsageException>().WithMessage(message);
    }

    private string Ledger(string row)
    {
        string file = Path.Combine(_sample.Installation.Root, "own.tsv");
        File.WriteAllText(file, $"test\tkernels\tfails\treason\tlink\towner\texpires\n{row}\tit is broken\thttps://example.org/1\tme\t2999-12-31\n");
        return file;
    }
}

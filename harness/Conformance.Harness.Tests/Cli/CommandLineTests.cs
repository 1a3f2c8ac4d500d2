// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Results;
using Conformance.Harness.Tests.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class CommandLineTests
{
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();

    [Theory]
    [InlineData("rnu", "conformance: 'rnu' is not known. Nearest: run.")]
    [InlineData("run --kernl debian:6.12", "conformance run: '--kernl' is not known. Nearest: --kernel.")]
    [InlineData("run --test-timeout 0", "conformance run: --test-timeout takes a number greater than 0.")]
    [InlineData("run --jobs none", "*none*")]
    [InlineData("run --repeat 0", "conformance run: --repeat takes a number greater than 0.")]
    [InlineData("run --repeat often", "*often*")]
    [InlineData("run --shard 3/2", "conformance: --shard 3/2: write which part of how many, for example --shard 2/3; at most 1000.")]
    [InlineData("run --shard 2", "conformance: --shard 2: write which part*")]
    [InlineData("run --known-failures /nowhere/own.tsv", "conformance: --known-failures /nowhere/own.tsv: *")]
    [InlineData("merge / /usr", "conformance: Several folders are brought together in a new one: add --into DIR.")]
    [InlineData("merge /proc/self/fdinfo --into /usr", "conformance: --into /usr: there is something in it already; name a new folder.")]
    [InlineData("list everything", "*everything*")]
    [InlineData("cache prune --keep lots", "conformance prune: --keep takes a size such as 500M or 2G, not 'lots'.")]
    [InlineData("", "conformance: Required command was not provided.")]
    [InlineData("merge /nowhere/at/all", "conformance: There is no folder /nowhere/at/all.")]
    public async Task WrongUseIsSaidAndExitsWith64(string line, string message)
    {
        (await RunAsync(line)).Should().Be(ExitCode.BadUsage);

        _error.ToString().Split('\n')[0].Should().Match(message);
    }

    [Theory]
    [InlineData("--help", "run")]
    [InlineData("run --help", "--kernel")]
    [InlineData("--help", "64  bad usage")]
    public async Task HelpIsNotAnError(string line, string text)
    {
        (await RunAsync(line)).Should().Be(ExitCode.Clean);

        _out.ToString().Should().Contain(text);
    }

    [Fact]
    public async Task MergeOfAKilledRunExitsAsTheRunWouldHave()
    {
        using TemporaryFolder folder = new();
        using (ResultsJournal journal = ResultsJournal.Open(folder["debian-6.12"], "KvmXen"))
        {
            journal.Append(Samples.Open("KvmXen"));
            journal.Append(Samples.Plan("KvmXen.A.B", "KvmXen.A.C"));
            journal.Append(Samples.Has("KvmXen.A.B", Verdict.Pass));
        }

        (await RunAsync($"merge {folder.Path}")).Should().Be(ExitCode.ResultsMissing);

        ResultsJson.Read(Path.Combine(folder["debian-6.12"], ResultsFolder.FileName)).Missing.Should().Equal("KvmXen.A.C");
        _out.ToString().Should().EndWith("1 passed, 1 missing\n");
    }

    [Fact]
    public async Task MergeBringsThePartsOfARunTogether()
    {
        using TemporaryFolder folder = new();
        Part(folder["one"], "1/3", ("KvmXen.A.B", Verdict.Pass), ("KvmXen.A.C", Verdict.Fail));
        Part(folder["two"], "2/3", ("KvmXen.A.D", Verdict.Pass), ("KvmXen.A.C", Verdict.Pass));

        (await RunAsync($"merge {folder["one"]} {folder["two"]} --into {folder["all"]}")).Should().Be(ExitCode.ClaimFailed);

        string all = Path.Combine(folder["all"], Samples.Kernel.Id);
        RunRecord run = ResultsJson.Read(Path.Combine(all, ResultsFolder.FileName));
        run.Tests.Select(t => (t.Id, t.Verdict)).Should().Equal(("KvmXen.A.B", Verdict.Pass), ("KvmXen.A.C", Verdict.Fail), ("KvmXen.A.D", Verdict.Pass));
        run.Tests[1].Reason.Should().StartWith("not steady, 1 Fail, 1 Pass in 2");
        run.Tests[2].Journal.Should().Be("journal/KvmXen.A.D.part2.txt");
        File.ReadAllText(Path.Combine(all, run.Tests[2].Journal!)).Should().Be("2/3");
        run.Missing.Should().Equal("KvmXen.Shard.3of3");
        ResultsFolder.Merge(all)!.Missing.Should().Equal(run.Missing);
    }

    [Fact]
    public async Task PartsOfDifferentKernelsAreNotBroughtTogether()
    {
        using TemporaryFolder folder = new();
        Part(folder["one"], "1/2", ("KvmXen.A.B", Verdict.Pass));
        Part(folder["two"], "2/2", Samples.Kernel with { ImageSha256 = "ff" }, ("KvmXen.A.C", Verdict.Pass));

        (await RunAsync($"merge {folder["one"]} {folder["two"]} --into {folder["all"]}")).Should().Be(ExitCode.BadUsage);

        _error.ToString().Should().Contain("are of different kernels");
    }

    private static void Part(string folder, string shard, params (string Id, Verdict Verdict)[] tests) => Part(folder, shard, Samples.Kernel, tests);

    private static void Part(string folder, string shard, KernelIdentity identity, params (string Id, Verdict Verdict)[] tests)
    {
        string kernel = Path.Combine(folder, identity.Id);
        Directory.CreateDirectory(Path.Combine(kernel, "journal"));
        using ResultsJournal journal = ResultsJournal.Open(kernel, "KvmXen");
        journal.Append(Samples.Open("KvmXen") with { Kernel = identity, Shard = shard });
        journal.Append(Samples.Plan([.. tests.Select(t => t.Id)]));
        foreach ((string id, Verdict verdict) in tests)
        {
            File.WriteAllText(Path.Combine(kernel, "journal", id + ".txt"), shard);
            journal.Append(JournalLine.Now(JournalEvent.Verdict) with { Record = Samples.Test(id, verdict) with { Journal = $"journal/{id}.txt" } });
        }
    }

    private Task<int> RunAsync(string line) => CommandLine.RunAsync(
        line.Split(' ', StringSplitOptions.RemoveEmptyEntries),
        new CommandOutput(_out, _error, Interactive: false, Width: 100, Colour: false));
}

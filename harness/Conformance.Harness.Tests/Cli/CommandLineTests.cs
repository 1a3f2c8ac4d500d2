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
    [InlineData("list everything", "*everything*")]
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

    private Task<int> RunAsync(string line) => CommandLine.RunAsync(
        line.Split(' ', StringSplitOptions.RemoveEmptyEntries),
        new CommandOutput(_out, _error, Interactive: false, Width: 100, Colour: false));
}

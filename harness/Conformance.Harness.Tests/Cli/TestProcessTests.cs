// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Harness.Tests.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

/// <summary>A test project's reporter read while it runs; a shell stands for the project.</summary>
public sealed class TestProcessTests : IDisposable
{
    private const string Beginning = """
        {"$type":"test-class-starting","TestClassUniqueID":"c","TestClassName":"A.BTests"}
        {"$type":"test-class-starting","TestClassUniqueID":"d","TestClassName":"A.CTests"}
        {"$type":"test-starting","TestUniqueID":"1","TestDisplayName":"A.BTests.Answers"}
        {"$type":"test-passed","TestUniqueID":"1"}
        {"$type":"test-finished","TestUniqueID":"1"}
        {"$type":"test-starting","TestUniqueID":"2","TestDisplayName":"A.BTests.NeverAnswers"}
        """;

    private readonly TemporaryFolder _folder = new();
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task WhatNeverEndsIsNamedAndKilled()
    {
        string pid = _folder["pid"];

        TestTally tally = await RunAsync($"{Print(Beginning)}\nsleep 1000 & echo $! >{pid}\nwait", TimeSpan.FromSeconds(2));

        tally.Should().Be(new TestTally(Passed: 1, Failed: 2, Skipped: 0, Whole: false));
        _out.ToString().Should().Be(
            "hang   A.BTests.NeverAnswers   nothing began or ended for 2 s\nhang   A.CTests (a fixture)   nothing began or ended for 2 s\n");
        int child = int.Parse(await File.ReadAllTextAsync(pid, TestContext.Current.CancellationToken), System.Globalization.CultureInfo.InvariantCulture);
        await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{child}") || File.ReadAllText($"/proc/{child}/stat").Contains(") Z ", StringComparison.Ordinal));
    }

    [Fact]
    public async Task FailureIsShownWhenItHappens()
    {
        const string Rest = """
            {"$type":"test-failed","TestUniqueID":"2","Messages":["one is two"],"StackTraces":["at A.B"],"Output":"said\n"}
            {"$type":"test-finished","TestUniqueID":"2"}
            {"$type":"test-class-cleanup-failure","TestClassUniqueID":"c","Messages":["not disposed"],"StackTraces":[null]}
            {"$type":"test-class-finished","TestClassUniqueID":"c","TestsFailed":1,"TestsTotal":2,"ExecutionTime":0.5}
            a line of a test's own
            {"$type":"test-assembly-finished"}
            """;

        TestTally tally = await RunAsync($"{Print(Beginning)}\n{Print(Rest)}\nexit 1", TimeSpan.FromMinutes(1));

        tally.Should().Be(new TestTally(Passed: 1, Failed: 2, Skipped: 0, Whole: true));
        _out.ToString().Should().Be("""
            fail   A.BTests.NeverAnswers
              one is two
              at A.B
              said
            fail   A.BTests
              not disposed
            fail   A.BTests   2 in 0.5 s
            a line of a test's own

            """);
    }

    [Theory]
    [InlineData("exit 3", "ended with exit code 3 and without results")]
    [InlineData("kill -KILL $$", "ended with exit code 137 and without results")]
    public async Task ProjectThatDiesIsNotGreen(string end, string complaint)
    {
        TestTally tally = await RunAsync($"{Print(Beginning)}\n{end}", TimeSpan.FromMinutes(1));

        (tally.Whole, tally.Passed).Should().Be((false, 1));
        _error.ToString().Should().Contain(complaint);
    }

    [Fact]
    public async Task ExitCodeWithoutAFailureIsNotGreen() =>
        (await RunAsync($"{Print("""{"$type":"test-assembly-finished"}""")}\nexit 1", TimeSpan.FromMinutes(1))).Whole.Should().BeFalse();

    private static string Print(string text) => $"cat <<'LINES'\n{text}\nLINES";

    private Task<TestTally> RunAsync(string script, TimeSpan patience)
    {
        string program = _folder["Project.Tests"];
        File.WriteAllText(program, $"#!/bin/sh\n{script}\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        }

        CommandOutput output = new(_out, _error, Interactive: false, Width: 100, Colour: false);
        return new TestProcess(output, Path.Combine(LocalAgent.Build, "tether"), patience).RunAsync(program, [], TestContext.Current.CancellationToken);
    }
}

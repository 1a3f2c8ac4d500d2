// SPDX-License-Identifier: MIT
using System.Diagnostics;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>What is tethered never outlives whoever started it.</summary>
public sealed class TetherTests
{
    private static readonly string s_tether = Path.Combine(LocalAgent.Build, "tether");

    [Fact]
    public async Task EndOfTheInputKillsTheCommand()
    {
        (Process tether, int child) = await StartAsync();
        using (tether)
        {
            tether.StandardInput.Close();
            await tether.WaitForExitAsync(TestContext.Current.CancellationToken);
            tether.ExitCode.Should().Be(137);
            Directory.Exists($"/proc/{child}").Should().BeFalse();
        }
    }

    [Fact]
    public async Task DeathOfTheTetherKillsTheCommand()
    {
        (Process tether, int child) = await StartAsync();
        using (tether)
        {
            tether.Kill();
            await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{child}"));
        }
    }

    [Fact]
    public async Task DeathOfTheStarterKillsTheCommand()
    {
        // A shell stands for the one that is killed: it holds the only writing end of the pipe that is the tether's input.
        using Process starter = Process.Start(new ProcessStartInfo("sh", ["-c", $"{{ sleep 1000 <&- >&- & echo $!; wait; }} | {{ read held; exec {s_tether} sh -c \"echo $held; echo \\$\\$; exec sleep 1000\"; }}"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        int held = int.Parse((await starter.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken))!);
        int child = int.Parse((await starter.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken))!);
        int writer = Parent(held);
        using (Process killed = Process.GetProcessById(writer))
        using (Process sleeper = Process.GetProcessById(held))
        {
            killed.Kill();
            await Eventually.IsTrueAsync(() => !Directory.Exists($"/proc/{child}"));
            sleeper.Kill();
        }

        await starter.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    [Theory]
    [InlineData("exit 7", 7)]
    [InlineData("kill -KILL $$", 137)]
    public async Task ExitStatusIsPassedOn(string command, int status)
    {
        using Process tether = Process.Start(new ProcessStartInfo(s_tether, ["sh", "-c", command]) { RedirectStandardInput = true })!;
        await tether.WaitForExitAsync(TestContext.Current.CancellationToken);
        tether.ExitCode.Should().Be(status);
    }

    [Fact]
    public async Task CommandThatIsNotThereIsReported()
    {
        using Process tether = Process.Start(new ProcessStartInfo(s_tether, ["/nowhere/to/be/found"]) { RedirectStandardInput = true, RedirectStandardError = true })!;
        string error = await tether.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await tether.WaitForExitAsync(TestContext.Current.CancellationToken);
        tether.ExitCode.Should().Be(127);
        error.Should().Be("tether: /nowhere/to/be/found: No such file or directory\n");
    }

    private static int Parent(int pid)
    {
        string stat = File.ReadAllText($"/proc/{pid}/stat");
        return int.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[1]);
    }

    private static async Task<(Process Tether, int Child)> StartAsync()
    {
        Process tether = Process.Start(new ProcessStartInfo(s_tether, ["sh", "-c", "echo $$; exec sleep 1000"])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        return (tether, int.Parse((await tether.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken))!));
    }
}

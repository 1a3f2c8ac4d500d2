// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Conformance.Cli;
using Conformance.Kernels;
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.EndToEnd.Tests.Targets;

/// <summary>This machine as a board: a daemon of the test's own, with keys of its own, on a port that is free.</summary>
public sealed class SshTargetTests : IDisposable
{
    private const string Daemon = "/usr/sbin/sshd";
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("cfm-ssh-");
    private readonly string? _path = Environment.GetEnvironmentVariable("PATH");
    private Process? _daemon;

    public void Dispose()
    {
        Environment.SetEnvironmentVariable("PATH", _path);
        _daemon?.Kill();
        _daemon?.Dispose();
        _folder.Delete(recursive: true);
    }

    [Fact]
    public async Task BoardsKernelIsReachedAndNothingStaysThere()
    {
        Assert.SkipUnless(File.Exists(Daemon), $"{Daemon} is not installed");
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "a kernel's log is root's");
        Assert.SkipUnless(Directory.Exists("/run/sshd"), "the daemon wants /run/sshd, which its service makes");
        await StartDaemonAsync();
        string build = Installation.Find(AppContext.BaseDirectory).Build;
        string guest;
        int[] agents;

        await using (SshTarget target = await SshTarget.StartAsync(KernelArchitectures.OfThisMachine!.Value, "board", build, TestContext.Current.CancellationToken))
        {
            target.Kind.Should().Be("ssh");
            target.Agent.Hello.KernelRelease.Should().Be((await target.ReadFileAsync("/proc/sys/kernel/osrelease")).Trim());
            await target.LoadModulesAsync(["conformance-has-no-such-module"]);
            LogMark begin = await target.Log.MarkAsync("begin", TestContext.Current.CancellationToken);
            await target.Log.MarkAsync("over there", TestContext.Current.CancellationToken);
            target.Log.TextSince(begin).Should().Contain("over there");
            guest = target.GuestImagePath("x86_64.img");
            (await File.ReadAllBytesAsync(guest)).Should().Equal(await File.ReadAllBytesAsync(Path.Combine(build, "guests", "x86_64.img")));
            agents = [.. Agents(guest)];
            agents.Should().NotBeEmpty();
        }

        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (Directory.Exists(Path.GetDirectoryName(Path.GetDirectoryName(guest))) || agents.Any(a => Directory.Exists($"/proc/{a}")))
        {
            // The connection has ended; the board's side follows by itself.
            await Task.Delay(20, patience.Token);
        }
    }

    private static IEnumerable<int> Agents(string guest)
    {
        string program = Path.Combine(Path.GetDirectoryName(Path.GetDirectoryName(guest))!, "agent");
        foreach (string process in Directory.GetDirectories("/proc").Where(d => char.IsAsciiDigit(Path.GetFileName(d)[0])))
        {
            string[] words = File.Exists($"{process}/cmdline") ? File.ReadAllText($"{process}/cmdline").Split('\0') : [];
            if (words[0] == program)
            {
                yield return int.Parse(Path.GetFileName(process), System.Globalization.CultureInfo.InvariantCulture);
            }
        }
    }

    private async Task StartDaemonAsync()
    {
        string At(string name) => Path.Combine(_folder.FullName, name);
        foreach (string key in new[] { "host", "client" })
        {
            using Process keygen = Process.Start("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", At(key)]);
            await keygen.WaitForExitAsync();
        }

        int port = FreePort();
        File.WriteAllText(At("sshd"), $"Port {port}\nListenAddress 127.0.0.1\nHostKey {At("host")}\nAuthorizedKeysFile {At("client.pub")}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n");
        File.WriteAllText(At("config"), $"Host board\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {At("client")}\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n");

        // ssh as its user would have configured it.
        string ssh = (_path ?? "").Split(':').Select(f => Path.Combine(f, "ssh")).First(File.Exists);
        Directory.CreateDirectory(At("bin"));
        File.WriteAllText(At("bin/ssh"), $"#!/bin/sh\nexec {ssh} -F {At("config")} \"$@\"\n");
        using Process executable = Process.Start("chmod", ["+x", At("bin/ssh")]);
        await executable.WaitForExitAsync();
        Environment.SetEnvironmentVariable("PATH", $"{At("bin")}:{_path}");
        _daemon = Process.Start(new ProcessStartInfo(Daemon, ["-D", "-e", "-f", At("sshd")]) { RedirectStandardError = true })!;
        while (await _daemon.StandardError.ReadLineAsync(TestContext.Current.CancellationToken) is { } line && !line.Contains("Server listening", StringComparison.Ordinal))
        {
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

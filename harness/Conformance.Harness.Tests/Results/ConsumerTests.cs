// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

/// <summary>
/// One run with every verdict in it, read by programs that are not ours: ctrf's own validator, tap-parser, test-results-parser, and the kernel
/// tree's kunit_parser. A machine that lacks one skips it and says how to get it.
/// </summary>
public sealed class ConsumerTests : IDisposable
{
    private const string NeedsNpm = "needs node and npm, and a registry or a cache that has the packages of Results/Consumers";

    private static readonly Lazy<Task<string?>> s_packages = new(InstallAsync);

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    // XFAIL is a pass to readers of TAP, the kernel's too, and TRX's Timeout, Error and Aborted are of no kind for one that knows three.
    [Theory]
    [InlineData("ktap", """{"ok":false,"passed":2,"failed":5,"skipped":1,"complaints":[]}""")]
    [InlineData("ctrf", """{"ok":false,"passed":1,"failed":3,"skipped":1,"other":3,"pending":0}""")]
    [InlineData("junit", """{"ok":false,"total":6,"passed":1,"failed":1,"errors":4,"skipped":2}""")]
    [InlineData("trx", """{"ok":false,"total":8,"passed":1,"failed":2,"errors":0,"skipped":2}""")]
    public async Task EveryVerdictArrives(string format, string read)
    {
        string? packages = await s_packages.Value;
        Assert.SkipWhen(packages is null, NeedsNpm);
        string file = _folder[$"results.{format}"];
        await File.WriteAllTextAsync(file, FormatTests.Write(format), TestContext.Current.CancellationToken);

        ToolResult reader = await Tool.RunAsync("node", [Path.Combine(packages, "read.mjs"), format, file], "nodejs", TestContext.Current.CancellationToken);

        JsonNode.Parse(reader.Output)!.ToJsonString().Should().Be(read, reader.Complaint);
    }

    [Fact]
    public async Task ReaderRefusesWhatIsNoReport()
    {
        string? packages = await s_packages.Value;
        Assert.SkipWhen(packages is null, NeedsNpm);
        string file = _folder["results.json"];
        JsonNode report = JsonNode.Parse(FormatTests.Write("ctrf"))!;
        report["results"]!["summary"]!.AsObject().Remove("stop");
        await File.WriteAllTextAsync(file, report.ToJsonString(), TestContext.Current.CancellationToken);

        ToolResult reader = await Tool.RunAsync("node", [Path.Combine(packages, "read.mjs"), "ctrf", file], "nodejs", TestContext.Current.CancellationToken);

        reader.ExitCode.Should().Be(1, "the validator can go red: {0}", reader.Output);
    }

    [Fact]
    public async Task KernelsOwnParserReadsKtap()
    {
        string? kunit = Directory.Exists("/usr/src")
            ? Directory.EnumerateDirectories("/usr/src", "linux-source-*").Select(d => Path.Combine(d, "tools", "testing", "kunit")).FirstOrDefault(Directory.Exists)
            : null;
        Assert.SkipWhen(kunit is null, "needs a kernel tree: apt-get install linux-source, and unpack /usr/src/linux-source-*.tar.xz beside it");
        string file = _folder["results.ktap"];
        await File.WriteAllTextAsync(file, FormatTests.Write("ktap"), TestContext.Current.CancellationToken);

        ToolResult parsed = await Tool.RunAsync("python3", [Path.Combine(kunit, "kunit.py"), "parse", file], "python3", TestContext.Current.CancellationToken);

        parsed.Output.Should().Contain("Testing complete. Ran 8 tests: passed: 2, failed: 5, skipped: 1").And.NotContain("[ERROR]");
    }

    /// <returns>Folder with the reader and its packages; null when they are not to be had.</returns>
    private static async Task<string?> InstallAsync()
    {
        string folder = Path.Combine(Wire.LocalAgent.Build, "consumers");
        string sources = SourceFolder();
        Directory.CreateDirectory(folder);
        foreach (string name in new[] { "package.json", "package-lock.json", "read.mjs" })
        {
            File.Copy(Path.Combine(sources, name), Path.Combine(folder, name), overwrite: true);
        }

        // Written last: an installation that was cut off is none.
        string wanted = await File.ReadAllTextAsync(Path.Combine(sources, "package-lock.json"));
        string installed = Path.Combine(folder, "installed");
        if (File.Exists(installed) && await File.ReadAllTextAsync(installed) == wanted)
        {
            return folder;
        }

        // A registry may take minutes to say that what npm has is still good; the lock file says so already.
        using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(TimeSpan.FromMinutes(4));
        try
        {
            ToolResult npm = await Tool.RunAsync("npm", ["ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], "npm", patience.Token);
            if (npm.ExitCode != 0)
            {
                return null;
            }

            await File.WriteAllTextAsync(installed, wanted);
            return folder;
        }
        catch (Exception e) when (e is MachineFaultException || (e is OperationCanceledException && !TestContext.Current.CancellationToken.IsCancellationRequested))
        {
            return null;
        }
    }

    private static string SourceFolder([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "Consumers");
}

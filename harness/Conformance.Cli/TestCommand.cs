// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using System.Xml.Linq;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance test</c>: the project's own tests, every project <c>harness/*.Tests</c>.</summary>
internal sealed class TestCommand(Installation installation, CommandOutput output)
{
    private const string Suffix = ".Tests";
    private const string Covered = "Conformance.Harness" + Suffix;
    private const string CoverageFile = "coverage.cobertura.xml";

    // Far above the longest test on a slow machine; far below what a CI grants a job.
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(10);
    private static readonly string[] s_measured = ["Conformance.Harness", "conformance"];

    /// <summary>Runs the tests and ends with a line that counts them.</summary>
    /// <param name="coverage">Measure what the tests of the harness cover.</param>
    /// <param name="classes">Run only these test classes; empty for all.</param>
    /// <param name="cancellation">Ends the tests.</param>
    public async Task<int> RunAsync(bool coverage, IReadOnlyList<string> classes, CancellationToken cancellation)
    {
        string reports = Path.Combine(installation.Build, "test");
        Directory.CreateDirectory(reports);
        TestTally all = new(0, 0, 0, Whole: true);
        foreach (string project in Directory.EnumerateDirectories(installation.Harness, "*" + Suffix)
            .OrderBy(p => Path.GetFileName(p) != Covered)
            .ThenBy(p => p, StringComparer.Ordinal))
        {
            all += coverage && Path.GetFileName(project) == Covered
                ? await CoverAsync(project, reports, cancellation).ConfigureAwait(false)
                : await TestAsync(project, classes, cancellation).ConfigureAwait(false);
        }

        string tail = all.Skipped > 0 ? string.Create(CultureInfo.InvariantCulture, $", {all.Skipped} skipped") : string.Empty;
        output.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{all.Passed} passed, {all.Failed} failed{tail}"));
        return all.Failed > 0 ? ExitCode.ClaimFailed
            : !all.Whole ? ExitCode.MachineFault
            : all.Passed > 0 ? ExitCode.Clean
            : ExitCode.ResultsMissing;
    }

    private Task<TestTally> TestAsync(string project, IReadOnlyList<string> classes, CancellationToken cancellation) =>
        new TestProcess(output, installation.Tether, s_patience).RunAsync(
            installation.Executable(project, Path.GetFileName(project)), classes.SelectMany(c => new[] { "-class", c }), cancellation);

    private async Task<TestTally> CoverAsync(string project, string reports, CancellationToken cancellation)
    {
        string name = Path.GetFileName(project);
        string folder = Path.Combine(reports, "coverage");
        if (Directory.Exists(folder))
        {
            Directory.Delete(folder, recursive: true);
        }

        // Where the build lies says which configuration was built.
        string configuration = Path.GetFileName(Path.GetDirectoryName(installation.Output))!;
        int exit = await StartAsync(
            "dotnet",
            [
                "test", project, "--no-build", "--nologo", "-c", configuration, "--settings", Path.Combine(installation.Harness, "coverage.runsettings"),
                "--collect", "XPlat Code Coverage", "--results-directory", folder, "--logger", "trx;LogFileName=tests.trx",
            ],
            cancellation).ConfigureAwait(false);
        string trx = Path.Combine(folder, "tests.trx");
        string? measured = Directory.Exists(folder)
            ? Directory.EnumerateFiles(folder, CoverageFile, SearchOption.AllDirectories).FirstOrDefault()
            : null;
        if (measured is null || !File.Exists(trx))
        {
            return NoResults(name, exit);
        }

        string kept = Path.Combine(reports, CoverageFile);
        File.Copy(measured, kept, overwrite: true);
        bool whole = WriteCoverage(kept);
        XElement counters = XDocument.Load(trx).Descendants().Single(e => e.Name.LocalName == "Counters");
        return new TestTally(Count("passed"), Count("failed"), Count("total") - Count("executed"), whole && (exit == 0 || Count("failed") > 0));

        long Count(string attribute) => (long)counters.Attribute(attribute)!;
    }

    private bool WriteCoverage(string file)
    {
        XElement root = XDocument.Load(file).Root!;
        string[] unmeasured = [.. s_measured.Except(root.Descendants("package").Select(p => (string)p.Attribute("name")!))];
        foreach (XElement package in root.Descendants("package").OrderBy(p => (string)p.Attribute("name")!, StringComparer.Ordinal))
        {
            output.Out.WriteLine($"{(string)package.Attribute("name")!,-24} {Percent(package, "line-rate")} of lines, {Percent(package, "branch-rate")} of branches");
        }

        output.Out.WriteLine($"{"coverage",-24} {Percent(root, "line-rate")} of lines, {Percent(root, "branch-rate")} of branches ({file})");
        foreach (string assembly in unmeasured)
        {
            output.Error.WriteLine($"conformance: {assembly} was not measured; 'dotnet test --collect \"XPlat Code Coverage\" --diag log.txt' says why.");
        }

        return unmeasured.Length == 0;

        static string Percent(XElement element, string rate) =>
            ((double)element.Attribute(rate)! * 100).ToString("0.0", CultureInfo.InvariantCulture) + " %";
    }

    private TestTally NoResults(string name, int exit)
    {
        output.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"conformance: {name} ended with exit code {exit} and without results."));
        return new TestTally(0, 0, 0, Whole: false);
    }

    private static async Task<int> StartAsync(string program, IEnumerable<string> arguments, CancellationToken cancellation)
    {
        ProcessStartInfo start = new(program);
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        using Process process = Process.Start(start) ?? throw new MachineFaultException($"{program} did not start.");
        try
        {
            await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }

        return process.ExitCode;
    }
}

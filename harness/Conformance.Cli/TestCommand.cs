// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
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

    private static readonly string[] s_measured = ["Conformance.Harness", "conformance"];

    /// <summary>Runs the tests and ends with a line that counts them.</summary>
    /// <param name="coverage">Measure what the tests of the harness cover.</param>
    /// <param name="classes">Run only these test classes; empty for all.</param>
    /// <param name="cancellation">Ends the tests.</param>
    public async Task<int> RunAsync(bool coverage, IReadOnlyList<string> classes, CancellationToken cancellation)
    {
        string reports = Path.Combine(installation.Build, "test");
        Directory.CreateDirectory(reports);
        Tally all = new(0, 0, 0, Whole: true);
        foreach (string project in Directory.EnumerateDirectories(installation.Harness, "*" + Suffix)
            .OrderBy(p => Path.GetFileName(p) != Covered)
            .ThenBy(p => p, StringComparer.Ordinal))
        {
            all += coverage && Path.GetFileName(project) == Covered
                ? await CoverAsync(project, reports, cancellation).ConfigureAwait(false)
                : await TestAsync(project, reports, classes, cancellation).ConfigureAwait(false);
        }

        string tail = all.Skipped > 0 ? string.Create(CultureInfo.InvariantCulture, $", {all.Skipped} skipped") : string.Empty;
        output.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{all.Passed} passed, {all.Failed} failed{tail}"));
        return all.Failed > 0 ? ExitCode.ClaimFailed
            : !all.Whole ? ExitCode.MachineFault
            : all.Passed > 0 ? ExitCode.Clean
            : ExitCode.ResultsMissing;
    }

    private async Task<Tally> TestAsync(string project, string reports, IReadOnlyList<string> classes, CancellationToken cancellation)
    {
        string name = Path.GetFileName(project);
        string report = Path.Combine(reports, name + ".json");
        File.Delete(report);
        List<string> arguments = ["-noLogo", "-noColor", "-ctrf", report, .. classes.SelectMany(c => new[] { "-class", c })];
        int exit = await StartAsync(installation.Executable(project, name), arguments, cancellation).ConfigureAwait(false);
        if (!File.Exists(report))
        {
            return NoResults(name, exit);
        }

        using FileStream file = File.OpenRead(report);
        JsonNode summary = (await JsonNode.ParseAsync(file, cancellationToken: cancellation).ConfigureAwait(false))!["results"]!["summary"]!;
        long failed = summary["failed"]!.GetValue<long>();
        return new Tally(summary["passed"]!.GetValue<long>(), failed, summary["skipped"]!.GetValue<long>(), Whole: exit == 0 || failed > 0);
    }

    private async Task<Tally> CoverAsync(string project, string reports, CancellationToken cancellation)
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
        return new Tally(Count("passed"), Count("failed"), Count("total") - Count("executed"), whole && (exit == 0 || Count("failed") > 0));

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

    private Tally NoResults(string name, int exit)
    {
        output.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"conformance: {name} ended with exit code {exit} and without results."));
        return new Tally(0, 0, 0, Whole: false);
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

    private sealed record Tally(long Passed, long Failed, long Skipped, bool Whole)
    {
        public static Tally operator +(Tally a, Tally b) =>
            new(a.Passed + b.Passed, a.Failed + b.Failed, a.Skipped + b.Skipped, a.Whole && b.Whole);
    }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance list</c>: one thing per line, first its name, so that other programs can read it.</summary>
internal sealed class ListCommand(Installation installation, CommandOutput output)
{
    public async Task<int> RunAsync(string what, CancellationToken cancellation)
    {
        switch (what)
        {
            case "suites":
                Suites();
                break;
            case "clauses":
                Clauses();
                break;
            case "kernels":
                Kernels();
                break;
            default:
                await PrintTestsAsync(cancellation).ConfigureAwait(false);
                break;
        }

        return ExitCode.Clean;
    }

    private void Suites()
    {
        foreach (SuiteAssembly suite in SuiteAssembly.LoadAll(installation))
        {
            string architectures = string.Join(", ", suite.Architectures.Select(a => a.Name()));
            output.Out.WriteLine($"{suite.Name,-12} {Number(suite.Tests.Count(t => !t.NegativeControl)),4} claims   {architectures}");
        }
    }

    private void Clauses()
    {
        ILookup<string, string> tests = SuiteAssembly.LoadAll(installation)
            .SelectMany(s => s.Tests)
            .SelectMany(t => t.Clauses.Select(c => (Clause: c, t.Id)))
            .ToLookup(p => p.Clause, p => p.Id);
        List<Clause> clauses = [.. ClauseIndex.Load(installation.Clauses).All];
        int width = clauses.Select(c => c.Id.Length).Append(0).Max();
        foreach (Clause clause in clauses)
        {
            string[] ids = [.. tests[clause.Id].Distinct()];
            output.Out.WriteLine($"{clause.Id.PadRight(width)}  {(ids.Length == 0 ? "no test" : string.Join(' ', ids))}");
        }

        int bare = clauses.Count(c => !tests.Contains(c.Id));
        output.Error.WriteLine($"{Number(clauses.Count)} clauses, {Number(bare)} without a test");
    }

    private void Kernels()
    {
        using KernelStore store = new(CacheDirectory.Default);
        foreach ((string spec, string release) in store.ListDebian())
        {
            output.Out.WriteLine($"{spec,-28}  {release}");
        }
    }

    /// <summary>Every test, negative controls too, by id. Rows of theories are known only to the suites themselves, so each lists its own.</summary>
    public Task<IReadOnlyList<ListedTest>> TestsAsync(CancellationToken cancellation) => TestsAsync(SuiteAssembly.LoadAll(installation), cancellation);

    /// <summary>Every test of some suites.</summary>
    public static async Task<IReadOnlyList<ListedTest>> TestsAsync(IEnumerable<SuiteAssembly> suites, CancellationToken cancellation)
    {
        var tests = new List<ListedTest>();
        foreach (SuiteAssembly suite in suites.Where(s => s.Tests.Count > 0))
        {
            ProcessStartInfo start = new(suite.Executable) { RedirectStandardOutput = true, ArgumentList = { SuiteRunner.ListArgument } };
            using Process process = Process.Start(start) ?? throw new MachineFaultException($"{suite.Executable} did not start.");
            string text = await process.StandardOutput.ReadToEndAsync(cancellation).ConfigureAwait(false);
            await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
            if (process.ExitCode != ExitCode.Clean)
            {
                throw new MachineFaultException($"{suite.Executable} {SuiteRunner.ListArgument} ended with exit code {process.ExitCode}.");
            }

            tests.AddRange(text.Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => JsonSerializer.Deserialize(line, ListedTestContext.Default.ListedTest)!)
                .OrderBy(t => t.Id, StringComparer.Ordinal));
        }

        return tests;
    }

    private async Task PrintTestsAsync(CancellationToken cancellation)
    {
        foreach (ListedTest test in (await TestsAsync(cancellation).ConfigureAwait(false)).Where(t => !t.NegativeControl))
        {
            output.Out.WriteLine(test.Id);
        }
    }

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
}

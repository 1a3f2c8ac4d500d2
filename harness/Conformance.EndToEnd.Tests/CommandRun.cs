// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Kernels;
using Conformance.Results;
using Xunit;

namespace Conformance.EndToEnd.Tests;

/// <summary><c>conformance run</c> on the default kernel, with results in a folder of its own.</summary>
internal sealed class CommandRun : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("cfm-e2e-");

    public string Output => Path.Combine(_folder.FullName, "results");

    public string Printed { get; private set; } = "";

    /// <summary>The records of the one kernel that was run.</summary>
    public IReadOnlyList<TestRecord> Tests { get; private set; } = [];

    public TestRecord this[string method] => Tests.Single(t => t.Id.EndsWith("." + method, StringComparison.Ordinal));

    /// <summary>Runs a suite of the repository, or one of the harness's own by a repository made for it.</summary>
    /// <param name="harnessSuite">Name of a suite project below harness, <c>Faults</c>; null: the request names suites of the repository.</param>
    public async Task<int> RunAsync(RunRequest request, string? harnessSuite = null)
    {
        Installation installation = Installation.Find(AppContext.BaseDirectory);
        if (harnessSuite is not null)
        {
            installation = Sample(installation, harnessSuite);
        }

        var store = new KernelStore(CacheDirectory.Default);
        using var printed = new StringWriter();
        TextWriter writer = TextWriter.Synchronized(printed);
        var output = new CommandOutput(writer, writer, Interactive: false, Width: 100, Colour: false);
        int exit = await new RunCommand(installation, store.PrepareAsync, output).RunAsync(request with { Output = Output }, TestContext.Current.CancellationToken);
        Printed = printed.ToString();
        TestContext.Current.SendDiagnosticMessage(Printed);
        string? results = Directory.Exists(Output) ? Directory.EnumerateFiles(Output, "results.json", SearchOption.AllDirectories).SingleOrDefault() : null;
        Tests = results is null ? [] : ResultsJson.Read(results).Tests;
        return exit;
    }

    public void Dispose() => _folder.Delete(recursive: true);

    private Installation Sample(Installation real, string name)
    {
        string root = Path.Combine(_folder.FullName, "repository");
        string suite = Path.Combine(root, "suites", name);
        Directory.CreateDirectory(suite);
        Directory.CreateSymbolicLink(Path.Combine(root, "build"), real.Build);
        File.WriteAllText(Path.Combine(suite, $"{name}.csproj"), "");
        Directory.CreateSymbolicLink(Path.Combine(suite, "bin"), Path.Combine(real.Harness, $"Conformance.{name}", "bin"));
        return real with { Root = root };
    }
}

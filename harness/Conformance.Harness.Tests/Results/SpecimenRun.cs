// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Reflection;
using Conformance.Fixtures;
using Conformance.Results;

namespace Conformance.Harness.Tests.Results;

/// <summary>The specimen suite run as <c>conformance run</c> runs a suite, by a process of its own.</summary>
internal sealed class SpecimenRun
{
    private SpecimenRun(IReadOnlyList<JournalLine> printed, IReadOnlyList<JournalLine> stored, int exitCode)
    {
        Printed = printed;
        Stored = stored;
        ExitCode = exitCode;
    }

    public static string Executable { get; } =
        typeof(SpecimenRun).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "Specimen").Value!;

    public IReadOnlyList<JournalLine> Printed { get; }

    public IReadOnlyList<JournalLine> Stored { get; }

    public int ExitCode { get; }

    public TestRecord this[string method] => Stored.Select(l => l.Record).OfType<TestRecord>().Single(r => r.Id.Contains(method, StringComparison.Ordinal));

    public static async Task<SpecimenRun> StartAsync(string folder, TestSelection selection, string? misbehaviour = null)
    {
        string file = Path.Combine(folder, "selection.json");
        selection.Write(file);
        string machine = Path.Combine(folder, "machine.json");
        await File.WriteAllTextAsync(machine, misbehaviour is null ? "{}" : $$"""{"extraKernelArguments":["specimen={{misbehaviour}}"]}""");
        ProcessStartInfo start = new(Executable)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            Environment =
            {
                [SuiteEnvironment.SelectionVariable] = file,
                [SuiteEnvironment.OutputVariable] = folder,
                [SuiteEnvironment.MachineVariable] = machine,
            },
        };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = await process.StandardOutput.ReadToEndAsync();
        await errors;
        await process.WaitForExitAsync();
        string journal = ResultsJournal.PathFor(folder, "Specimen");
        return new SpecimenRun(
            [.. output.Split('\n').Select(JournalLine.Parse).OfType<JournalLine>()],
            new FileInfo(journal).LinkTarget is null ? ResultsJournal.Read(journal) : [],
            process.ExitCode);
    }
}

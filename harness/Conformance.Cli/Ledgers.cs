// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>The tables of what is expected of kernels: the repository's, and the user's own.</summary>
internal sealed record Ledgers(IReadOnlyList<KnownFailure> Known, IReadOnlyList<ExpectedCapability> Capabilities, IReadOnlyCollection<KernelChange> Changes)
{
    public const string KnownFailuresFile = "known-failures.tsv";
    public const string CapabilitiesFile = "capabilities.tsv";
    private const string ChangesFile = "changes.tsv";

    /// <summary>Reads them.</summary>
    /// <param name="installation">Where the repository's are.</param>
    /// <param name="own">The user's own ledgers of known failures.</param>
    /// <param name="suites">The tests that rows may name; null to leave that alone.</param>
    /// <exception cref="UsageException">A file is not there, a row is wrong, or it names no test.</exception>
    public static Ledgers Load(Installation installation, IReadOnlyList<string> own, IReadOnlyList<SuiteAssembly>? suites)
    {
        ChangeTable changes = ChangeTable.Parse(OfRepository(installation, ChangesFile) ?? string.Empty);
        List<KnownFailure> known = OfRepository(installation, KnownFailuresFile) is { } table ? [.. KnownFailure.Read(table, $"suites/{KnownFailuresFile}", changes)] : [];
        foreach (string file in own)
        {
            known.AddRange(KnownFailure.Read(OfUser(file), file, changes));
        }

        foreach (KnownFailure row in suites is null ? [] : known)
        {
            if (Selection.NoSuchTest(new TestPattern(row.Test), suites!) is { } wrong)
            {
                throw new UsageException($"{row.Place}: {wrong}");
            }
        }

        return new Ledgers(known, OfRepository(installation, CapabilitiesFile) is { } capabilities
            ? ExpectedCapability.Read(capabilities, $"suites/{CapabilitiesFile}", changes) : [], changes.Changes);
    }

    private static string? OfRepository(Installation installation, string name) =>
        Path.Combine(installation.Suites, name) is var file && File.Exists(file) ? File.ReadAllText(file) : null;

    private static string OfUser(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new UsageException($"--known-failures {file}: {failure.Message}", failure);
        }
    }
}

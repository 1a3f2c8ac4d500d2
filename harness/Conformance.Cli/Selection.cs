// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary>A suite with something to run.</summary>
/// <param name="Suite">The suite.</param>
/// <param name="Patterns">The patterns its process is to apply; empty for all.</param>
internal sealed record SelectedSuite(SuiteAssembly Suite, IReadOnlyList<string> Patterns)
{
    /// <summary>The whole of the suite's selected tests, or a part that has a machine of its own.</summary>
    public Shard Part { get; init; } = new(1, 1);

    /// <summary>What names it among all that runs on a kernel.</summary>
    public string Name => Part.Count == 1 ? Suite.Name : $"{Suite.Name}.{Part.Number}of{Part.Count}";

    /// <summary>Parts that run on machines side by side.</summary>
    /// <param name="count">How many.</param>
    public IEnumerable<SelectedSuite> Split(int count) => Enumerable.Range(1, count).Select(n => this with { Part = Part.Part(n, count) });
}

/// <summary>Which suites a command line means.</summary>
internal static class Selection
{
    /// <summary>Picks the suites that have something to run.</summary>
    /// <param name="all">Every suite there is.</param>
    /// <param name="suites">Names from <c>--suite</c>; empty for all.</param>
    /// <param name="patterns">Patterns from <c>--test</c>; empty for all.</param>
    /// <param name="architecture">The architecture of the kernels.</param>
    /// <param name="negativeControls">Only tests that must fail, instead of only the others.</param>
    /// <returns>Empty when everything named exists and yet nothing is left to run.</returns>
    /// <exception cref="UsageException">A suite or pattern names nothing there is; the message names the nearest.</exception>
    public static IReadOnlyList<SelectedSuite> Choose(
        IReadOnlyList<SuiteAssembly> all,
        IReadOnlyList<string> suites,
        IReadOnlyList<string> patterns,
        KernelArchitecture architecture,
        bool negativeControls)
    {
        List<SuiteAssembly> wanted = suites.Count == 0
            ? [.. all.Where(s => s.Architectures.Contains(architecture))]
            : [.. suites.Select(name => Named(all, name)).Distinct()];
        foreach (SuiteAssembly suite in wanted.Where(s => !s.Architectures.Contains(architecture)))
        {
            string other = suite.Architectures[0].Name();
            throw new UsageException($"{suite.Name} has no claims for {architecture.Name()} kernels. Add --arch {other}.");
        }

        List<TestPattern> read = [.. patterns.Select(p => new TestPattern(p))];
        foreach (TestPattern pattern in read)
        {
            CheckNamed(pattern, all, wanted);
        }

        return
        [
            .. wanted
                .Select(s => new SelectedSuite(s, [.. read.Where(p => s.Tests.Any(t => May(p, t))).Select(p => p.Text)]))
                .Where(s => (read.Count == 0 || s.Patterns.Count > 0) && Declared(s, negativeControls).Any()),
        ];
    }

    /// <summary>The tests a selected suite is to run, as far as its metadata tells; of a theory, all rows at once.</summary>
    /// <param name="selected">The suite and its patterns.</param>
    /// <param name="negativeControls">Only tests that must fail, instead of only the others.</param>
    public static IEnumerable<DeclaredTest> Declared(SelectedSuite selected, bool negativeControls)
    {
        List<TestPattern> patterns = [.. selected.Patterns.Select(p => new TestPattern(p))];
        return selected.Suite.Tests.Where(t => t.NegativeControl == negativeControls && (patterns.Count == 0 || patterns.Exists(p => May(p, t))));
    }

    private static bool May(TestPattern pattern, DeclaredTest test) => test.IsTheory ? pattern.MayMatchRowOf(test.Id) : pattern.Matches(test.Id);

    private static SuiteAssembly Named(IReadOnlyList<SuiteAssembly> all, string name) =>
        all.FirstOrDefault(s => s.Name == name)
        ?? throw new UsageException($"There is no suite '{name}'. {NearestNames.Hint(name, [.. all.Select(s => s.Name)])}".TrimEnd());

    private static void CheckNamed(TestPattern pattern, IReadOnlyList<SuiteAssembly> all, IReadOnlyList<SuiteAssembly> wanted)
    {
        if (wanted.SelectMany(s => s.Tests).Any(t => May(pattern, t)))
        {
            return;
        }

        if (all.FirstOrDefault(s => s.Tests.Any(t => May(pattern, t))) is { } elsewhere)
        {
            throw new UsageException($"'{pattern}' is a test of {elsewhere.Name} ({string.Join(", ", elsewhere.Architectures.Select(a => a.Name()))}), which is not among the suites chosen; --arch and --suite choose.");
        }

        throw new UsageException(NoSuchTest(pattern, wanted)!);
    }

    /// <summary>What to say of a pattern that no test can match; null when one can.</summary>
    public static string? NoSuchTest(TestPattern pattern, IReadOnlyList<SuiteAssembly> suites)
    {
        if (suites.SelectMany(s => s.Tests).Any(t => May(pattern, t)))
        {
            return null;
        }

        string[] ids = [.. suites.SelectMany(s => s.Tests).Select(t => t.Id)];
        string[] classes = [.. ids.Select(id => id[..id.LastIndexOf('.')]).Distinct()];
        IReadOnlyList<string> nearest = NearestNames.Of(pattern.Text, [.. ids, .. classes, .. classes.Select(c => c + TestPattern.ClassSuffix)]);
        string hint = nearest.Count > 0 ? $"Nearest: {string.Join(", ", nearest)}." : "'conformance list tests' shows them all.";
        return $"There is no test '{pattern}'. {hint}";
    }
}

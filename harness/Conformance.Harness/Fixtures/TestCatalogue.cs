// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;
using System.Reflection;
using Conformance.Results;
using Xunit.Sdk;
using Xunit.v3;

namespace Conformance.Fixtures;

/// <summary>What is known of a test before it runs.</summary>
internal sealed record CataloguedTest(
    IXunitTestCase TestCase,
    string Id,
    IReadOnlyList<string> Clauses,
    IReadOnlyList<Fix> FixedBy,
    bool NegativeControl,
    string? Source)
{
    /// <summary>Why the test cannot run at all; null when it can.</summary>
    public string? Unusable { get; init; }
}

/// <summary>The tests of a suite, by what xunit calls them and by what we call them.</summary>
internal sealed class TestCatalogue
{
    private static readonly ConcurrentDictionary<string, string> Ids = new();

    private readonly string _suite;
    private readonly List<(IXunitTestCase Case, string Method, string? Label)> _cases = [];

    public TestCatalogue(string suite) => _suite = suite;

    public static string? IdOf(IXunitTestCase testCase) => Ids.GetValueOrDefault(testCase.UniqueID);

    public void Add(ITestCase testCase)
    {
        if (testCase is not IXunitTestCase xunitCase)
        {
            throw new NotSupportedException($"{testCase.TestCaseDisplayName} is of a test framework this runner does not know.");
        }

        string method = TestId.OfMethod(_suite, TestId.ClassNameOf(xunitCase.TestMethod.TestClass.Class), xunitCase.TestMethod.MethodName);
        _cases.Add((xunitCase, method, LabelOf(xunitCase)));
    }

    public IReadOnlyList<CataloguedTest> Build()
    {
        List<CataloguedTest> tests = [];
        foreach (IGrouping<string, (IXunitTestCase Case, string Method, string? Label)> theory in _cases.GroupBy(c => c.Method))
        {
            HashSet<string> taken = new(StringComparer.Ordinal);
            HashSet<string> shared = [.. theory.Where(HasRow).Select(c => TestId.Row(c.Label, Arguments(c.Case)))
                .GroupBy(row => row).Where(g => g.Count() > 1).Select(g => g.Key)];
            foreach ((IXunitTestCase testCase, string method, string? label) in theory)
            {
                string id = method;
                if (HasRow((testCase, method, label)))
                {
                    string row = TestId.Row(label, Arguments(testCase));
                    id = $"{method}.{(shared.Contains(row) ? TestId.DistinctRow(label, Arguments(testCase)) : row)}";
                }

                if (!taken.Add(id))
                {
                    throw new InvalidOperationException($"Two tests have the id {id}: rename a method, or give the rows labels.");
                }

                Ids[testCase.UniqueID] = id;
                tests.Add(Describe(testCase, id));
            }
        }

        return tests;
    }

    private static bool HasRow((IXunitTestCase Case, string Method, string? Label) c) => Arguments(c.Case).Count > 0;

    private static IReadOnlyList<object?> Arguments(IXunitTestCase testCase) => testCase is XunitTestCase xunitCase ? xunitCase.TestMethodArguments : [];

    private static CataloguedTest Describe(IXunitTestCase testCase, string id)
    {
        MethodInfo method = testCase.TestMethod.Method;
        IEnumerable<ClauseAttribute> clauses =
            method.GetCustomAttributes<ClauseAttribute>().Concat(method.DeclaringType?.GetCustomAttributes<ClauseAttribute>() ?? []);
        return new CataloguedTest(
            testCase,
            id,
            [.. clauses.Select(c => c.Id).Distinct()],
            [.. method.GetCustomAttributes<FixedByAttribute>().Select(f => new Fix(f.Commit, f.Subject))],
            method.IsDefined(typeof(NegativeControlAttribute)),
            SourcePath.Relative(testCase.SourceFilePath) is { } file ? $"{file}:{testCase.SourceLineNumber}" : null)
        {
            Unusable = testCase switch
            {
                IXunitDelayEnumeratedTestCase =>
                    "the rows of this theory cannot be told apart before it runs: give it values xunit can serialise, or a record of such values",
                { SkipReason: not null } => "a claim is skipped for what a kernel or machine lacks, seen when it runs; not by [Fact(Skip = …)]",
                _ => null,
            },
        };
    }

    // xunit keeps a row's label only in the display name: Class.Method [label].
    private static string? LabelOf(IXunitTestCase testCase)
    {
        string name = testCase.TestCaseDisplayName;
        int start = name.IndexOf(" [", StringComparison.Ordinal);
        int arguments = name.IndexOf('(', StringComparison.Ordinal);
        return start > 0 && name.EndsWith(']') && (arguments < 0 || arguments > start) ? name[(start + 2)..^1] : null;
    }
}

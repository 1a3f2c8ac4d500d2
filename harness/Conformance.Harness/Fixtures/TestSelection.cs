// SPDX-License-Identifier: MIT
using System.Text.Json;
using System.Text.Json.Serialization;
using Conformance.Results;

namespace Conformance.Fixtures;

/// <summary>Which tests of a suite a process is to run; written by <c>conformance run</c>.</summary>
public sealed record TestSelection
{
    /// <summary>Patterns as <c>--test</c> takes them; null or empty for all tests.</summary>
    public IReadOnlyList<string>? Patterns { get; init; }

    /// <summary>Ids to keep of what the patterns select; null for all. Set when a suite is started again for the tests that remain.</summary>
    public IReadOnlyList<string>? Only { get; init; }

    /// <summary>Run the negative controls, and nothing else.</summary>
    public bool NegativeControls { get; init; }

    /// <summary>The part of the tests to run; null for all.</summary>
    public Shard? Shard { get; init; }

    /// <summary>Which repetition this is, from 1: each keeps its own evidence.</summary>
    public int Round { get; init; } = 1;

    /// <summary>Which journal the verdicts go to; null: the suite's own. Processes that run parts of a suite at once have one each.</summary>
    public string? Journal { get; init; }

    /// <summary>Reads a selection.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="JsonException">The file is not a selection.</exception>
    public static TestSelection Read(string path) =>
        JsonSerializer.Deserialize(File.ReadAllBytes(path), TestSelectionContext.Default.TestSelection)
        ?? throw new JsonException($"{path} holds no selection.");

    /// <summary>Writes the selection.</summary>
    /// <param name="path">The file.</param>
    public void Write(string path) =>
        File.WriteAllBytes(path, JsonSerializer.SerializeToUtf8Bytes(this, TestSelectionContext.Default.TestSelection));

    internal Func<CataloguedTest, bool> ToFilter()
    {
        Func<string, bool, bool> selects = ToIdFilter();
        return test => selects(test.Id, test.NegativeControl);
    }

    /// <summary>Whether a test is selected, by its id and whether it is a negative control.</summary>
    public Func<string, bool, bool> ToIdFilter()
    {
        TestPattern[] patterns = [.. (Patterns ?? []).Select(p => new TestPattern(p))];
        HashSet<string>? only = Only is null ? null : new HashSet<string>(Only, StringComparer.Ordinal);
        return (id, negativeControl) => negativeControl == NegativeControls
            && (patterns.Length == 0 || patterns.Any(p => p.Matches(id)))
            && Shard?.Has(id) != false
            && only?.Contains(id) != false;
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(TestSelection))]
internal sealed partial class TestSelectionContext : JsonSerializerContext;

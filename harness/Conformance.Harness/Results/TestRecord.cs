// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Results;

/// <summary>The verdict of one test on one kernel, as <c>results.json</c> holds it.</summary>
public sealed record TestRecord
{
    /// <summary>Dotted id, <c>Suite.Class.Method</c> with a fourth segment for a theory row; never changes meaning.</summary>
    public required string Id { get; init; }

    /// <summary>The suite's name, which is also the first segment of <see cref="Id"/>.</summary>
    public required string Suite { get; init; }

    /// <summary>The verdict.</summary>
    public required Verdict Verdict { get; init; }

    /// <summary>One sentence for every verdict but Pass; for Skip the text of a <see cref="SkipReason"/>.</summary>
    public string? Reason { get; init; }

    /// <summary>Time the test took, in milliseconds.</summary>
    public long DurationMs { get; init; }

    /// <summary>Ids of the clauses the claim rests on.</summary>
    public IReadOnlyList<string> Clauses { get; init; } = [];

    /// <summary>The capabilities it asked the kernel for, whether they were there or not; null when it asked for none.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Needs { get; init; }

    /// <summary>How often the test was run to get this verdict.</summary>
    public int Attempts { get; init; } = 1;

    /// <summary>The verdict of every attempt, in order; null when there was one.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<Verdict>? Verdicts { get; init; }

    /// <summary>The approved behaviour file this test was compared with, if any.</summary>
    public string? Snapshot { get; init; }

    /// <summary>File with the console excerpt of this test, relative to the folder of <c>results.json</c>.</summary>
    public string? Console { get; init; }

    /// <summary>File with what the session did, relative to the folder of <c>results.json</c>.</summary>
    public string? Journal { get; init; }

    /// <summary>The failure explained, a label and a text per line (<c>wanted</c>, <c>taken</c>, <c>vm</c> …); null for Pass and Skip.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<Explanation>? Explained { get; init; }

    /// <summary>The commits a failing kernel may lack; null unless the test carries them and did not pass.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<Fix>? FixedBy { get; init; }

    /// <summary>What the test itself said, where a row of what is expected of the kernel made it another verdict; null elsewhere.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Verdict? Said { get; init; }

    /// <summary>That row, <c>file:line</c>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Row { get; init; }

    /// <summary>Where the claim is written, <c>file:line</c>; null when the build did not record it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Source { get; init; }
}

/// <summary>One labelled line of a failure.</summary>
/// <param name="Label">A short word: wanted, taken, vm, kernel.</param>
/// <param name="Text">What it was; may have several lines.</param>
public sealed record Explanation(string Label, string Text);

/// <summary>A kernel commit that made a claim true.</summary>
/// <param name="Commit">Abbreviated or full commit id.</param>
/// <param name="Subject">Its subject line.</param>
public sealed record Fix(string Commit, string Subject);

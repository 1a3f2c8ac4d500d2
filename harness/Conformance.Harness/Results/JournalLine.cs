// SPDX-License-Identifier: MIT
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Conformance.Results;

/// <summary>What a line of <c>verdicts-&lt;suite&gt;.jsonl</c> reports.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<JournalEvent>))]
public enum JournalEvent
{
    /// <summary>A suite begins on a kernel.</summary>
    Open,

    /// <summary>The tests that are going to run.</summary>
    Plan,

    /// <summary>A kernel is being started, which takes its own time.</summary>
    Boot,

    /// <summary>The kernel is up; where it runs.</summary>
    Target,

    /// <summary>A test begins.</summary>
    Begin,

    /// <summary>A test has its verdict.</summary>
    Verdict,

    /// <summary>Something went wrong beside the tests.</summary>
    Fault,

    /// <summary>The suite has nothing left to do.</summary>
    Close,
}

/// <summary>
/// One line of <c>verdicts-&lt;suite&gt;.jsonl</c>, and also what a suite process prints for whoever started it. Only the
/// members that belong to the event are set.
/// </summary>
public sealed record JournalLine
{
    /// <summary>What is reported.</summary>
    public required JournalEvent Event { get; init; }

    /// <summary>When, in UTC.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>The suite (Open).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Suite { get; init; }

    /// <summary>The suite's version (Open).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? SuiteVersion { get; init; }

    /// <summary>The kernel under test (Open).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public KernelIdentity? Kernel { get; init; }

    /// <summary>Which part of the tests is going to run, <c>2/3</c>; null for all (Open).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Shard { get; init; }

    /// <summary>Ids that are going to run (Plan).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Tests { get; init; }

    /// <summary>Where the kernel runs (Target).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public TargetIdentity? Target { get; init; }

    /// <summary>The id of the test that begins (Begin).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Test { get; init; }

    /// <summary>The verdict (Verdict).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public TestRecord? Record { get; init; }

    /// <summary>What went wrong (Fault).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Text { get; init; }

    /// <summary>Whether what went wrong is that results could not be stored (Fault).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool ResultsLost { get; init; }

    /// <summary>A line with the current time.</summary>
    /// <param name="journalEvent">What is reported.</param>
    public static JournalLine Now(JournalEvent journalEvent) => new() { Event = journalEvent, At = DateTimeOffset.UtcNow };

    /// <summary>Reads one line.</summary>
    /// <param name="line">The text, without its newline.</param>
    /// <returns>Null when the text is not a whole line: a process that was killed, or a full disk, leaves such an end.</returns>
    public static JournalLine? Parse(string line)
    {
        if (line.Length == 0 || line[0] != '{')
        {
            return null;
        }

        try
        {
            return JsonSerializer.Deserialize(line, ResultsJsonContext.Relaxed.JournalLine);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>The line in UTF-8, ending in a newline.</summary>
    public byte[] ToBytes()
    {
        byte[] text = JsonSerializer.SerializeToUtf8Bytes(this, ResultsJsonContext.Relaxed.JournalLine);
        Array.Resize(ref text, text.Length + 1);
        text[^1] = (byte)'\n';
        return text;
    }
}

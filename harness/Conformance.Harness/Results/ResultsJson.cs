// SPDX-License-Identifier: MIT
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Conformance.Results;

/// <summary>The one place that turns results into JSON and back.</summary>
public static class ResultsJson
{
    /// <summary>Reads a <c>results.json</c>.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="JsonException">The file is not one, or has a schema this build does not know.</exception>
    public static RunRecord Read(string path)
    {
        RunRecord run = JsonSerializer.Deserialize(File.ReadAllBytes(path), ResultsJsonContext.Relaxed.RunRecord)
            ?? throw new JsonException($"{path} holds no run.");
        return run.Schema == RunRecord.CurrentSchema
            ? run
            : throw new JsonException($"{path} has schema {run.Schema}; this build reads {RunRecord.CurrentSchema}.");
    }

    /// <summary>The text of a <c>results.json</c>, ending in a newline.</summary>
    /// <param name="run">The run.</param>
    public static byte[] Write(RunRecord run)
    {
        using MemoryStream stream = new();
        JsonSerializer.Serialize(stream, run, ResultsJsonContext.RelaxedIndented.RunRecord);
        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(RunRecord))]
[JsonSerializable(typeof(JournalLine))]
internal sealed partial class ResultsJsonContext : JsonSerializerContext
{
    // The default encoder writes \u003C for '<': these files are read by people, and never pasted into HTML unescaped.
    public static ResultsJsonContext Relaxed { get; } = new(Create(indented: false));

    public static ResultsJsonContext RelaxedIndented { get; } = new(Create(indented: true));

    private static JsonSerializerOptions Create(bool indented) => new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.CamelCase,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        WriteIndented = indented,
    };
}

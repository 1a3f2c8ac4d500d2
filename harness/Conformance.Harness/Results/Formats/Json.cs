// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Conformance.Results.Formats;

/// <summary>Writes a document with the writer itself: the formats are somebody else's, so no types of ours stand for them.</summary>
internal static class Json
{
    public static string Of(Action<Utf8JsonWriter> content)
    {
        using var stream = new MemoryStream();
        using (var writer = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, NewLine = "\n", Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            content(writer);
        }

        return Encoding.UTF8.GetString(stream.ToArray()) + "\n";
    }

    /// <summary>Text without NUL, which KCIDB forbids and nobody wants.</summary>
    public static string Clean(string text) => text.Replace("\0", "", StringComparison.Ordinal);
}

/// <summary>CTRF (ctrf.io): one list of tests over all kernels.</summary>
internal sealed class Ctrf : ResultFormat
{
    public override string Name => "ctrf";

    public override string FileName => "results.ctrf.json";

    public override string Description => "CTRF JSON";

    public override string Write(IReadOnlyList<RunRecord> runs) => Json.Of(w =>
    {
        List<(RunRecord Run, TestRecord Test)> all = [.. runs.SelectMany(r => r.Tests.Select(t => (r, t)))];
        int missing = runs.Sum(r => r.Missing?.Count ?? 0);
        int Count(string status) => all.Count(a => Status(a.Test.Verdict) == status);
        long start = runs.Count == 0 ? 0 : runs.Min(r => r.Started.ToUnixTimeMilliseconds());
        w.WriteStartObject();
        w.WriteString("reportFormat", "CTRF");
        w.WriteString("specVersion", "0.0.0");
        w.WriteStartObject("results");
        w.WriteStartObject("tool");
        w.WriteString("name", "conformance");
        if (runs.Count > 0)
        {
            w.WriteString("version", runs[0].SuiteVersion);
        }

        w.WriteEndObject();
        w.WriteStartObject("summary");
        w.WriteNumber("tests", all.Count + missing);
        w.WriteNumber("passed", Count("passed"));
        w.WriteNumber("failed", Count("failed"));
        w.WriteNumber("skipped", Count("skipped"));
        w.WriteNumber("pending", 0);
        w.WriteNumber("other", Count("other") + missing);
        w.WriteNumber("start", start);
        w.WriteNumber("stop", runs.Count == 0 ? 0 : runs.Max(r => r.Started.ToUnixTimeMilliseconds() + r.DurationMs));
        w.WriteEndObject();
        w.WriteStartArray("tests");
        foreach ((RunRecord run, TestRecord test) in all)
        {
            w.WriteStartObject();
            w.WriteString("name", test.Id);
            w.WriteString("status", Status(test.Verdict));
            w.WriteNumber("duration", test.DurationMs);
            w.WriteString("rawStatus", test.Verdict.ToString());
            w.WriteStartArray("suite");
            w.WriteStringValue(run.Kernel.Id);
            w.WriteStringValue(test.Suite);
            w.WriteEndArray();
            if (test.Reason is not null)
            {
                w.WriteString("message", Json.Clean(test.Reason));
            }

            if (test.Explained is { Count: > 0 })
            {
                w.WriteString("trace", Json.Clean(Because(test)));
            }

            w.WriteEndObject();
        }

        foreach ((RunRecord run, string id) in runs.SelectMany(r => (r.Missing ?? []).Select(m => (r, m))))
        {
            w.WriteStartObject();
            w.WriteString("name", id);
            w.WriteString("status", "other");
            w.WriteNumber("duration", 0);
            w.WriteString("rawStatus", "Missing");
            w.WriteStartArray("suite");
            w.WriteStringValue(run.Kernel.Id);
            w.WriteEndArray();
            w.WriteEndObject();
        }

        w.WriteEndArray();
        w.WriteEndObject();
        w.WriteEndObject();
    });

    private static string Status(Verdict verdict) => verdict switch
    {
        Verdict.Pass => "passed",
        Verdict.Fail or Verdict.Crash or Verdict.Hang => "failed",
        Verdict.Skip => "skipped",
        _ => "other",
    };
}

/// <summary>KCIDB schema 5.3. FAIL is the code's fault, ERROR the test's own, MISS never ran, SKIP not applicable.</summary>
internal sealed class Kcidb : ResultFormat
{
    private const string Origin = "conformance";
    private const int MaxExcerpt = 16384;

    public override string Name => "kcidb";

    public override string FileName => "results.kcidb.json";

    public override string Description => "KCIDB 5.3 JSON (submit with kcidb's own tool)";

    public override string Write(IReadOnlyList<RunRecord> runs) => Json.Of(w =>
    {
        w.WriteStartObject();
        w.WriteStartObject("version");
        w.WriteNumber("major", 5);
        w.WriteNumber("minor", 3);
        w.WriteEndObject();
        w.WriteStartArray("checkouts");
        foreach (RunRecord run in runs)
        {
            w.WriteStartObject();
            w.WriteString("id", Id(run));
            w.WriteString("origin", Origin);
            w.WriteString("git_commit_name", run.Kernel.Release);
            w.WriteString("tree_name", run.Kernel.Source);
            w.WriteEndObject();
        }

        w.WriteEndArray();
        w.WriteStartArray("builds");
        foreach (RunRecord run in runs)
        {
            w.WriteStartObject();
            w.WriteString("id", Id(run));
            w.WriteString("checkout_id", Id(run));
            w.WriteString("origin", Origin);
            w.WriteString("architecture", run.Kernel.Arch);
            w.WriteString("status", "PASS");
            if (run.Kernel.ImageSha256 is string hash)
            {
                w.WriteStartObject("misc");
                w.WriteString("image_sha256", hash);
                w.WriteEndObject();
            }

            w.WriteEndObject();
        }

        w.WriteEndArray();
        w.WriteStartArray("tests");
        foreach (RunRecord run in runs)
        {
            foreach (TestRecord test in run.Tests)
            {
                WriteTest(w, run, test.Id, Status(test.Verdict), test);
            }

            foreach (string missing in run.Missing ?? [])
            {
                WriteTest(w, run, missing, "MISS", null);
            }
        }

        w.WriteEndArray();
        w.WriteEndObject();
    });

    private static void WriteTest(Utf8JsonWriter w, RunRecord run, string id, string status, TestRecord? test)
    {
        w.WriteStartObject();
        w.WriteString("id", $"{Id(run)}.{id}");
        w.WriteString("build_id", Id(run));
        w.WriteString("origin", Origin);
        w.WriteString("path", $"conformance.{id}");
        w.WriteString("status", status);
        w.WriteString("start_time", run.Started.UtcDateTime.ToString("yyyy-MM-ddTHH:mm:ss+00:00", CultureInfo.InvariantCulture));
        w.WriteStartObject("environment");
        w.WriteString("comment", Where(run));
        w.WriteEndObject();
        if (test is not null)
        {
            w.WriteNumber("duration", test.DurationMs / 1000.0);
            string excerpt = test.Verdict == Verdict.Pass ? "" : $"{test.Verdict}: {test.Reason}\n{Because(test)}".Trim();
            if (excerpt.Length > 0)
            {
                w.WriteString("log_excerpt", Json.Clean(excerpt.Length > MaxExcerpt ? excerpt[..MaxExcerpt] : excerpt));
            }
        }

        w.WriteEndObject();
    }

    private static string Id(RunRecord run) => $"{Origin}:{run.Kernel.Id}-{run.Started.ToUnixTimeSeconds()}";

    private static string Status(Verdict verdict) => verdict switch
    {
        Verdict.Pass => "PASS",
        Verdict.Skip => "SKIP",
        Verdict.Broken => "ERROR",
        _ => "FAIL",
    };
}

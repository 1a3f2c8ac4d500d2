// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Xml.Linq;

namespace Conformance.Results.Formats;

/// <summary>TRX, as .NET's own tools read it. Ids are derived from test and kernel, so that the same result is the same file.</summary>
internal sealed class Trx : ResultFormat
{
    private const string UnitTest = "13cdc9d9-ddb5-4fa4-a97d-d965ccfc6d4b";
    private const string NoVerdict = "no verdict";
    private const string List = "8c84fa94-04c1-424b-9868-57a2d4851a1d";

    private static readonly XNamespace s_ns = "http://microsoft.com/schemas/VisualStudio/TeamTest/2010";

    public override string Name => "trx";

    public override string FileName => "results.trx";

    public override string Description => "TRX, for .NET tooling";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        List<(RunRecord Run, TestRecord Test)> all = [.. runs.SelectMany(r => r.Tests.Concat((r.Missing ?? []).Select(Missing)).Select(t => (r, t)))];
        string start = Time(runs.Count == 0 ? DateTimeOffset.UnixEpoch : runs.Min(r => r.Started));
        int passed = all.Count(a => a.Test.Verdict == Verdict.Pass), skipped = all.Count(a => a.Test.Verdict is Verdict.Skip or Verdict.Known);
        return XmlText.Of(new XElement(s_ns + "TestRun", new XAttribute("id", Id("run", start)), new XAttribute("name", "conformance"),
            new XElement(s_ns + "Times", new XAttribute("creation", start), new XAttribute("start", start), new XAttribute("finish", start)),
            new XElement(s_ns + "Results", all.Select(a => Result(a.Run, a.Test))),
            new XElement(s_ns + "TestDefinitions", all.Select(a => new XElement(s_ns + "UnitTest", new XAttribute("name", Title(a.Run, a.Test)), new XAttribute("id", Id(a.Run.Kernel.Id, a.Test.Id)),
                new XElement(s_ns + "Execution", new XAttribute("id", Id("execution", a.Run.Kernel.Id + a.Test.Id))),
                new XElement(s_ns + "TestMethod", new XAttribute("codeBase", a.Test.Suite), new XAttribute("className", a.Test.Id[..a.Test.Id.LastIndexOf('.')]), new XAttribute("name", a.Test.Id[(a.Test.Id.LastIndexOf('.') + 1)..]))))),
            new XElement(s_ns + "TestEntries", all.Select(a => new XElement(s_ns + "TestEntry", new XAttribute("testId", Id(a.Run.Kernel.Id, a.Test.Id)), new XAttribute("executionId", Id("execution", a.Run.Kernel.Id + a.Test.Id)), new XAttribute("testListId", List)))),
            new XElement(s_ns + "TestLists", new XElement(s_ns + "TestList", new XAttribute("name", "All"), new XAttribute("id", List))),
            new XElement(s_ns + "ResultSummary", new XAttribute("outcome", passed + skipped == all.Count && passed > 0 ? "Completed" : "Failed"),
                new XElement(s_ns + "Counters", new XAttribute("total", all.Count), new XAttribute("executed", all.Count - skipped), new XAttribute("passed", passed), new XAttribute("failed", all.Count - passed - skipped)))));
    }

    private static XElement Result(RunRecord run, TestRecord test)
    {
        var result = new XElement(s_ns + "UnitTestResult",
            new XAttribute("testId", Id(run.Kernel.Id, test.Id)), new XAttribute("executionId", Id("execution", run.Kernel.Id + test.Id)), new XAttribute("testName", Title(run, test)),
            new XAttribute("outcome", test.Verdict switch { Verdict.Pass => "Passed", Verdict.Skip or Verdict.Known => "NotExecuted", Verdict.Hang => "Timeout", Verdict.Broken => test.Reason == NoVerdict ? "Aborted" : "Error", _ => "Failed" }),
            new XAttribute("duration", TimeSpan.FromMilliseconds(test.DurationMs).ToString("c", CultureInfo.InvariantCulture)),
            new XAttribute("startTime", Time(run.Started)), new XAttribute("endTime", Time(run.Started)), new XAttribute("testType", UnitTest), new XAttribute("testListId", List));
        if (test.Verdict is Verdict.Skip or Verdict.Known)
        {
            result.Add(new XElement(s_ns + "Output", new XElement(s_ns + "StdOut", XmlText.Clean(test.Reason ?? ""))));
        }
        else if (test.Verdict != Verdict.Pass)
        {
            result.Add(new XElement(s_ns + "Output", new XElement(s_ns + "ErrorInfo", new XElement(s_ns + "Message", XmlText.Clean($"{test.Verdict}: {test.Reason}\n{Because(test)}")))));
        }

        return result;
    }

    /// <summary>A test that was planned and has no verdict: a reader that knows only what is in the file must not take the run for whole.</summary>
    private static TestRecord Missing(string id) => new() { Id = id, Suite = id[..id.IndexOf('.', StringComparison.Ordinal)], Verdict = Verdict.Broken, Reason = NoVerdict };

    private static string Title(RunRecord run, TestRecord test) => $"{test.Id} ({run.Kernel.Id})";

    private static string Time(DateTimeOffset time) => time.ToString("o", CultureInfo.InvariantCulture);

    private static string Id(string a, string b) => new Guid(SHA256.HashData(Encoding.UTF8.GetBytes($"{a}\n{b}")).AsSpan(0, 16)).ToString();
}

// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;
using System.Xml;
using System.Xml.Linq;

namespace Conformance.Results.Formats;

/// <summary>JUnit XML, in the shape that every consumer of it reads: a suite per kernel and suite.</summary>
internal sealed class JUnit : ResultFormat
{
    public override string Name => "junit";

    public override string FileName => "results.junit.xml";

    public override string Description => "JUnit XML, a testsuite per kernel and suite";

    public override string Write(IReadOnlyList<RunRecord> runs)
    {
        List<XElement> suites = [.. runs.SelectMany(run => BySuite(run).Select(s => Suite(run, s.Key, [.. s])).Concat(MissingSuite(run)))];
        var root = new XElement("testsuites", Totals(runs.SelectMany(r => r.Tests).ToList(), runs.Sum(r => r.Missing?.Count ?? 0)), suites);
        return XmlText.Of(root);
    }

    private static XElement Suite(RunRecord run, string name, IReadOnlyList<TestRecord> tests) => new("testsuite",
        new XAttribute("name", $"{run.Kernel.Id}.{name}"), Totals(tests, 0),
        new XAttribute("timestamp", run.Started.UtcDateTime.ToString("yyyy-MM-ddTHH:mm:ss", CultureInfo.InvariantCulture)),
        new XElement("properties",
            Property("kernel", run.Kernel.Release), Property("arch", run.Kernel.Arch), Property("image-sha256", run.Kernel.ImageSha256 ?? ""), Property("target", Where(run))),
        tests.Select(t => Case(run, t)));

    private static IEnumerable<XElement> MissingSuite(RunRecord run) => run.Missing is { Count: > 0 } missing
        ? [new XElement("testsuite", new XAttribute("name", $"{run.Kernel.Id}.missing"), Totals([], missing.Count), missing.Select(id => new XElement("testcase",
            new XAttribute("classname", run.Kernel.Id), new XAttribute("name", id), new XAttribute("time", "0"),
            new XElement("error", new XAttribute("type", "Missing"), new XAttribute("message", "no verdict")))))]
        : [];

    private static XElement Property(string name, string value) => new("property", new XAttribute("name", name), new XAttribute("value", value));

    private static object[] Totals(IReadOnlyList<TestRecord> tests, int missing) =>
    [
        new XAttribute("tests", tests.Count + missing),
        new XAttribute("failures", tests.Count(t => t.Verdict == Verdict.Fail)),
        new XAttribute("errors", tests.Count(t => t.Verdict is Verdict.Crash or Verdict.Hang or Verdict.Broken) + missing),
        new XAttribute("skipped", tests.Count(t => t.Verdict is Verdict.Skip or Verdict.Known)),
        new XAttribute("time", Seconds(tests.Sum(t => t.DurationMs))),
    ];

    private static XElement Case(RunRecord run, TestRecord test)
    {
        int dot = test.Id.LastIndexOf('.');
        var element = new XElement("testcase", new XAttribute("classname", $"{run.Kernel.Id}.{test.Id[..dot]}"), new XAttribute("name", test.Id[(dot + 1)..]), new XAttribute("time", Seconds(test.DurationMs)));
        string reason = XmlText.Clean(test.Reason ?? "");
        switch (test.Verdict)
        {
            case Verdict.Fail:
                element.Add(new XElement("failure", new XAttribute("type", "Fail"), new XAttribute("message", reason), XmlText.Clean(Because(test))));
                break;
            case Verdict.Crash or Verdict.Hang or Verdict.Broken:
                element.Add(new XElement("error", new XAttribute("type", test.Verdict), new XAttribute("message", reason), XmlText.Clean(Because(test))));
                break;
            case Verdict.Skip or Verdict.Known:
                element.Add(new XElement("skipped", new XAttribute("type", test.Verdict), new XAttribute("message", reason)));
                break;
        }

        return element;
    }
}

/// <summary>XML 1.0 as text.</summary>
internal static class XmlText
{
    public static string Of(XElement root)
    {
        var text = new StringBuilder();
        using (var writer = XmlWriter.Create(text, new XmlWriterSettings { Indent = true, OmitXmlDeclaration = true, NewLineChars = "\n" }))
        {
            root.WriteTo(writer);
        }

        return "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n" + text + "\n";
    }

    /// <summary>XML cannot hold most control characters, and a console is full of them.</summary>
    public static string Clean(string text) => string.Concat(text.Select(c => XmlConvert.IsXmlChar(c) ? c : '\uFFFD'));
}

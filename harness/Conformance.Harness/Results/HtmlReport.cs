// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Net;
using System.Text;
using Conformance.Fixtures;

namespace Conformance.Results;

/// <summary>A rule and where it comes from, as the report lists them.</summary>
public sealed record ReportClause(string Id, string Text, string? Source);

/// <summary>
/// One self-contained page for whoever decides about a release: verdict, identities, what changed, the matrix of claims and kernels, every failure with
/// its evidence, clauses with and without a test. It needs no network, and no script to be read.
/// </summary>
public sealed class HtmlReport(IReadOnlyList<RunRecord> runs, IReadOnlyList<ReportClause> clauses, RunRecord? baseline = null)
{
    /// <summary>What is known to differ between kernels.</summary>
    public IReadOnlyCollection<KernelChange> KnownChanges { get; init; } = [];

    /// <summary>What kernels are expected to have.</summary>
    public IReadOnlyList<ExpectedCapability> Expected { get; init; } = [];

    private readonly StringBuilder _html = new();

    /// <param name="evidence">Reads a file that a record names, by kernel id and path; null when it is gone.</param>
    public string Write(Func<RunRecord, string, string?> evidence)
    {
        List<(RunRecord Run, TestRecord Test)> bad = [.. runs.SelectMany(r => r.Tests.Where(t => t.Verdict is not (Verdict.Pass or Verdict.Skip)).Select(t => (r, t)))];
        int missing = runs.Sum(r => r.Missing?.Count ?? 0);
        bool red = bad.Any(b => b.Test.Verdict != Verdict.Known) || missing > 0 || !runs.Any(r => r.Tests.Any(t => t.Verdict == Verdict.Pass));
        _html.Append("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>Conformance report</title>\n<style>")
            .Append(Style).Append("</style>\n</head>\n<body>\n<header>\n<p class=\"kicker\">Conformance: virtualization interrupt interfaces</p>\n");
        _html.Append($"<h1 class=\"{(red ? "bad" : "good")}\">{Sentence(bad, missing)}</h1>\n");
        _html.Append("<p class=\"rule\">Go when nothing failed, crashed, hung or is missing. A skip is not a pass: each says what was absent.</p>\n<nav><a href=\"#kernels\">Kernels</a> ")
            .Append(baseline is null ? "" : "<a href=\"#changes\">Changes</a> ").Append("<a href=\"#failures\">Failures</a> <a href=\"#matrix\">Matrix</a> <a href=\"#differences\">From kernel to kernel</a> <a href=\"#capabilities\">Capabilities</a> <a href=\"#skips\">Skips</a> <a href=\"#clauses\">Clauses</a></nav>\n</header>\n<main>\n");
        Kernels();
        if (baseline is not null)
        {
            Changes(baseline);
        }

        Failures(bad, evidence);
        Matrix();
        Differences();
        Capabilities();
        Skips();
        Clauses();
        _html.Append("</main>\n<script>").Append(Script).Append("</script>\n</body>\n</html>\n");
        return _html.ToString();
    }

    private string Sentence(List<(RunRecord Run, TestRecord Test)> bad, int missing)
    {
        int tests = runs.Sum(r => r.Tests.Count);
        string on = runs.Count == 1 ? E(runs[0].Kernel.Release) : $"{runs.Count} kernels";
        var wrong = new List<string>();
        foreach ((Verdict verdict, string word) in new[] { (Verdict.Fail, "failed"), (Verdict.Crash, "crashed the kernel"), (Verdict.Hang, "hung it"), (Verdict.Broken, "could not be judged") })
        {
            int count = bad.Count(b => b.Test.Verdict == verdict);
            if (count > 0)
            {
                wrong.Add($"{count} {word}");
            }
        }

        if (missing > 0)
        {
            wrong.Add($"{missing} have no verdict");
        }

        int passed = runs.Sum(r => r.Tests.Count(t => t.Verdict == Verdict.Pass));
        return wrong.Count == 0
            ? passed == 0 ? $"Nothing was proved on {on}." : $"No claim broken on {on}: {passed} of {tests} verdicts are passes, {Plural(runs.Sum(r => r.Tests.Count(t => t.Verdict == Verdict.Skip)), "skip")}{(bad.Count == 0 ? "" : $", {Plural(bad.Count, "known failure")}")}."
            : $"On {on}, of {tests + missing} claims {string.Join(", ", wrong)}.";
    }

    private void Kernels()
    {
        _html.Append("<section id=\"kernels\">\n<h2>Kernels</h2>\n<div class=\"scroll\"><table><thead><tr><th>Kernel<th>From<th>Ran on<th>Started<th>Took<th>Pass<th>Fail<th>Crash<th>Hang<th>Broken<th>Known<th>Skip<th>Missing</tr></thead><tbody>\n");
        foreach (RunRecord run in runs)
        {
            int Count(Verdict v) => run.Tests.Count(t => t.Verdict == v);
            string Cell(int n, string cls) => $"<td class=\"n {(n > 0 ? cls : "zero")}\">{n}";
            _html.Append($"<tr><th scope=\"row\">{E(run.Kernel.Release)} <small>{E(run.Kernel.Arch)}</small><td>{E(run.Kernel.Source)}<td>{E(Where(run))}<td>{run.Started.UtcDateTime.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture)} UTC<td class=\"n\">{run.DurationMs / 1000} s")
                .Append(Cell(Count(Verdict.Pass), "good")).Append(Cell(Count(Verdict.Fail), "bad")).Append(Cell(Count(Verdict.Crash), "bad")).Append(Cell(Count(Verdict.Hang), "bad"))
                .Append(Cell(Count(Verdict.Broken), "warn")).Append(Cell(Count(Verdict.Known), "warn")).Append(Cell(Count(Verdict.Skip), "skip")).Append(Cell(run.Missing?.Count ?? 0, "bad")).Append("</tr>\n");
        }

        _html.Append("</tbody></table></div>\n");
        foreach (RunRecord run in runs)
        {
            _html.Append($"<details><summary>Identity of {E(run.Kernel.Id)}</summary><table class=\"plain\"><tr><th>image sha256<td><code>{E(run.Kernel.ImageSha256 ?? "not booted from a file")}</code></tr><tr><th>suites<td>{E(run.SuiteVersion)}</tr>");
            foreach ((string name, string hash) in run.Kernel.Modules)
            {
                _html.Append($"<tr><th>{E(name)}<td><code>{E(hash)}</code></tr>");
            }

            _html.Append("</table></details>\n");
        }

        _html.Append("</section>\n");
    }

    private void Changes(RunRecord before)
    {
        _html.Append($"<section id=\"changes\">\n<h2>Changes since {E(before.Kernel.Release)}, {before.Started.UtcDateTime.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)}</h2>\n");
        foreach (RunRecord run in runs)
        {
            RunComparison comparison = RunComparison.Of(before, run);
            _html.Append($"<h3>{E(run.Kernel.Id)}</h3>\n<ul class=\"changes\">\n");
            foreach (IGrouping<Change, TestChange> group in comparison.Changes.Where(c => c.Change != Change.Same).GroupBy(c => c.Change).OrderBy(g => g.Key))
            {
                string word = char.ToLowerInvariant(group.Key.ToString()[0]) + group.Key.ToString()[1..];
                _html.Append($"<li><details{(group.Key is Change.Regression or Change.NewFailure ? " open" : "")}><summary>{word}: {group.Count()}</summary><ul>");
                foreach (TestChange change in group)
                {
                    _html.Append($"<li><code>{E(change.Id)}</code> {change.Before?.Verdict.ToString() ?? "absent"} &rarr; {change.After?.Verdict.ToString() ?? "absent"}");
                }

                _html.Append("</ul></details>\n");
            }

            _html.Append(comparison.Changes.All(c => c.Change == Change.Same) ? "<li>none\n</ul>\n" : "</ul>\n");
        }

        _html.Append("</section>\n");
    }

    private void Failures(List<(RunRecord Run, TestRecord Test)> bad, Func<RunRecord, string, string?> evidence)
    {
        _html.Append("<section id=\"failures\">\n<h2>Failures</h2>\n");
        if (bad.Count == 0)
        {
            _html.Append("<p>None.</p>\n");
        }

        foreach ((RunRecord run, TestRecord test) in bad)
        {
            _html.Append($"<article id=\"{E(Anchor(run, test.Id))}\"><h3><span class=\"v {Class(test.Verdict)}\">{test.Verdict}</span> <code>{E(test.Id)}</code> <small>on {E(run.Kernel.Release)}</small></h3>\n<p>{E(test.Reason ?? "")}</p>\n");
            if (test.Explained is { Count: > 0 } lines)
            {
                _html.Append("<dl>");
                foreach (Explanation line in lines)
                {
                    _html.Append($"<dt>{E(line.Label)}<dd><pre>{E(line.Text)}</pre>");
                }

                _html.Append("</dl>\n");
            }

            foreach (string id in test.Clauses)
            {
                ReportClause? clause = clauses.FirstOrDefault(c => c.Id == id);
                _html.Append($"<p class=\"clause\"><a href=\"#{E(id)}\"><code>{E(id)}</code></a> {E(clause?.Text ?? "")} <small>{E(clause?.Source ?? "")}</small></p>\n");
            }

            foreach (Fix fix in test.FixedBy ?? [])
            {
                _html.Append($"<p>This kernel may lack <code>{E(fix.Commit)}</code>, “{E(fix.Subject)}”.</p>\n");
            }

            foreach ((string title, string? file) in new[] { ("Kernel console", test.Console), ("What the session did", test.Journal) })
            {
                if (file is not null && evidence(run, file) is string content)
                {
                    _html.Append($"<details class=\"evidence\"><summary>{title}</summary><pre>{E(Last(content))}</pre></details>\n");
                }
            }

            string architecture = run.Kernel.Arch == "x86_64" ? string.Empty : $"--arch {E(run.Kernel.Arch)} ";
            _html.Append($"<p>Again: <code>./conformance run --kernel {E(run.Kernel.Source)} {architecture}--test {E(test.Id)}</code></p>\n</article>\n");
        }

        foreach (RunRecord run in runs.Where(r => r.Missing is { Count: > 0 }))
        {
            _html.Append($"<article><h3><span class=\"v bad\">Missing</span> on {E(run.Kernel.Release)}</h3><ul>{string.Concat(run.Missing!.Select(m => $"<li><code>{E(m)}</code>"))}</ul></article>\n");
        }

        _html.Append("</section>\n");
    }

    private void Matrix()
    {
        _html.Append("<section id=\"matrix\">\n<h2>Claims and kernels</h2>\n<p id=\"filters\" hidden>Show <label><input type=\"radio\" name=\"f\" value=\"all\" checked> all</label> <label><input type=\"radio\" name=\"f\" value=\"differ\"> kernels differ</label> <label><input type=\"radio\" name=\"f\" value=\"red\"> not passed</label> <label>named <input type=\"search\" id=\"name\" size=\"24\"></label></p>\n");
        Dictionary<string, TestRecord>[] columns = [.. runs.Select(r => r.Tests.ToDictionary(t => t.Id))];
        IEnumerable<string> ids = columns.SelectMany(c => c.Keys).Concat(runs.SelectMany(r => r.Missing ?? [])).Distinct().Order(StringComparer.Ordinal);
        foreach (IGrouping<string, string> suite in ids.GroupBy(id => id.Split('.')[0]))
        {
            _html.Append($"<h3>{E(suite.Key)} <small>{suite.Count()} claims</small></h3>\n");
            foreach (IGrouping<string, string> noun in suite.GroupBy(id => id.Split('.')[1]))
            {
                bool open = noun.Any(id => columns.Any(c => c.TryGetValue(id, out TestRecord? t) && t.Verdict is not (Verdict.Pass or Verdict.Skip)));
                _html.Append($"<details class=\"noun\"{(open ? " open" : "")}><summary>{E(noun.Key)} <small>{noun.Count()}</small> {Summary(noun, columns)}</summary>\n<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th>Claim{string.Concat(runs.Select(r => $"<th>{E(Short(r))}"))}</tr></thead><tbody>\n");
                foreach (string id in noun)
                {
                    List<TestRecord?> row = [.. columns.Select(c => c.GetValueOrDefault(id))];
                    bool differ = row.Select(t => t?.Verdict).Distinct().Count() > 1, notPassed = row.Any(t => t?.Verdict is not Verdict.Pass);
                    _html.Append($"<tr data-d=\"{(differ ? 1 : 0)}\" data-r=\"{(notPassed ? 1 : 0)}\"><th scope=\"row\">{E(Sentence(id))}");
                    for (int i = 0; i < row.Count; i++)
                    {
                        _html.Append(Cell(runs[i], id, row[i]));
                    }

                    _html.Append("</tr>\n");
                }

                _html.Append("</tbody></table></div></details>\n");
            }
        }

        _html.Append("</section>\n");
    }

    private string Summary(IEnumerable<string> ids, Dictionary<string, TestRecord>[] columns) => string.Concat(columns.Select((c, i) =>
    {
        Verdict worst = ids.Select(id => c.TryGetValue(id, out TestRecord? t) ? t.Verdict : Verdict.Skip).DefaultIfEmpty(Verdict.Skip)
            .MaxBy(v => v switch { Verdict.Skip => 0, Verdict.Pass => 1, Verdict.Known => 2, Verdict.Broken => 3, _ => 4 });
        return $" <span class=\"dot {Class(worst)}\" title=\"{E(Short(runs[i]))}: {worst}\">{Glyph(worst)}</span>";
    }));

    private static string Cell(RunRecord run, string id, TestRecord? test)
    {
        if (test is null)
        {
            return run.Missing?.Contains(id) == true ? "<td class=\"bad\">missing" : "<td class=\"zero\">-";
        }

        string text = $"{Glyph(test.Verdict)} {test.Verdict.ToString().ToLowerInvariant()}";
        return test.Verdict is Verdict.Pass ? $"<td class=\"good\">{text}"
            : test.Verdict is Verdict.Skip ? $"<td class=\"skip\" title=\"{E(test.Reason ?? "")}\">{text}"
            : $"<td class=\"{Class(test.Verdict)}\"><a href=\"#{E(Anchor(run, id))}\">{text}</a>";
    }

    private void Skips()
    {
        _html.Append("<section id=\"skips\">\n<h2>Never executed</h2>\n");
        foreach (RunRecord run in runs)
        {
            List<TestRecord> skipped = [.. run.Tests.Where(t => t.Verdict == Verdict.Skip)];
            _html.Append($"<h3>{E(run.Kernel.Release)} <small>{skipped.Count} of {run.Tests.Count} claims</small></h3>\n<ul>\n");
            foreach (IGrouping<string, TestRecord> reason in skipped.GroupBy(t => t.Reason ?? "").OrderByDescending(g => g.Count()))
            {
                _html.Append($"<li><details><summary>{reason.Count()} × {E(reason.Key)}</summary><ul>{string.Concat(reason.Select(t => $"<li><code>{E(t.Id)}</code>"))}</ul></details>\n");
            }

            _html.Append(skipped.Count == 0 ? "<li>none\n</ul>\n" : "</ul>\n");
        }

        _html.Append("</section>\n");
    }

    private void Clauses()
    {
        ILookup<string, string> tests = runs.SelectMany(r => r.Tests).SelectMany(t => t.Clauses.Select(c => (c, t.Id))).Distinct().ToLookup(p => p.c, p => p.Id);
        List<ReportClause> untested = [.. clauses.Where(c => !tests.Contains(c.Id))];
        _html.Append($"<section id=\"clauses\">\n<h2>Clauses</h2>\n<p>{clauses.Count - untested.Count} of {clauses.Count} rules were tested in these runs.</p>\n<details{(untested.Count is > 0 and < 40 ? " open" : "")}><summary>{untested.Count} rules without a test here</summary><ul class=\"rules\">\n");
        foreach (ReportClause clause in untested)
        {
            _html.Append($"<li id=\"{E(clause.Id)}\"><code>{E(clause.Id)}</code> {E(clause.Text)} <small>{E(clause.Source ?? "")}</small>\n");
        }

        _html.Append("</ul></details>\n<details><summary>Rules with a test</summary><ul class=\"rules\">\n");
        foreach (ReportClause clause in clauses.Where(c => tests.Contains(c.Id)))
        {
            _html.Append($"<li id=\"{E(clause.Id)}\"><code>{E(clause.Id)}</code> {E(clause.Text)} <small>{E(clause.Source ?? "")}; {tests[clause.Id].Count()} tests</small>\n");
        }

        _html.Append("</ul></details>\n</section>\n");
    }

    /// <summary>What changes between a kernel and the next newer one of its architecture.</summary>
    private void Differences()
    {
        List<(RunRecord Before, RunRecord After)> pairs = [.. runs.GroupBy(r => r.Kernel.Arch)
            .Select(g => g.Where(r => r.StableRelease is not null).OrderBy(r => r.StableRelease).ToList())
            .SelectMany(g => g.Zip(g.Skip(1)))];
        if (pairs.Count == 0)
        {
            _html.Append("<section id=\"differences\">\n<h2>From kernel to kernel</h2>\n<p>There is one kernel of an architecture here.</p>\n</section>\n");
            return;
        }

        _html.Append("<section id=\"differences\">\n<h2>From kernel to kernel</h2>\n");
        foreach ((RunRecord before, RunRecord after) in pairs)
        {
            _html.Append($"<h3>{E(Short(before))} &rarr; {E(Short(after))}</h3>\n");
            List<KernelChange> changes = [.. KnownChanges.Where(c => c.IsIn(after.StableRelease!) && !c.IsIn(before.StableRelease!))];
            if (changes.Count > 0)
            {
                _html.Append("<ul class=\"rules\">\n").AppendJoin("", changes.Select(c => $"<li><code>{E(c.Name)}</code> {E(c.Summary)} <small>{E(c.Commit == "-" ? "" : c.Commit)}</small>\n")).Append("</ul>\n");
            }

            Dictionary<string, TestRecord> old = before.Tests.ToDictionary(t => t.Id);
            List<(string What, string Id)> rows = [.. after.Tests.Where(t => old.ContainsKey(t.Id)).SelectMany(t => Difference(old[t.Id], t).Select(w => (w, t.Id)))];
            foreach (IGrouping<string, string> group in rows.GroupBy(r => r.What, r => r.Id).OrderBy(g => g.Key, StringComparer.Ordinal))
            {
                _html.Append($"<details><summary>{E(group.Key)} <small>{Plural(group.Count(), "claim")}</small></summary><ul>{string.Concat(group.Select(id => $"<li><code>{E(id)}</code>\n"))}</ul></details>\n");
            }

            if (rows.Count == 0)
            {
                _html.Append("<p>Every claim that both ran has the same verdict.</p>\n");
            }
        }

        _html.Append("</section>\n");
    }

    private static IEnumerable<string> Difference(TestRecord before, TestRecord after)
    {
        if (before.Verdict != after.Verdict)
        {
            TestRecord? skipped = after.Verdict == Verdict.Skip ? after : before.Verdict == Verdict.Skip ? before : null;
            string why = SkipReason.TryParse(skipped?.Reason, out SkipReason? reason) ? $" ({reason.Needs})" : "";
            yield return $"{before.Verdict} → {after.Verdict}{why}";
        }
        else if (before.Snapshot is not null && after.Snapshot is not null && before.Snapshot != after.Snapshot)
        {
            yield return $"behaves otherwise: {Path.GetFileName(before.Snapshot)} → {Path.GetFileName(after.Snapshot)}";
        }
    }

    /// <summary>What each kernel says it has, and what came of the claims that rest on it.</summary>
    private void Capabilities()
    {
        static IReadOnlyList<string> Absent(TestRecord test) =>
            test.Verdict == Verdict.Skip && SkipReason.TryParse(test.Reason, out SkipReason? reason) && reason.Kind == SkipKind.CapabilityAbsent ? reason.Needs.Split(" and ") : [];
        List<string> names = [.. Expected.Select(c => c.Name)
            .Concat(runs.SelectMany(r => r.Tests).SelectMany(t => (t.Needs ?? []).Concat(Absent(t))).Distinct().Order(StringComparer.Ordinal)).Distinct()];
        _html.Append("<section id=\"capabilities\">\n<h2>Capabilities, claimed and proved</h2>\n<p>Of each capability: whether the kernel claims it, and the claims that rest on it.</p>\n");
        _html.Append($"<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th>Capability{string.Concat(runs.Select(r => $"<th>{E(Short(r))}"))}</tr></thead><tbody>\n");
        foreach (string name in names)
        {
            _html.Append($"<tr><th scope=\"row\"><code>{E(name)}</code> <small>{E(Expected.FirstOrDefault(c => c.Name == name)?.Summary ?? "")}</small>");
            foreach (RunRecord run in runs)
            {
                List<TestRecord> tests = [.. run.Tests.Where(t => t.Needs?.Contains(name) == true)];
                int passed = tests.Count(t => t.Verdict == Verdict.Pass), red = tests.Count(t => t.Verdict is not (Verdict.Pass or Verdict.Skip));
                bool absent = run.Tests.Any(t => Absent(t).Contains(name)), gone = run.Tests.Any(t => t.Said == Verdict.Skip && t.Reason?.StartsWith(name + " ", StringComparison.Ordinal) == true);
                _html.Append(gone ? "<td class=\"bad\">gone"
                    : absent ? "<td class=\"skip\">absent"
                    : red > 0 ? $"<td class=\"bad\">claimed, {red} of {tests.Count} not passed"
                    : passed > 0 ? $"<td class=\"good\">proved by {passed}"
                    : "<td class=\"zero\">-");
            }

            _html.Append("</tr>\n");
        }

        _html.Append("</tbody></table></div>\n</section>\n");
    }

    private static string Plural(int count, string word) => $"{count} {word}{(count == 1 ? "" : "s")}";

    private static string E(string text) => WebUtility.HtmlEncode(text);

    private static string Anchor(RunRecord run, string id) => $"{run.Kernel.Id}/{id}";

    private static string Short(RunRecord run) => (run.StableRelease?.ToString() ?? run.Kernel.Release.Split('+', '-')[0]) + (run.Kernel.Arch == "x86_64" ? "" : " " + run.Kernel.Arch);

    private static string Where(RunRecord run) => run.Target is TargetIdentity t ? $"{t.Kind}, {t.Accelerator}{(t.Qemu is null ? "" : $", QEMU {t.Qemu}")}" : "never reached";

    /// <summary>The method name as the sentence it is.</summary>
    private static string Sentence(string id)
    {
        string[] parts = id.Split('.');
        var text = new StringBuilder();
        string method = parts.Length > 2 ? parts[2] : id;
        for (int i = 0; i < method.Length; i++)
        {
            bool begins = i > 0 && char.IsUpper(method[i]) && (!char.IsUpper(method[i - 1]) || (i + 1 < method.Length && char.IsLower(method[i + 1])));
            // Two capitals before a third are an acronym; one is the article in "AfterAMemslotChange".
            bool acronym = begins && method.AsSpan(i).IndexOfAnyExceptInRange('A', 'Z') is var run && (run < 0 ? method.Length - i > 1 : run > 2);
            text.Append(begins ? " " : "").Append(begins && !acronym ? char.ToLowerInvariant(method[i]) : method[i]);
        }

        return parts.Length > 3 ? $"{text} ({string.Join('.', parts[3..])})" : text.ToString();
    }

    private static string Class(Verdict verdict) => verdict switch
    {
        Verdict.Pass => "good",
        Verdict.Skip => "skip",
        Verdict.Known or Verdict.Broken => "warn",
        _ => "bad",
    };

    private static string Glyph(Verdict verdict) => verdict switch
    {
        Verdict.Pass => "✓",
        Verdict.Fail => "✗",
        Verdict.Skip => "–",
        Verdict.Known => "≈",
        Verdict.Crash => "☠",
        Verdict.Hang => "∞",
        _ => "?",
    };

    private static string Last(string text)
    {
        string[] lines = text.TrimEnd().Split('\n');
        const int Kept = 120;
        return lines.Length <= Kept ? text.TrimEnd() : $"… {lines.Length - Kept} lines …\n{string.Join('\n', lines[^Kept..])}";
    }

    private const string Style = """
        :root{--bg:#fff;--fg:#1a1d21;--dim:#5b6470;--line:#d9dee4;--panel:#f5f7f9;--good:#0b6b3a;--goodbg:#e3f4ea;--bad:#a3160f;--badbg:#fde7e5;--warn:#7a4b00;--warnbg:#fff1d6;--skip:#5b6470;--skipbg:#eef1f4;--link:#0a58b0}
        @media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e7ea;--dim:#98a2ad;--line:#323941;--panel:#1c2125;--good:#6fd39b;--goodbg:#12301f;--bad:#ff938a;--badbg:#3c1714;--warn:#f0bd62;--warnbg:#362708;--skip:#98a2ad;--skipbg:#23292f;--link:#7db6f5}}
        *{box-sizing:border-box}body{margin:0 auto;max-width:74rem;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;background:var(--bg);color:var(--fg)}
        header{border-bottom:1px solid var(--line);padding-bottom:.8rem}h1{font-size:1.7rem;line-height:1.25;margin:.2rem 0 .5rem}h1.good{color:var(--good)}h1.bad{color:var(--bad)}
        .kicker,.rule,small{color:var(--dim)}.kicker{margin:0;letter-spacing:.02em}.rule{margin:.2rem 0 .6rem}nav a{margin-right:1rem}a{color:var(--link)}a:focus-visible,summary:focus-visible,input:focus-visible{outline:2px solid var(--link);outline-offset:2px}
        h2{margin:2rem 0 .6rem;font-size:1.25rem}h3{margin:1.2rem 0 .4rem;font-size:1.02rem}.scroll{overflow-x:auto}
        table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}thead th{color:var(--dim);font-weight:600;white-space:nowrap}
        table.plain{width:auto}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}th[scope=row]{font-weight:400}.matrix th[scope=row]{width:60%}.matrix td{white-space:nowrap}
        td.good{color:var(--good);background:var(--goodbg)}td.bad{color:var(--bad);background:var(--badbg);font-weight:600}td.warn{color:var(--warn);background:var(--warnbg)}td.skip{color:var(--skip);background:var(--skipbg)}td.zero{color:var(--dim)}td a{color:inherit}
        .v,.dot{border-radius:.3rem;padding:.05rem .4rem;font-size:.85em}.v.bad,.dot.bad{color:var(--bad);background:var(--badbg)}.v.warn,.dot.warn{color:var(--warn);background:var(--warnbg)}.dot.good{color:var(--good);background:var(--goodbg)}.dot.skip{color:var(--skip);background:var(--skipbg)}
        details{margin:.25rem 0}summary{cursor:pointer}article{border:1px solid var(--line);border-radius:.5rem;padding:.4rem 1rem .8rem;margin:.8rem 0}dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.4rem 0}dt{color:var(--dim)}dd{margin:0;min-width:0}
        pre{background:var(--panel);padding:.35rem .6rem;margin:0;overflow:auto;font-size:.83rem;border-radius:.3rem;max-height:28rem}code{font-size:.88em;overflow-wrap:anywhere}.rules li{margin:.2rem 0}#filters label{margin-right:1rem}
        tr[hidden],details[hidden]{display:none}@media print{body{max-width:none;padding:0;font-size:11px}nav,#filters{display:none}article,tr{break-inside:avoid}h2,h3{break-after:avoid}.scroll,pre{overflow:visible;max-height:none}pre{white-space:pre-wrap}details:not(.evidence)::details-content{content-visibility:visible;block-size:auto}}
        """;

    private const string Script = """
        (function(){var f=document.getElementById('filters');f.hidden=false;var name=document.getElementById('name');
        function apply(){var m=document.querySelector('input[name=f]:checked').value,q=name.value.toLowerCase();
        document.querySelectorAll('details.noun').forEach(function(d){var any=false;d.querySelectorAll('tbody tr').forEach(function(r){
        var show=(m!=='differ'||r.dataset.d==='1')&&(m!=='red'||r.dataset.r==='1')&&(q===''||r.textContent.toLowerCase().indexOf(q)>=0||d.querySelector('summary').textContent.toLowerCase().indexOf(q)>=0);
        r.hidden=!show;any=any||show});d.hidden=!any;if(any&&(m!=='all'||q!==''))d.open=true})}
        f.addEventListener('input',apply);var shut=[];
        addEventListener('beforeprint',function(){shut=[].slice.call(document.querySelectorAll('details:not([open]):not(.evidence)'));shut.forEach(function(d){d.open=true})});
        addEventListener('afterprint',function(){shut.forEach(function(d){d.open=false})})})();
        """;
}

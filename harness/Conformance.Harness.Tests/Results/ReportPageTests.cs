// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Cli;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

/// <summary>The report as a browser shows it. Without a Chromium on this machine these are skipped.</summary>
public sealed class ReportPageTests : IAsyncLifetime
{
    private static readonly string s_pictures = Directory.CreateDirectory(Path.Combine(Installation.Find(AppContext.BaseDirectory).Build, "test")).FullName;

    private readonly TemporaryFolder _folder = new();
    private Browser? _browser;

    private Browser Page => _browser!;

    public async ValueTask InitializeAsync()
    {
        Assert.SkipWhen(Browser.Program is null, "no chromium on this machine; apt-get install chromium");
        RunRecord old = Run("6.12.117", Verdict.Pass, Verdict.Skip, Verdict.Fail, Verdict.Known, Verdict.Crash);
        RunRecord now = Run("7.2.13", Verdict.Pass, Verdict.Pass, Verdict.Fail, Verdict.Pass, Verdict.Pass);
        await File.WriteAllTextAsync(_folder["report.html"], new HtmlReport([old, now], [new ReportClause("kvm-xen/a", "A rule.", "code xen.c"), new ReportClause("kvm-xen/b", "Untested.", "code xen.c")], old)
            .Write((_, file) => string.Concat(Enumerable.Repeat($"{file}: a line of what was seen\n", 40))));
        _browser = await Browser.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (_browser is not null)
        {
            await _browser.DisposeAsync();
        }

        _folder.Dispose();
    }

    [Theory]
    [InlineData("light")]
    [InlineData("dark")]
    public async Task PageIsReadableInBothSchemesAndComplainsOfNothing(string scheme)
    {
        await OpenAsync("screen", scheme);
        await Page.ShootAsync(Path.Combine(s_pictures, $"report-{scheme}.png"));

        Page.Complaints.Should().BeEmpty();
        foreach (string part in new[] { "body", "h1", "td.good", "td.bad", "td.warn", "td.skip", "small", "a", "pre" })
        {
            double contrast = double.Parse(await Page.AskAsync(Contrast(part)), CultureInfo.InvariantCulture);
            contrast.Should().BeGreaterThanOrEqualTo(4.5, $"{part} must be readable in the {scheme} scheme");
        }
    }

    [Fact]
    public async Task NarrowScreenDoesNotScrollSideways()
    {
        await Page.WidthAsync(390);
        await OpenAsync();

        (await Page.AskAsync("document.documentElement.scrollWidth <= 390")).Should().Be("true");
    }

    [Fact]
    public async Task FiltersShowWhatTheySay()
    {
        await OpenAsync();
        (await ShownAsync()).Should().Be("5");
        await ChooseAsync("differ");
        (await ShownAsync()).Should().Be("3");
        await ChooseAsync("red");
        (await ShownAsync()).Should().Be("4");
        await ChooseAsync("all");
        await Page.AskAsync("(function(){var n=document.getElementById('name');n.value='CLAIM2';n.dispatchEvent(new Event('input',{bubbles:true}))})()");
        (await ShownAsync()).Should().Be("1");
        Page.Complaints.Should().BeEmpty();
    }

    [Fact]
    public async Task WithoutScriptsAllOfItIsThere()
    {
        await Page.ScriptsAsync(on: false);
        await OpenAsync();

        (await Page.AskAsync("getComputedStyle(document.getElementById('filters')).display")).Should().Be("none");
        (await ShownAsync()).Should().Be("5");
        (await Page.AskAsync("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href')))")).Should().Be("true");
    }

    [Fact]
    public async Task KeyboardReachesLinksFiltersAndFolds()
    {
        await OpenAsync();
        HashSet<string> reached = [];
        for (int i = 0; i < 80 && reached.Add(await TabAsync()); i++)
        {
        }

        int links = int.Parse(await Page.AskAsync("document.querySelectorAll('nav a').length"), CultureInfo.InvariantCulture);
        reached.Count(r => r.StartsWith("A#", StringComparison.Ordinal)).Should().BeGreaterThanOrEqualTo(links);
        reached.Should().Contain(r => r.StartsWith("INPUT", StringComparison.Ordinal)).And.Contain(r => r.StartsWith("SUMMARY", StringComparison.Ordinal));
        await Page.AskAsync("document.querySelector('details:not([open]) > summary').focus()");
        await Page.PressAsync("Enter", 13);
        (await Page.AskAsync("document.activeElement.parentElement.open")).Should().Be("true");
    }

    [Fact]
    public async Task PaperHasTheFoldedPartsAndNoControls()
    {
        await OpenAsync("print");

        (await Page.AskAsync("getComputedStyle(document.querySelector('nav')).display")).Should().Be("none");
        (await Page.AskAsync("getComputedStyle(document.querySelector('details.noun'), '::details-content').contentVisibility")).Should().Be("visible");
    }

    private async Task OpenAsync(string media = "screen", string scheme = "light")
    {
        await Page.MediaAsync(media, scheme);
        await Page.OpenAsync(_folder["report.html"]);
    }

    private Task<string> ShownAsync() => Page.AskAsync("document.querySelectorAll('details.noun:not([hidden]) tbody tr:not([hidden])').length");

    private Task<string> ChooseAsync(string filter) => Page.AskAsync($"document.querySelector('input[value={filter}]').click()");

    // Positions tell apart what has no id.
    private async Task<string> TabAsync()
    {
        await Page.PressAsync("Tab", 9);
        return await Page.AskAsync("(function(){var e=document.activeElement;return e.tagName+'#'+[...document.querySelectorAll('*')].indexOf(e)})()");
    }

    // WCAG 2: relative luminance, of the text and of the first background below it that is not transparent.
    private static string Contrast(string selector) => $$"""
        (function(){var e=document.querySelector('{{selector}}');if(!e)return 99;
        function rgb(t){return t.match(/[\d.]+/g).map(Number)}
        function light(c){return [0.2126,0.7152,0.0722].reduce(function(s,w,i){var v=c[i]/255;return s+w*(v<=0.03928?v/12.92:Math.pow((v+0.055)/1.055,2.4))},0)}
        var b=e;while(b&&rgb(getComputedStyle(b).backgroundColor)[3]===0)b=b.parentElement;
        var x=light(rgb(getComputedStyle(e).color)),y=light(rgb(b?getComputedStyle(b).backgroundColor:'rgb(255,255,255)'));
        return (Math.max(x,y)+0.05)/(Math.min(x,y)+0.05)})()
        """;

    private static RunRecord Run(string release, params Verdict[] verdicts)
    {
        RunRecord run = Samples.Run(verdicts);
        return run with
        {
            Kernel = run.Kernel with { Id = $"debian-{release}-amd64", Release = $"{release}+deb13-amd64" },
            Target = new TargetIdentity("emulated", "tcg", "7.2.22") { Release = release },
            Tests =
            [
                .. run.Tests.Select(t => t.Verdict == Verdict.Pass ? t : t with
                {
                    Clauses = ["kvm-xen/a"],
                    Reason = t.Verdict == Verdict.Skip ? "capability-absent: needs KVM_CAP_X; KVM_CAP_X = 0" : "the vector did not come",
                    Explained = t.Verdict == Verdict.Skip ? null : [new("wanted", "0x41 0x31"), new("taken", "0x31")],
                    Console = "console/x.txt", Journal = "journal/x.txt",
                }),
            ],
        };
    }
}

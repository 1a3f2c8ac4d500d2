// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Harness.Tests.Results;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class RunViewTests
{
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();

    [Fact]
    public void WithoutATerminalEveryVerdictIsALineAndNothingIsRedrawn()
    {
        using (RunView view = View(interactive: false))
        {
            view.Now("a", "booting");
            view.Decided(Samples.Test("KvmXen.A.B", Verdict.Pass), Samples.Kernel);
            view.Decided(Samples.Test("KvmXen.A.C", Verdict.Skip, "hardware-absent: needs x; y"), Samples.Kernel);
        }

        _out.ToString().Should().Be("pass   KvmXen.A.B  12 ms\nskip   KvmXen.A.C  hardware-absent: needs x; y\n");
    }

    [Fact]
    public void TerminalShowsWhatRunsNowAndOnlyWhatWentWrongAboveIt()
    {
        using (RunView view = View(interactive: true))
        {
            view.Planned(2);
            view.Now("a", "KvmXen.A.B");
            view.Decided(Samples.Test("KvmXen.A.B", Verdict.Pass), Samples.Kernel);
            view.Decided(Samples.Test("KvmXen.A.C", Verdict.Fail), Samples.Kernel);
            view.Now("a", null);
        }

        string shown = _out.ToString();
        shown.Should().Contain("[0/2] KvmXen.A.B 0.").And.Contain("(1 passed, 1 failed)").And.Contain("fail   KvmXen.A.C explained\n");
        shown.Should().NotContain("pass   KvmXen.A.B").And.EndWith("\r\e[2K");
        shown.Split('\r').Should().OnlyContain(line => line.Length <= 80 + "\e[2K".Length + 1 || line.Contains('\n'));
    }

    [Fact]
    public void SameBrokennessIsExplainedOnce()
    {
        using (RunView view = View(interactive: false))
        {
            view.Decided(Samples.Test("KvmXen.A.B", Verdict.Broken, "no boot"), Samples.Kernel);
            view.Decided(Samples.Test("KvmXen.A.C", Verdict.Broken, "no boot"), Samples.Kernel);
        }

        _out.ToString().Should().Be("broken KvmXen.A.B explained\n  why\nbroken KvmXen.A.C explained   as above\n");
    }

    private RunView View(bool interactive) => new(
        new CommandOutput(_out, _error, interactive, Width: 80, Colour: false),
        everyTest: false,
        (test, _) => [$"{test.Id} explained", "  why"]);
}

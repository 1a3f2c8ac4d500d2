// SPDX-License-Identifier: MIT
using System.Text;
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

public sealed class KernelLogTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static string Warning(string function) => $"""
        [    5.000001] ------------[ cut here ]------------
        [    5.000002] WARNING: CPU: 0 PID: 9 at virt/kvm/eventfd.c:1 {function}+0x1/0x2 [kvm]
        [    5.000003] Call Trace:
        [    5.000004]  <TASK>
        [    5.000005]  kvm_vm_ioctl+0x1/0x2 [kvm]
        [    5.000006]  </TASK>
        [    5.000007] ---[ end trace 0000000000000000 ]---

        """;

    [Fact]
    public async Task MarkReturnsOnceItsLineCameBack()
    {
        TaskCompletionSource<string> written = new();
        KernelLog log = new((line, _) =>
        {
            written.SetResult(line);
            return Task.CompletedTask;
        });
        Task<LogMark> mark = log.MarkAsync("begin A.B", Cancellation);
        string line = await written.Task;
        Feed(log, "[    1.000000] something else\n");
        mark.IsCompleted.Should().BeFalse();
        Feed(log, $"[    1.000001] {line}\n");
        (await mark).Should().Be(new LogMark(2));
    }

    [Fact]
    public async Task ReportsAreAttributedToTheMarkBeforeThem()
    {
        KernelLog log = Echo();
        LogMark first = await log.MarkAsync("begin A.First", Cancellation);
        Feed(log, Warning("first"));
        LogMark second = await log.MarkAsync("begin A.Second", Cancellation);
        Feed(log, Warning("second"));
        LogMark end = await log.MarkAsync("end", Cancellation);

        log.ReportsSince(KernelLog.Start).Select(r => (r.During, r.Title)).Should()
            .Equal(("begin A.First", "WARNING in first"), ("begin A.Second", "WARNING in second"));
        log.ReportsSince(first).Should().HaveCount(2);
        log.ReportsSince(second).Select(r => r.Title).Should().Equal("WARNING in second");
        log.ReportsSince(end).Should().BeEmpty();
    }

    [Fact]
    public async Task MarkInTheMiddleOfAReportWaitsForItsEnd()
    {
        KernelLog log = Echo();
        LogMark begin = await log.MarkAsync("begin A.B", Cancellation);
        string report = Warning("cut_in_two");
        int middle = report.IndexOf("Call Trace", StringComparison.Ordinal) - "[    5.000003] ".Length;
        Feed(log, report[..middle]);
        Task<LogMark> end = log.MarkAsync("end A.B", Cancellation);
        end.IsCompleted.Should().BeFalse();
        Feed(log, report[middle..]);
        await end;
        KernelReport found = log.ReportsSince(begin).Should().ContainSingle().Subject;
        found.Fingerprint.Should().Be("kvm_vm_ioctl");
        found.Text.Should().EndWith("end trace 0000000000000000 ]---").And.NotContain("conformance:");
    }

    [Fact]
    public async Task MarkEndsAReportThatHasNoEndOfItsOwn()
    {
        KernelLog log = Echo();
        LogMark begin = log.Here;
        Feed(log, "[    5.000000] INFO: task agent:12 blocked for more than 120 seconds.\n[    5.000001]       Not tainted 6.12.1\n");
        await log.MarkAsync("end", Cancellation);
        Feed(log, "[    6.000000] Call Trace:\n[    6.000001]  of_somebody_else+0x1/0x2\n");
        log.ReportsSince(begin).Should().ContainSingle().Which.Text.Split('\n').Should().HaveCount(2);
    }

    [Fact]
    public async Task MarkOfAnEarlierRunInTheSameKernelIsNotMistaken()
    {
        List<string> written = [];
        KernelLog Log() => new((line, _) =>
        {
            written.Add(line);
            return Task.CompletedTask;
        });
        _ = Log().MarkAsync("begin A.B", Cancellation);
        KernelLog second = Log();
        Task<LogMark> mark = second.MarkAsync("begin A.B", Cancellation);
        Feed(second, $"[    1.000000] {written[0]}\n");
        mark.IsCompleted.Should().BeFalse();
        Feed(second, $"[    1.000000] {written[1]}\n");
        await mark;
    }

    [Fact]
    public async Task MarkFailsWhenTheLogEnds()
    {
        KernelLog log = new((_, _) => Task.CompletedTask);
        Task<LogMark> mark = log.MarkAsync("begin A.B", Cancellation);
        log.End();
        (await mark.Invoking(async m => await m).Should().ThrowAsync<KernelLogEndedException>()).WithMessage("*begin A.B*");
        await log.Invoking(l => l.MarkAsync("later", Cancellation)).Should().ThrowAsync<KernelLogEndedException>();
    }

    [Fact]
    public async Task DeathIsAnnouncedOnceItsReportIsComplete()
    {
        KernelLog log = new((_, _) => Task.CompletedTask);
        Feed(log, Warning("harmless"));
        Feed(log, "[    7.000000] Kernel panic - not syncing: sysrq triggered crash\n[    7.000001] CPU: 0 PID: 1 Comm: agent\n");
        log.Death.IsCompleted.Should().BeFalse();
        log.End();
        (await log.Death).Title.Should().Be("panic: sysrq triggered crash");
    }

    [Fact]
    public void RecordsOfProgramsAreNeverReports()
    {
        KernelLog log = new((_, _) => Task.CompletedTask);
        log.FeedRecord("12,100,5000000,-;BUG: a program writes this to /dev/kmsg");
        log.FeedRecord("3,101,5000001,-;BUG: Bad page state in process agent  pfn:1\n SUBSYSTEM=x");
        log.End();
        log.ReportsSince(KernelLog.Start).Select(r => r.Title).Should().Equal("BUG: Bad page state");
        log.Tail().Should().Contain("[    5.000001] BUG: Bad page state in process agent  pfn:1").And.NotContain("SUBSYSTEM");
    }

    [Fact]
    public void TailKeepsAnUnfinishedLine()
    {
        KernelLog log = new((_, _) => Task.CompletedTask);
        Feed(log, "one\r\ntwo\r\nhalf of the thi");
        log.Tail(2).Should().Be("two\nhalf of the thi");
    }

    [Fact]
    public void CharactersCutInTwoReadsStayWhole()
    {
        KernelLog log = new((_, _) => Task.CompletedTask);
        byte[] bytes = Encoding.UTF8.GetBytes("µs\n");
        log.Feed(bytes.AsSpan(0, 1));
        log.Feed(bytes.AsSpan(1));
        log.Tail().Should().Be("µs");
    }

    private static void Feed(KernelLog log, string text) => log.Feed(Encoding.UTF8.GetBytes(text.ReplaceLineEndings("\n")));

    private static KernelLog Echo()
    {
        KernelLog log = null!;
        log = new KernelLog((line, _) =>
        {
            Feed(log, $"[    9.000000] {line}\n");
            return Task.CompletedTask;
        });
        return log;
    }
}

// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;
using Conformance.Kernels;
using Conformance.Kvm;
using Conformance.Targets;
using Conformance.Wire;

namespace Conformance.Fixtures;

/// <summary>
/// A thread of a killed process that the kernel does not let end, while it goes on doing everything else. Seen twice, so that a slow machine
/// is not taken for it: meanwhile the thread did not run at all, or it ran a long time in the kernel and nowhere else.
/// </summary>
/// <param name="Reason">One sentence.</param>
/// <param name="Text">Where in the kernel it is.</param>
internal sealed record StuckThread(string Reason, string Text)
{
    /// <summary>How long it is watched after its process has had <see cref="AgentSession.ClosePatience"/> to end.</summary>
    internal static readonly TimeSpan Watch = TimeSpan.FromSeconds(15);

    // Of USER_HZ, which procfs counts in whatever the kernel's own is: five seconds of a processor's time.
    private const ulong LongInTheKernel = 500;

    /// <summary>Looks for one; null when none is proved.</summary>
    /// <param name="pid">The process that was killed.</param>
    public static async Task<StuckThread?> FindAsync(Target target, KernelArchitecture architecture, int pid)
    {
        try
        {
            using var patience = new CancellationTokenSource(Watch + KernelHost.AnswerPatience);
            AgentSession agent = await target.Agent.OpenSessionAsync(patience.Token);
            agent.Deadline = patience.Token;
            await using var session = new KernelSession(agent, architecture, target.GuestImagePath);
            IReadOnlyList<ThreadSample> before = await SampleAsync(session, pid);
            await Task.Delay(Watch, patience.Token);
            return Compare(before, await SampleAsync(session, pid)) is { } stuck ? stuck with { Text = stuck.Text + await SleepersAsync(session, pid) } : null;
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or KvmException)
        {
            return null;
        }
    }

    /// <summary>What two looks at the threads of a killed process prove.</summary>
    internal static StuckThread? Compare(IReadOnlyList<ThreadSample> before, IReadOnlyList<ThreadSample> after)
    {
        foreach (ThreadSample now in after)
        {
            if (before.FirstOrDefault(b => b.Thread == now.Thread) is { } then && Explain(then, now) is string what)
            {
                return new StuckThread($"killed, thread {now.Thread} does not end: {what}", $"thread {now.Thread}, state {now.State}:\n{now.Stack}");
            }
        }

        return null;
    }

    /// <summary>Where the kernel's own threads and other processes sleep uninterruptibly: one of them may have what the stuck one waits for.</summary>
    private static async Task<string> SleepersAsync(KernelSession session, int but)
    {
        var text = new StringBuilder();
        foreach (string process in (await session.ListFolderAsync("/proc")).Where(n => n.All(char.IsAsciiDigit) && n != $"{but}"))
        {
            string stat = await session.ReadFileAsync($"/proc/{process}/stat") ?? "";
            int name = stat.LastIndexOf(')');
            if (name > 0 && stat[name + 2] == 'D')
            {
                text.Append(CultureInfo.InvariantCulture, $"{stat[..(name + 1)]}, state D:\n{await session.ReadFileAsync($"/proc/{process}/stack")}");
            }
        }

        return text.ToString();
    }

    private static string? Explain(ThreadSample then, ThreadSample now)
    {
        string where = now.Stack.Split('\n')[0].Replace("[<0>] ", "", StringComparison.Ordinal).Trim();
        where = where.Length == 0 ? "" : $" in {where}";
        return (then.State, now.State) switch
        {
            ('D', 'D') when then.Switches == now.Switches && then.SystemTicks == now.SystemTicks =>
                $"it sleeps uninterruptibly{where} and was not woken for {Watch.TotalSeconds:0} s",
            ('R', 'R') when then.UserTicks == now.UserTicks && now.SystemTicks >= then.SystemTicks + LongInTheKernel =>
                $"it runs in the kernel{where}, for {(now.SystemTicks - then.SystemTicks) / 100} s of a processor's time",
            _ => null,
        };
    }

    private static async Task<IReadOnlyList<ThreadSample>> SampleAsync(KernelSession session, int pid)
    {
        var samples = new List<ThreadSample>();
        foreach (string thread in await session.ListFolderAsync($"/proc/{pid}/task"))
        {
            string folder = $"/proc/{pid}/task/{thread}";
            string? stat = await session.ReadFileAsync($"{folder}/stat");
            string? status = await session.ReadFileAsync($"{folder}/status");
            if (stat is not null && status is not null)
            {
                samples.Add(ThreadSample.Parse(stat, status, await session.ReadFileAsync($"{folder}/stack") ?? ""));
            }
        }

        return samples;
    }
}

/// <summary>A thread at one moment, from procfs.</summary>
/// <param name="UserTicks">Of its own time, in 1/100 s.</param>
/// <param name="SystemTicks">Of its time in the kernel, in 1/100 s.</param>
/// <param name="Switches">How often it gave up its processor.</param>
/// <param name="Stack">Where in the kernel it is; empty when the kernel does not say.</param>
internal sealed record ThreadSample(int Thread, char State, ulong UserTicks, ulong SystemTicks, ulong Switches, string Stack)
{
    public static ThreadSample Parse(string stat, string status, string stack)
    {
        // The name may hold blanks and brackets of its own.
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        ulong switches = 0;
        foreach (string line in status.Split('\n').Where(l => l.Contains("voluntary_ctxt_switches:", StringComparison.Ordinal)))
        {
            switches += ulong.Parse(line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim(), CultureInfo.InvariantCulture);
        }

        return new ThreadSample(
            int.Parse(stat[..stat.IndexOf(' ', StringComparison.Ordinal)], CultureInfo.InvariantCulture),
            fields[0][0],
            ulong.Parse(fields[11], CultureInfo.InvariantCulture),
            ulong.Parse(fields[12], CultureInfo.InvariantCulture),
            switches,
            stack);
    }
}

// SPDX-License-Identifier: MIT
using System.Buffers;
using System.Text.RegularExpressions;

namespace Conformance.Targets;

/// <summary>Where a report ends on the console.</summary>
internal enum BlockEnd
{
    /// <summary>It is this line alone.</summary>
    Line,

    /// <summary>After the stack that follows; at the latest where something else is said.</summary>
    Stack,

    /// <summary>At <c>---[ end trace</c>.</summary>
    Trace,

    /// <summary>At a line of equal signs.</summary>
    Banner,

    /// <summary>At the line that says the interrupt is disabled.</summary>
    Disabling,

    /// <summary>At <c>---[ end Kernel panic</c>, or where the console ends.</summary>
    Panic,
}

/// <summary>One kind of line that begins, or sharpens, a kernel report.</summary>
/// <param name="Severity">What it means for the kernel.</param>
/// <param name="End">Where the report ends.</param>
/// <param name="Start">Matches the text after printk's prefix.</param>
/// <param name="Title">Makes the title from the match of <paramref name="Start"/> and all lines of the report.</param>
internal sealed record CrashRule(Severity Severity, BlockEnd End, Regex Start, Func<Match, IReadOnlyList<string>, string> Title);

/// <summary>
/// What kernels print when something is wrong, and what only looks like it. Every pattern is anchored at the start of the kernel's own
/// text, so that a program's words (a segfault notice, a line written to /dev/kmsg under the program's name) do not match.
/// </summary>
internal static partial class CrashTable
{
    /// <summary>A line without any of these matches nothing below: the cheap question asked of every line.</summary>
    private static readonly SearchValues<string> s_tokens = SearchValues.Create(
        [
            "WARNING", "BUG", "panic", "PANIC", "Oops", "Unable to handle", "Internal error", "Unhandled fault", "Alignment trap", "general protection fault",
            "stack segment", "divide error", "divide_error", "invalid opcode", "int3", "UBSAN", "INFO:", "LOCKUP", "stall", "nobody cared", "VFS: ",
            "cut here", "unregister_netdevice", "DMAR:", "AMD-Vi:", "arm-smmu", "oom-killer", "stack overflow", "double fault", "Insufficient stack",
            "synchronous exception", "Synchronous Exception", "Linux version", "Kernel Offset leak", "trap", "SError", "undefined instruction",
        ],
        StringComparison.Ordinal);

    /// <summary>Lines that carry a token of the table and mean nothing.</summary>
    private static readonly Regex[] s_ignored = [IgnoredAnywhere(), IgnoredWhole()];

    /// <summary>Panics that only repeat what a report just said.</summary>
    public static bool IsConsequence(string text) => Consequence().IsMatch(text);

    public static bool IsCutHere(string text) => CutHere().IsMatch(text);

    public static bool IsEndTrace(string text) => EndTrace().IsMatch(text);

    public static bool IsEndPanic(string text) => EndPanic().IsMatch(text);

    public static bool IsBanner(string text) => Banner().IsMatch(text);

    /// <summary>The rule a line falls under; null for none.</summary>
    public static (CrashRule Rule, Match Match)? Find(string text)
    {
        if (!text.AsSpan().ContainsAny(s_tokens))
        {
            return null;
        }

        foreach (Regex ignored in s_ignored)
        {
            if (ignored.IsMatch(text))
            {
                return null;
            }
        }

        foreach (CrashRule rule in s_rules)
        {
            Match match = rule.Start.Match(text);
            if (match.Success)
            {
                return (rule, match);
            }
        }

        return null;
    }

    // Order matters: the first rule that matches names the report.
    private static readonly CrashRule[] s_rules =
    [
        // The kernel is gone, or must be.
        new(Severity.Dead, BlockEnd.Panic, Panic(), (m, _) => $"panic: {Clean(m.Groups["why"].Value)}"),
        new(Severity.Dead, BlockEnd.Trace, RustPanic(), (_, t) => In("Rust panic", t)),
        new(Severity.Dead, BlockEnd.Panic, DoubleFault(), (_, t) => In("double fault", t)),
        new(Severity.Dead, BlockEnd.Panic, StackOverflow(), (_, t) => In("stack overflow", t)),
        new(Severity.Dead, BlockEnd.Trace, KernelBug(), (m, t) => First(t) is { } f ? $"kernel BUG in {f}" : $"kernel BUG at {m.Groups["file"].Value}"),
        new(Severity.Dead, BlockEnd.Trace, NullDereference(), (_, t) => In("NULL pointer dereference", t)),
        new(Severity.Dead, BlockEnd.Trace, StackGuard(), (_, t) => In("stack guard page hit", t)),
        new(Severity.Dead, BlockEnd.Trace, PagingRequest(), (_, t) => In("bad page access", t)),
        new(Severity.Dead, BlockEnd.Trace, ProtectionFault(), (_, t) => In("general protection fault", t)),
        new(Severity.Dead, BlockEnd.Trace, Trap(), (m, t) => In(m.Groups["trap"].Value.Replace('_', ' '), t)),
        new(Severity.Dead, BlockEnd.Trace, ArmFault(), (m, t) => In(Clean(m.Groups["what"].Value), t)),
        new(Severity.Dead, BlockEnd.Trace, Oops(), (m, t) => In(Clean(m.Groups["what"].Value) is { Length: > 0 } what ? $"Oops: {what}" : "Oops", t)),
        new(Severity.Dead, BlockEnd.Line, Firmware(), (_, _) => "exception in firmware"),

        // Sanitizers.
        new(Severity.Warning, BlockEnd.Banner, Kasan(), KasanTitle),
        new(Severity.Warning, BlockEnd.Banner, OtherSanitizer(), (m, _) => $"{m.Groups["tool"].Value}: {m.Groups["what"].Value} in {Where(m.Groups["where"].Value)}{(m.Groups["other"].Success ? " / " + Where(m.Groups["other"].Value) : "")}"),
        new(Severity.Warning, BlockEnd.Stack, Ubsan(), (m, t) => $"UBSAN: {m.Groups["what"].Value} in {First(t) ?? m.Groups["file"].Value}"),
        new(Severity.Warning, BlockEnd.Banner, SlabBug(), (m, _) => $"BUG {m.Groups["cache"].Value}: {Clean(m.Groups["what"].Value)}"),

        // Something waits for ever. Not dead: on a busy machine an emulated kernel can be late and live on.
        new(Severity.Warning, BlockEnd.Stack, SoftLockup(), (_, t) => In("soft lockup", t)),
        new(Severity.Warning, BlockEnd.Stack, HardLockup(), (_, t) => In("hard lockup", t)),
        new(Severity.Warning, BlockEnd.Stack, RcuStall(), (_, t) => In("RCU stall", t)),
        new(Severity.Warning, BlockEnd.Stack, HungTask(), (_, t) => Asleep("hung task", t)),
        new(Severity.Warning, BlockEnd.Stack, WorkqueueLockup(), (_, _) => "workqueue lockup"),
        new(Severity.Warning, BlockEnd.Line, NetdeviceWait(), (_, _) => "unregister_netdevice waits for a reference"),

        // Broken rules of the kernel's own.
        new(Severity.Warning, BlockEnd.Stack, Deadlock(), DeadlockTitle),
        new(Severity.Warning, BlockEnd.Stack, SuspiciousRcu(), SuspiciousRcuTitle),
        new(Severity.Warning, BlockEnd.Stack, Lockdep(), (m, t) => In(Clean(m.Groups["what"].Value), t)),
        new(Severity.Warning, BlockEnd.Trace, Warn(), WarnTitle),
        new(Severity.Warning, BlockEnd.Line, OtherWarning(), (m, _) => $"WARNING: {Clean(m.Groups["what"].Value)}"),
        new(Severity.Warning, BlockEnd.Stack, Sleeping(), (_, t) => Asleep("sleeping function called from invalid context", t)),
        new(Severity.Warning, BlockEnd.Stack, Atomic(), (_, t) => Asleep("scheduling while atomic", t)),
        new(Severity.Warning, BlockEnd.Stack, OtherBug(), (m, t) => In($"BUG: {Clean(m.Groups["what"].Value)}", t)),
        new(Severity.Warning, BlockEnd.Disabling, NobodyCared(), (_, _) => "irq: nobody cared"),
        new(Severity.Warning, BlockEnd.Line, Vfs(), (m, _) => $"VFS: {m.Groups["what"].Value}"),
        new(Severity.Warning, BlockEnd.Line, DmaFault(), (m, _) => $"IOMMU fault: {m.Groups["what"].Value}"),
        new(Severity.Warning, BlockEnd.Stack, OutOfMemory(), (_, _) => "out of memory"),
    ];

    /// <summary>Takes out of a message what differs each time: addresses, numbers of processors, processes, lines.</summary>
    public static string Clean(string text)
    {
        string clean = Address().Replace(text, "ADDR");
        clean = Number().Replace(clean, "N");
        return clean.Trim().TrimEnd('.', '!', ':', ',');
    }

    private static string In(string what, IReadOnlyList<string> texts) => First(texts) is { } function ? $"{what} in {function}" : what;

    private static string Asleep(string what, IReadOnlyList<string> texts) => StackFrames.Waiting(texts) is { } function ? $"{what} in {function}" : what;

    private static string? First(IReadOnlyList<string> texts) => StackFrames.Read(texts) is [var first, ..] ? first : null;

    private static string Where(string symbol)
    {
        int plus = symbol.IndexOf('+', StringComparison.Ordinal);
        return StackFrames.Plain(plus > 0 ? symbol[..plus] : symbol);
    }

    private static string WarnTitle(Match match, IReadOnlyList<string> texts)
    {
        // The line names the function that printed it; where that is one made for complaining, its caller is meant.
        string function = Where(match.Groups["where"].Value);
        return $"WARNING in {(function.Length > 0 && !StackFrames.IsReporting(function) ? function : First(texts) ?? match.Groups["file"].Value)}";
    }

    private static string KasanTitle(Match match, IReadOnlyList<string> texts)
    {
        string access = texts.Select(t => KasanAccess().Match(t)).FirstOrDefault(m => m.Success) is { } found ? $" {found.Groups["kind"].Value.ToLowerInvariant()}" : "";
        return $"KASAN: {Clean(match.Groups["what"].Value)}{access} in {Where(match.Groups["where"].Value)}";
    }

    private static string DeadlockTitle(Match match, IReadOnlyList<string> texts)
    {
        // The first "at: function" after the banner is where the lock was wanted.
        string? function = texts.Select(t => LockSite().Match(t)).FirstOrDefault(m => m.Success)?.Groups["function"].Value;
        string kind = match.Groups["kind"].Value.StartsWith("inconsistent", StringComparison.Ordinal) ? "inconsistent lock state" : "possible deadlock";
        return function is null ? kind : $"{kind} in {StackFrames.Plain(function)}";
    }

    private static string SuspiciousRcuTitle(Match match, IReadOnlyList<string> texts)
    {
        string? file = texts.Select(t => RcuSite().Match(t)).FirstOrDefault(m => m.Success)?.Groups["file"].Value;
        return First(texts) is { } function ? $"suspicious RCU usage in {function}" : file is null ? "suspicious RCU usage" : $"suspicious RCU usage at {file}";
    }

    private const RegexOptions Options = RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture;

    [GeneratedRegex(@"^-+\[ cut here \]-+", Options)]
    private static partial Regex CutHere();

    [GeneratedRegex(@"^-+\[ end trace[^\]]*\]-+", Options)]
    private static partial Regex EndTrace();

    [GeneratedRegex(@"^-+\[ end Kernel panic", Options)]
    private static partial Regex EndPanic();

    [GeneratedRegex(@"^={20,}\s*$", Options)]
    private static partial Regex Banner();

    [GeneratedRegex(@"^Kernel panic - not syncing: (Fatal exception|Oops: Fatal exception|Fatal hardware error|Oops|panic_on_warn set|.*: panic_on_warn set|softlockup: hung tasks|hung_task: blocked tasks|RCU Stall|Hard LOCKUP|kfence|KASAN|.*panic_on_warn)", Options)]
    private static partial Regex Consequence();

    [GeneratedRegex(@"\b(ODEBUG|Boot_DEBUG|DEBUG): |workqueue cpumask: online intersect|Unprivileged eBPF is enabled|kernel not compiled with CPU_SRSO|See https?://\S+ for mitigation options|lockdep is turned off|NMI handler|(handler|interrupt).*took too long|_panic:|panic=|panic_on_\w+=|crash_kexec_post_notifiers", Options)]
    private static partial Regex IgnoredAnywhere();

    [GeneratedRegex(@"^(Kernel command line: |Command line: |Unknown kernel command line parameters|Modules linked in|INFO: lockdep is turned off|INFO: NMI handler|clocksource: )", Options)]
    private static partial Regex IgnoredWhole();

    [GeneratedRegex(@"^Kernel panic - not syncing: ?(?<why>.*)$", Options)]
    private static partial Regex Panic();

    [GeneratedRegex(@"^rust_kernel: panicked", Options)]
    private static partial Regex RustPanic();

    [GeneratedRegex(@"^(traps: )?PANIC: double fault", Options)]
    private static partial Regex DoubleFault();

    [GeneratedRegex(@"^(Insufficient stack space to handle exception|kernel stack overflow|traps: kernel stack overflow|BUG: IRQ stack overflow)", Options)]
    private static partial Regex StackOverflow();

    [GeneratedRegex(@"^[kK]ernel BUG (at|in) (?<file>[^\s:]+)", Options)]
    private static partial Regex KernelBug();

    [GeneratedRegex(@"^(BUG: (unable to handle )?kernel NULL pointer dereference|Unable to handle kernel NULL pointer dereference)", Options)]
    private static partial Regex NullDereference();

    [GeneratedRegex(@"^BUG: (stack guard page was hit|TASK stack guard page was hit|IRQ stack guard page was hit|\w+ stack guard page)", Options)]
    private static partial Regex StackGuard();

    [GeneratedRegex(@"^(BUG: unable to handle (page fault|kernel (paging|access))|Unable to handle kernel (paging request|access to user memory|execution of user memory|execute from non-executable memory|write to read-only memory|read from unreadable memory|unknown fault)|kernel tried to execute NX-protected page)", Options)]
    private static partial Regex PagingRequest();

    [GeneratedRegex(@"^(Oops: )?general protection fault[,:]", Options)]
    private static partial Regex ProtectionFault();

    // "traps: name[pid] trap invalid opcode" is a program's misfortune and starts otherwise.
    [GeneratedRegex(@"^(Oops: )?(?<trap>divide[ _]error|invalid opcode|int3|stack segment|invalid TSS|segment not present|alignment check|bounds|overflow|control protection): [0-9a-f]{4} \[#\d+\]", Options)]
    private static partial Regex Trap();

    [GeneratedRegex(@"^(Internal error: (?<what>.*?)(: [0-9a-f]{8,16})? \[#\d+\]|(?<what>Unhandled fault): |(?<what>Alignment trap): |(?<what>undefined instruction): )", Options)]
    private static partial Regex ArmFault();

    [GeneratedRegex(@"^Oops(?: -|:) (?<what>[A-Za-z ]*)", Options)]
    private static partial Regex Oops();

    [GeneratedRegex(@"^Synchronous Exception at", Options)]
    private static partial Regex Firmware();

    [GeneratedRegex(@"^BUG: KASAN: (?<what>.+?) in (?<where>\S+)", Options)]
    private static partial Regex Kasan();

    [GeneratedRegex(@"^(?<kind>Read|Write) of size", Options)]
    private static partial Regex KasanAccess();

    [GeneratedRegex(@"^BUG: (?<tool>KFENCE|KMSAN|KCSAN): (?<what>.+?) in (?<where>\S+)( / (?<other>\S+))?", Options)]
    private static partial Regex OtherSanitizer();

    [GeneratedRegex(@"^UBSAN: (?<what>[\w -]+?) in (?<file>[^\s:]+)", Options)]
    private static partial Regex Ubsan();

    [GeneratedRegex(@"^BUG (?<cache>[\w-]+) \([^)]*\): (?<what>.*)$", Options)]
    private static partial Regex SlabBug();

    [GeneratedRegex(@"^(watchdog: )?BUG: soft lockup - CPU#\d+ stuck", Options)]
    private static partial Regex SoftLockup();

    [GeneratedRegex(@"^((NMI )?watchdog: )?(BUG: |Watchdog )(detected )?(hard|Hard) LOCKUP", Options)]
    private static partial Regex HardLockup();

    [GeneratedRegex(@"^(rcu: )?INFO: \w+ (self-)?detected (expedited )?stalls? on CPU", Options)]
    private static partial Regex RcuStall();

    [GeneratedRegex(@"^INFO: task \S.* (blocked for more than \d+ seconds|can't die for more than \d+ seconds|blocked in I/O wait for more than)", Options)]
    private static partial Regex HungTask();

    [GeneratedRegex(@"^BUG: workqueue lockup", Options)]
    private static partial Regex WorkqueueLockup();

    [GeneratedRegex(@"^unregister_netdevice: waiting for", Options)]
    private static partial Regex NetdeviceWait();

    [GeneratedRegex(@"^WARNING: (possible )?(?<kind>circular locking dependency|recursive locking|irq lock inversion dependency|inconsistent lock state)( detected)?|^WARNING: [\w/-]+-safe -> [\w/-]+-unsafe lock order detected", Options)]
    private static partial Regex Deadlock();

    [GeneratedRegex(@"^WARNING: suspicious RCU usage", Options)]
    private static partial Regex SuspiciousRcu();

    [GeneratedRegex(@"^(WARNING: (?<what>bad unlock balance detected|held lock freed|lock held when returning to user space|Nested lock was not taken|still has locks held|possible irq lock inversion|nested lock was not taken)|\[ ?BUG: (?<what>Invalid wait context|.*?) \])", Options)]
    private static partial Regex Lockdep();

    // Until 7.0: "CPU: 0 PID: 1 at FILE:LINE FUNCTION+OFF/LEN"; since: "FILE:LINE at FUNCTION+OFF/LEN, CPU#0: name/pid".
    [GeneratedRegex(@"^WARNING: (CPU: \d+ PID: \d+ )?(at )?(?<file>\S+):\d+ (at )?(?<where>[A-Za-z_][\w.$]*\+0x[0-9a-f]+)?", Options)]
    private static partial Regex Warn();

    [GeneratedRegex(@"^WARNING: (?<what>.*)$", Options)]
    private static partial Regex OtherWarning();

    [GeneratedRegex(@"^BUG: sleeping function called from invalid context", Options)]
    private static partial Regex Sleeping();

    [GeneratedRegex(@"^BUG: (scheduling while atomic|using \w+\(\) in preemptible|atomic scheduling while)", Options)]
    private static partial Regex Atomic();

    [GeneratedRegex(@"^BUG: (?<what>.*?)( in process \S+.*)?( at [^\s:]+:\d+.*)?$", Options)]
    private static partial Regex OtherBug();

    [GeneratedRegex(@"^irq \d+: nobody cared", Options)]
    private static partial Regex NobodyCared();

    [GeneratedRegex(@"^VFS: (?<what>Close: file count is 0|Busy inodes after unmount)", Options)]
    private static partial Regex Vfs();

    [GeneratedRegex(@"^(DMAR: \[(?<what>[^\]]+)\] Request device|AMD-Vi: Event logged \[(?<what>\S+)|arm-smmu-v3 \S+: (?<what>event 0x[0-9a-f]+) received)", Options)]
    private static partial Regex DmaFault();

    [GeneratedRegex(@"^\S.* invoked oom-killer: ", Options)]
    private static partial Regex OutOfMemory();

    [GeneratedRegex(@"\bat: (?<function>[A-Za-z_][\w.]*)\+0x", Options)]
    private static partial Regex LockSite();

    [GeneratedRegex(@"^(?<file>\S+):\d+ suspicious rcu_\w+\(?\)? usage|^(?<file>\S+):\d+ ", Options)]
    private static partial Regex RcuSite();

    [GeneratedRegex(@"\b(0x[0-9a-f]+|[0-9a-f]{8,})\b", Options)]
    private static partial Regex Address();

    [GeneratedRegex(@"(?<![A-Za-z_])\d+(\.\d+)*\b", Options)]
    private static partial Regex Number();
}

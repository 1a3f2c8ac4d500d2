// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Targets;

/// <summary>Reads the functions on the stack out of a kernel report.</summary>
internal static partial class StackFrames
{
    /// <summary>What every report has on its stack because it is a report, and never says where it happened.</summary>
    private static readonly string[] s_reporting =
    [
        "__dump_stack", "dump_stack", "dump_stack_lvl", "show_stack", "dump_backtrace", "__show_regs", "show_regs",
        "__warn", "__warn_printk", "warn_slowpath_fmt", "warn_slowpath_null", "report_bug", "report_bug_entry", "__report_bug", "handle_bug", "bug_handler", "call_break_hook",
        "call_el1_break_hook", "brk_handler", "do_debug_exception", "do_el1_brk64", "el1_brk64", "el1_dbg", "el1h_64_sync_handler", "el1h_64_sync", "el1_abort", "el1_sync",
        "el1_sync_handler", "do_mem_abort", "do_translation_fault", "do_page_fault", "__do_kernel_fault", "die_kernel_fault",
        "exc_invalid_op", "asm_exc_invalid_op", "invalid_op", "do_invalid_op", "do_error_trap", "do_trap",
        "die", "__die", "__die_body", "die_addr", "exc_page_fault", "asm_exc_page_fault", "page_fault_oops", "__bad_area_nosemaphore", "bad_area_nosemaphore",
        "do_user_addr_fault", "do_kern_addr_fault", "handle_page_fault", "kernelmode_fixup_or_oops", "no_context", "page_fault",
        "exc_general_protection", "asm_exc_general_protection", "general_protection", "exc_divide_error", "asm_exc_divide_error", "divide_error", "exc_int3", "asm_exc_int3",
        "exc_double_fault", "asm_exc_double_fault", "fixup_exception", "search_extable",
        "print_report", "kasan_report", "kasan_check_range", "__kasan_check_read", "__kasan_check_write", "check_memory_region", "print_address_description",
        "kasan_report_invalid_free", "kfence_report_error", "kfence_handle_page_fault", "kcsan_report", "print_report_summary",
        "ubsan_epilogue", "handle_overflow", "__might_resched", "__might_sleep", "___might_sleep", "__schedule_bug", "bad_page",
        "lockdep_rcu_suspicious", "print_circular_bug", "print_deadlock_bug", "print_usage_bug", "check_noncircular", "check_prev_add", "validate_chain",
        "__lock_acquire", "lock_acquire", "check_deadlock", "mark_lock", "mark_lock_irq", "lock_release",
        "panic", "vpanic", "nmi_panic", "sysrq_handle_crash", "__bad_irq", "__report_bad_irq", "note_interrupt",
        "watchdog_timer_fn", "__run_hrtimer", "__hrtimer_run_queues", "hrtimer_interrupt", "rcu_dump_cpu_stacks", "rcu_check_gp_kthread_starvation", "print_cpu_stall",
        "check_cpu_stall", "rcu_pending", "rcu_sched_clock_irq", "update_process_times", "tick_sched_handle", "tick_sched_timer", "tick_nohz_handler",
        "nmi_cpu_backtrace", "nmi_trigger_cpumask_backtrace", "trigger_single_cpu_backtrace", "arch_trigger_cpumask_backtrace",
        "__schedule", "schedule", "__switch_to", "context_switch", "schedule_timeout", "schedule_preempt_disabled",
        "panic_bad_stack", "handle_bad_stack", "__bad_stack",
        "refcount_warn_saturate", "__list_add_valid", "__list_add_valid_or_report", "__list_del_entry_valid", "__list_del_entry_valid_or_report",
    ];

    private static readonly HashSet<string> s_skipped = [.. s_reporting];

    /// <summary>
    /// Functions of the first stack in the report, innermost first, without those that are there in every report. Frames the kernel
    /// marks as unreliable are left out. The function of the instruction pointer comes first when it is known.
    /// </summary>
    public static IReadOnlyList<string> Read(IReadOnlyList<string> texts)
    {
        List<string> frames = ReadFrames(texts, reliable: true);
        return frames.Count > 0 ? frames : ReadFrames(texts, reliable: false);
    }

    /// <summary>The function that waits, behind those that are made for waiting.</summary>
    public static string? Waiting(IReadOnlyList<string> texts) => Read(texts).FirstOrDefault(f => !Wait().IsMatch(f));

    private static List<string> ReadFrames(IReadOnlyList<string> texts, bool reliable)
    {
        List<string> frames = [];
        if (InstructionPointer(texts) is { } pointer)
        {
            frames.Add(pointer);
        }

        bool inTrace = false;
        bool anyFrame = false;
        foreach (string text in texts)
        {
            if (TraceStart().IsMatch(text))
            {
                // A second stack (another CPU, who allocated, who locked) is another story.
                if (anyFrame)
                {
                    break;
                }

                inTrace = true;
                continue;
            }

            if (!inTrace)
            {
                continue;
            }

            Match match = Frame().Match(text);
            if (!match.Success)
            {
                if (Marker().IsMatch(text) || RegisterLine().IsMatch(text))
                {
                    continue;
                }

                if (anyFrame)
                {
                    break;
                }

                continue;
            }

            anyFrame = true;
            string function = Plain(match.Groups["function"].Value);
            if (reliable == !match.Groups["unreliable"].Success && !IsReporting(function) && (frames.Count == 0 || frames[^1] != function))
            {
                frames.Add(function);
            }
        }

        return frames;
    }

    /// <summary>Name of the function the processor was in, as RIP (x86, kernel mode only), pc (arm64) say; null when they do not.</summary>
    public static string? InstructionPointer(IReadOnlyList<string> texts)
    {
        // Only the first: what follows the end of an oops can repeat the registers of an earlier one.
        string? function = texts.Select(t => Pointer().Match(t)).FirstOrDefault(m => m.Success)?.Groups["function"].Value;
        return string.IsNullOrEmpty(function) || IsReporting(Plain(function)) ? null : Plain(function);
    }

    /// <summary>A frame line, a register line, or a line the kernel puts between them: it belongs to a stack that is being printed.</summary>
    public static bool BelongsToStack(string text) =>
        Frame().IsMatch(text) || Marker().IsMatch(text) || RegisterLine().IsMatch(text) || TraceStart().IsMatch(text) || Pointer().IsMatch(text);

    /// <summary>A function that is on the stack because something is reported.</summary>
    public static bool IsReporting(string function) => s_skipped.Contains(function) || Sanitizer().IsMatch(function);

    public static bool StartsStack(string text) => TraceStart().IsMatch(text);

    /// <summary>Drops what the compiler appends to a name: two builds of one kernel give one name.</summary>
    public static string Plain(string function)
    {
        int cut = function.IndexOf('.', StringComparison.Ordinal);
        string plain = cut > 0 ? function[..cut] : function;
        return plain.StartsWith("__pfx_", StringComparison.Ordinal) ? plain[6..] : plain;
    }

    [GeneratedRegex(@"^_*(mutex_lock|rt_mutex|ww_mutex|rwsem_|down_|down$|wait_for_|wait_on_|io_schedule|flush_work|synchronize_|rwbase_|percpu_down|do_wait_for_common|msleep|usleep_|schedule_)", RegexOptions.CultureInvariant)]
    private static partial Regex Wait();

    [GeneratedRegex("^_*(asan|hwasan|kasan|ubsan|kcsan|tsan|kfence|kmsan|msan)_", RegexOptions.CultureInvariant)]
    private static partial Regex Sanitizer();

    [GeneratedRegex(@"^\s*Call [Tt]race:", RegexOptions.CultureInvariant)]
    private static partial Regex TraceStart();

    [GeneratedRegex(@"^\s*(?:\[<[0-9a-f]+>\]\s*)?(?<unreliable>\? )?(?<function>[\w.$]+)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[^\]]+\])?(?: \([A-Z]+\))?\s*$", RegexOptions.CultureInvariant)]
    private static partial Regex Frame();

    [GeneratedRegex(@"^\s*</?[A-Z_]+>\s*$", RegexOptions.CultureInvariant)]
    private static partial Regex Marker();

    [GeneratedRegex(@"^(?:R[0-9A-Z]{2}: |RSP: |RIP: |Code: |EFLAGS: |FS: |CS: |CR[0-9]: |DR[0-9]: |PKRU: |ORIG_RAX: |x\d+\s*: |sp : |lr : |pc : |pstate: |pmr_save: )", RegexOptions.CultureInvariant)]
    private static partial Regex RegisterLine();

    [GeneratedRegex(@"^(?:RIP: 0010:|pc : )(?:(?<function>[A-Za-z_][\w.$]*)\+0x)?", RegexOptions.CultureInvariant)]
    private static partial Regex Pointer();
}

// SPDX-License-Identifier: MIT
using Conformance.Results;

namespace Conformance.Harness.Tests.Results;

/// <summary>Records as runs leave them.</summary>
internal static class Samples
{
    public static KernelIdentity Kernel { get; } = new(
        "debian-6.12.117-amd64",
        "6.12.117+deb13-amd64",
        "x86_64",
        "debian:6.12",
        "ab12",
        new Dictionary<string, string> { ["kvm.ko"] = "cd34" });

    public static TestRecord Test(string id, Verdict verdict, string? reason = null) => new()
    {
        Id = id,
        Suite = id.Split('.')[0],
        Verdict = verdict,
        Reason = reason,
        DurationMs = 12,
        Clauses = ["kvm-xen/evtchn-send/masked"],
    };

    public static RunRecord Run(params Verdict[] verdicts) => new()
    {
        SuiteVersion = "0.1.0",
        Kernel = Kernel,
        Started = new DateTimeOffset(2026, 11, 21, 8, 0, 0, TimeSpan.Zero),
        Tests = [.. verdicts.Select((v, i) => Test($"KvmXen.EventChannel.Claim{i}", v))],
    };

    public static JournalLine Open(string suite) => JournalLine.Now(JournalEvent.Open) with
    {
        Suite = suite,
        SuiteVersion = "0.1.0",
        Kernel = Kernel,
    };

    public static JournalLine Plan(params string[] ids) => JournalLine.Now(JournalEvent.Plan) with { Tests = ids };

    public static JournalLine Has(string id, Verdict verdict) => JournalLine.Now(JournalEvent.Verdict) with { Record = Test(id, verdict) };
}

// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Results;

/// <summary>What one test says about one kernel. The words stay distinct in every output format.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Verdict>))]
public enum Verdict
{
    /// <summary>The claim holds.</summary>
    Pass,

    /// <summary>The kernel broke the claim: an assertion did not hold.</summary>
    Fail,

    /// <summary>The claim does not apply here; the reason is a <see cref="SkipReason"/> with the value seen.</summary>
    Skip,

    /// <summary>The claim fails, and a ledger entry explains it.</summary>
    Known,

    /// <summary>The kernel died or printed a warning, an oops, a lockdep or a sanitizer report.</summary>
    Crash,

    /// <summary>The kernel, or a guest on it, gave no answer before the deadline.</summary>
    Hang,

    /// <summary>The harness, the machine or QEMU could not tell.</summary>
    Broken,
}

// SPDX-License-Identifier: MIT
using System.Globalization;

namespace Conformance.Kvm;

/// <summary>What the kernel under test has allocated for itself.</summary>
public static class KernelMemory
{
    /// <summary>Memory in slabs that cannot be reclaimed, in KiB (/proc/meminfo, SUnreclaim): a leak in a loop shows here.</summary>
    public static async Task<long> ReadUnreclaimableKibAsync(this KernelSession session)
    {
        string text = await session.ReadFileAsync("/proc/meminfo") ?? "";
        string line = text.Split('\n').First(l => l.StartsWith("SUnreclaim:", StringComparison.Ordinal));
        return long.Parse(line.AsSpan(11, line.Length - 11 - 2).Trim(), CultureInfo.InvariantCulture);
    }
}

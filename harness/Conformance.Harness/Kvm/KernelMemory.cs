// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Fixtures;

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

    /// <summary>Objects in the general-purpose slab caches up to 1 KiB, whatever their flavour: exact but for what processors keep for themselves.</summary>
    /// <param name="copies">Count copies of what user space passed as well: they have caches of their own where the kernel is configured so.</param>
    public static async Task<long> CountSmallObjectsAsync(this KernelSession session, bool copies = false)
    {
        string text = await session.ReadSlabinfoAsync();
        long count = 0;
        foreach (string line in text.Split('\n').Where(l => l.StartsWith("kmalloc-", StringComparison.Ordinal) || (copies && l.StartsWith("memdup_user-", StringComparison.Ordinal))))
        {
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            string size = fields[0][(fields[0].LastIndexOf('-') + 1)..];
            if (int.TryParse(size, CultureInfo.InvariantCulture, out int bytes) && bytes is >= 32 and <= 1024)
            {
                count += long.Parse(fields[1], CultureInfo.InvariantCulture);
            }
        }

        return count;
    }

    /// <summary>/proc/slabinfo; a test that needs it is skipped on a kernel that keeps no count (CONFIG_SLUB_DEBUG).</summary>
    internal static async Task<string> ReadSlabinfoAsync(this KernelSession session)
    {
        string? text = await session.ReadFileAsync("/proc/slabinfo");
        Skipping.UnlessCapability(text is not null, "slabinfo", "there is no /proc/slabinfo");
        return text;
    }
}

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

    /// <summary>Counts until there are fewer small objects: what waits for RCU's readers is given back when the kernel comes to it.</summary>
    /// <returns>The last count, also when there were never fewer.</returns>
    public static async Task<long> CountSmallObjectsUntilAsync(this KernelSession session, long below)
    {
        using CancellationTokenSource patience = session.EventDeadline();
        long count;
        do
        {
            count = await session.CountSmallObjectsAsync();
        }
        while (count >= below && !patience.IsCancellationRequested);

        return count;
    }

    /// <summary>/proc/slabinfo; a test that needs it is skipped on a kernel that keeps no count (CONFIG_SLUB_DEBUG).</summary>
    internal static async Task<string> ReadSlabinfoAsync(this KernelSession session)
    {
        const string Path = "/proc/slabinfo";
        string? text = await session.ReadFileAsync(Path);
        Skipping.UnlessCapability(text is not null, "slabinfo", "there is no /proc/slabinfo");
        string[] watched = [.. text.Split('\n').Where(IsWatched).Select(l => l.Split(' ')[0])];
        foreach (string cache in watched)
        {
            // Gives back what KASAN's quarantine holds of it, which counts like what is in use.
            await session.TryWriteFileAsync($"/sys/kernel/slab/{cache}/shrink", "1");
        }

        return watched.Length == 0 ? text : await session.ReadFileAsync(Path) ?? text;
    }

    /// <summary>Whether a general-purpose cache has more to an object than its size: what KASAN, or slab_debug, knows about it.</summary>
    private static bool IsWatched(string line)
    {
        string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length > 3 && (fields[0].StartsWith("kmalloc-", StringComparison.Ordinal) || fields[0].StartsWith("memdup_user-", StringComparison.Ordinal))
            && SizeOf(fields[0]) is { } size && int.TryParse(fields[3], CultureInfo.InvariantCulture, out int whole) && whole > size;
    }

    // kmalloc-64, kmalloc-rnd-05-4k.
    private static int? SizeOf(string cache)
    {
        string size = cache[(cache.LastIndexOf('-') + 1)..];
        return int.TryParse(size.TrimEnd('k'), CultureInfo.InvariantCulture, out int number) ? number * (size[^1] == 'k' ? 1024 : 1) : null;
    }
}

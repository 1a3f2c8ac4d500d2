// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Fixtures;

namespace Conformance.Kvm;

/// <summary>Objects in one of the kernel's slab caches, for claims that something is freed.</summary>
/// <remarks>
/// The count is exact only to the slabs that processors hold for themselves: repeat what may leak thousands of times and allow for a few
/// hundred.
/// </remarks>
public sealed class Slab
{
    private readonly KernelSession _session;
    private readonly string _cache;
    private readonly long _before;

    private Slab(KernelSession session, string cache, long before)
    {
        _session = session;
        _cache = cache;
        _before = before;
    }

    /// <summary>Counts now.</summary>
    /// <param name="cache">As /proc/slabinfo names it; every cache whose name ends so is counted, since accounted allocations have one of their own.</param>
    public static async Task<Slab> ReadAsync(KernelSession session, string cache) => new(session, cache, await CountAsync(session, cache));

    /// <summary>Objects more than when it was read.</summary>
    public async Task<long> GrowthAsync() => await CountAsync(_session, _cache) - _before;

    private static async Task<long> CountAsync(KernelSession session, string cache)
    {
        string text = await session.ReadSlabinfoAsync();
        string size = cache[cache.IndexOf('-', StringComparison.Ordinal)..];
        string[][] lines = [.. text.Split('\n').Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Where(l => l.Length > 1 && Matches(l[0]))];
        Skipping.UnlessCapability(lines.Length > 0, cache, "/proc/slabinfo has no such cache");
        return lines.Sum(l => long.Parse(l[1], CultureInfo.InvariantCulture));

        // kmalloc-64, kmalloc-cg-64, with random caches kmalloc-rnd-05-64, and memdup_user-64 for copies of what user space passed.
        bool Matches(string name) => name.EndsWith(size, StringComparison.Ordinal)
            && (name.StartsWith("kmalloc-", StringComparison.Ordinal) || name.StartsWith("memdup_user-", StringComparison.Ordinal))
            && !name.Contains("dma", StringComparison.Ordinal) && !name.Contains("rcl", StringComparison.Ordinal);
    }
}

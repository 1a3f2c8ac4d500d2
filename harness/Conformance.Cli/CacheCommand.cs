// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text.RegularExpressions;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary><c>conformance cache</c>: the kernels, and the booted kernels, that are kept between runs.</summary>
internal sealed partial class CacheCommand(string directory, CommandOutput output)
{
    private readonly InstantKernels _machines = new(Path.Combine(directory, InstantKernels.Folder));

    /// <summary>Reads a size: <c>500M</c>, <c>2G</c>, <c>0</c>; null when it is none.</summary>
    /// <param name="text">A number with K, M or G, which are powers of 1024; without a letter, bytes.</param>
    public static long? ParseSize(string text)
    {
        Match match = SizePattern().Match(text);
        if (!match.Success || !long.TryParse(match.Groups[1].Value, NumberStyles.None, CultureInfo.InvariantCulture, out long number))
        {
            return null;
        }

        int shift = match.Groups[2].Value.ToUpperInvariant() switch { "K" => 10, "M" => 20, "G" => 30, _ => 0 };
        return number <= long.MaxValue >> shift ? number << shift : null;
    }

    /// <summary>Prints every entry, least recently used first, with its size on disk.</summary>
    public int List()
    {
        using KernelStore store = new(directory);
        CacheEntry[] entries = [.. store.ListCache().Concat(_machines.List()).OrderBy(e => e.LastUsed)];
        foreach (CacheEntry entry in entries)
        {
            output.Out.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{entry.LastUsed:yyyy-MM-dd HH:mm}  {Size(entry.Bytes),9}  {entry.Kind,-9}  {entry.Name}{(entry.InUse ? "  in use" : string.Empty)}"));
        }

        output.Out.WriteLine($"{Size(entries.Sum(e => e.Bytes))} in {directory}");
        return ExitCode.Clean;
    }

    /// <summary>Removes booted kernels first, which cost a boot, then kernels, which cost a download; of each what was used longest ago.</summary>
    /// <param name="keep">What may remain, in bytes.</param>
    /// <param name="cancellation">Ends it between two entries.</param>
    public int Prune(long keep, CancellationToken cancellation)
    {
        using KernelStore store = new(directory);
        long kernelBytes = store.ListCache().Sum(e => e.Bytes);
        PruneResult machines = _machines.Prune(Math.Max(0, keep - kernelBytes));
        PruneResult kernels = store.PruneCache(Math.Max(0, keep - machines.BytesKept), cancellation);
        foreach (CacheEntry entry in machines.Removed.Concat(kernels.Removed))
        {
            output.Out.WriteLine($"removed {entry.Kind} {entry.Name} ({Size(entry.Bytes)})");
        }

        int inUse = machines.KeptInUse + kernels.KeptInUse;
        output.Out.WriteLine(
            $"{Size(machines.BytesKept + kernels.BytesKept)} remain in {directory}{(inUse > 0 ? $"; {inUse.ToString(CultureInfo.InvariantCulture)} in use by other runs" : string.Empty)}");
        return ExitCode.Clean;
    }

    private static string Size(long bytes) => bytes >= 10L << 30
        ? string.Create(CultureInfo.InvariantCulture, $"{(double)bytes / (1L << 30):0.0} GiB")
        : string.Create(CultureInfo.InvariantCulture, $"{(double)bytes / (1L << 20):0.0} MiB");

    [GeneratedRegex("^([0-9]{1,18})([KMG]?)(?:i?B)?$", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex SizePattern();
}

// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>
/// Directories that are either complete or not there. Each has two locks: one that whoever makes it holds meanwhile, and one
/// that all who use it share; it is removed only by who holds both alone. (With one lock, a run that wants to make what another
/// has just made would wait until that one ends.) A directory is made under another name and renamed, so that an interrupted
/// run leaves nothing half done.
/// </summary>
internal sealed class KernelCache(string root) : IDisposable
{
    public const string DebianKind = "debian";
    public const string ImageKind = "images";
    public const string InitramfsKind = "initramfs";
    public const string ModuleKind = "modules";
    public const string PreparedKind = "prepared";

    private const string Unfinished = ".new-";
    private const string Discarded = ".old-";

    private static readonly string[] s_kinds = [DebianKind, ImageKind, InitramfsKind, ModuleKind, PreparedKind];

    private readonly Dictionary<string, FileLock> _held = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _gate = new(1, 1);

    /// <summary>The path an entry has, or would have.</summary>
    public string PathOf(string kind, string key) => Path.Combine(root, "kernels", kind, key);

    /// <summary>The names of the complete entries of a kind.</summary>
    public IReadOnlyList<string> Keys(string kind)
    {
        string directory = Path.Combine(root, "kernels", kind);
        return Directory.Exists(directory)
            ? [.. Directory.EnumerateDirectories(directory).Select(path => Path.GetFileName(path)).Where(name => name[0] != '.').Order(StringComparer.Ordinal)]
            : [];
    }

    /// <summary>
    /// The entry's directory, which stays there until this object is disposed of (or the process ends); made by
    /// <paramref name="create"/> in the directory it is given, when it is not there yet.
    /// </summary>
    public async Task<string> GetOrCreateAsync(
        string kind,
        string key,
        Func<string, Task> create,
        IProgress<string>? progress,
        CancellationToken cancellation)
    {
        string path = PathOf(kind, key);
        while (true)
        {
            if (await TryUseAsync(kind, key, cancellation).ConfigureAwait(false) is { } ready)
            {
                return ready;
            }

            using FileLock maker = await FileLock.AcquireAsync(
                MakerLock(kind, key),
                exclusive: true,
                () => progress?.Report($"waiting for another run that is preparing {key}"),
                cancellation).ConfigureAwait(false);
            if (Directory.Exists(path))
            {
                continue;
            }

            string temporary = Path.Combine(root, "kernels", kind, Unfinished + key);
            RemoveDirectory(temporary);
            Directory.CreateDirectory(temporary);
            try
            {
                await create(temporary).ConfigureAwait(false);
                Directory.Move(temporary, path);
            }
            catch
            {
                RemoveDirectory(temporary);
                throw;
            }
        }
    }

    /// <summary>The entry's directory if it is there, held as by <see cref="GetOrCreateAsync"/>; else null.</summary>
    public async Task<string?> TryUseAsync(string kind, string key, CancellationToken cancellation)
    {
        string path = PathOf(kind, key);
        await _gate.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_held.ContainsKey(path))
            {
                return path;
            }

            if (!Directory.Exists(path))
            {
                return null;
            }

            FileLock shared = await FileLock.AcquireAsync(UserLock(kind, key), exclusive: false, busy: null, cancellation).ConfigureAwait(false);
            if (!Directory.Exists(path))
            {
                shared.Dispose();
                return null;
            }

            _held.Add(path, shared);
            Directory.SetLastWriteTimeUtc(path, DateTime.UtcNow);
            return path;
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Everything in the cache, least recently used first.</summary>
    public IReadOnlyList<CacheEntry> List()
    {
        List<CacheEntry> entries = [];
        foreach (string kind in s_kinds)
        {
            foreach (string key in Keys(kind))
            {
                string path = PathOf(kind, key);
                using FileLock? free = FileLock.TryAcquire(UserLock(kind, key), exclusive: true);
                if (Directory.Exists(path))
                {
                    entries.Add(new CacheEntry(kind, key, path, SizeOf(path), Directory.GetLastWriteTimeUtc(path), InUse: free is null));
                }
            }
        }

        return [.. entries.OrderBy(e => e.LastUsed)];
    }

    /// <summary>Removes what was used longest ago until no more than <paramref name="limit"/> bytes remain.</summary>
    public PruneResult Prune(long limit, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(limit);
        RemoveLeftovers();
        IReadOnlyList<CacheEntry> entries = List();
        long total = entries.Sum(e => e.Bytes);
        List<CacheEntry> removed = [];
        int inUse = 0;
        foreach (CacheEntry entry in entries)
        {
            cancellation.ThrowIfCancellationRequested();
            if (total <= limit)
            {
                break;
            }

            if (!TryRemove(entry.Kind, entry.Name))
            {
                inUse++;
                continue;
            }

            total -= entry.Bytes;
            removed.Add(entry);
        }

        return new PruneResult(removed, total, inUse);
    }

    /// <summary>Removes all but the most recently used entries of a kind; those in use stay.</summary>
    public void Trim(string kind, int keep)
    {
        foreach (string key in Keys(kind).OrderByDescending(key => Directory.GetLastWriteTimeUtc(PathOf(kind, key))).Skip(keep))
        {
            TryRemove(kind, key);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FileLock held in _held.Values)
        {
            held.Dispose();
        }

        _held.Clear();
        _gate.Dispose();
    }

    private static void RemoveDirectory(string path)
    {
        if (Directory.Exists(path))
        {
            Directory.Delete(path, recursive: true);
        }
    }

    private static long SizeOf(string path) =>
        new DirectoryInfo(path).EnumerateFiles("*", SearchOption.AllDirectories).Sum(file => file.Length);

    private string MakerLock(string kind, string key) => Path.Combine(root, "locks", $"{kind}-{key}.make");

    private string UserLock(string kind, string key) => Path.Combine(root, "locks", $"{kind}-{key}.use");

    // False when a run uses it, or is making it.
    private bool TryRemove(string kind, string key)
    {
        using FileLock? maker = FileLock.TryAcquire(MakerLock(kind, key), exclusive: true);
        using FileLock? users = maker is null ? null : FileLock.TryAcquire(UserLock(kind, key), exclusive: true);
        if (users is null)
        {
            return false;
        }

        string path = PathOf(kind, key);
        if (Directory.Exists(path))
        {
            // Renamed first: an interrupted removal must not leave half an entry under its name.
            string discarded = Path.Combine(Path.GetDirectoryName(path)!, Discarded + key);
            RemoveDirectory(discarded);
            Directory.Move(path, discarded);
            RemoveDirectory(discarded);
        }

        return true;
    }

    private void RemoveLeftovers()
    {
        foreach (string kind in s_kinds)
        {
            string directory = Path.Combine(root, "kernels", kind);
            if (!Directory.Exists(directory))
            {
                continue;
            }

            foreach (string prefix in new[] { Unfinished, Discarded })
            {
                foreach (string path in Directory.EnumerateDirectories(directory, prefix + "*"))
                {
                    // Whoever is still at work on it holds the maker's lock.
                    using FileLock? abandoned = FileLock.TryAcquire(MakerLock(kind, Path.GetFileName(path)[prefix.Length..]), exclusive: true);
                    if (abandoned is not null)
                    {
                        RemoveDirectory(path);
                    }
                }
            }
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Text.Json;

namespace Conformance.Kernels;

/// <summary>A Debian kernel ready in the cache.</summary>
/// <param name="Directory">Of the cache entry.</param>
/// <param name="Notes">What a report should say about how it was found.</param>
internal sealed record FetchedKernel(string Directory, DebianEntry Entry, IReadOnlyList<string> Notes);

/// <summary>Finds <c>debian:</c> kernels in the archive and keeps what matters of them in the cache.</summary>
internal sealed class DebianKernels(KernelCache cache, AptArchive archive)
{
    private static readonly TimeSpan s_day = TimeSpan.FromDays(1);

    // Indexes this young are not fetched again for a version that is not in them.
    private static readonly TimeSpan s_justFetched = TimeSpan.FromMinutes(10);

    /// <summary>When the indexes that the next look will use were fetched, in UTC; null when it would fetch others first.</summary>
    public DateTime? IndexesOf => archive.Fetched is { } fetched && DateTime.UtcNow - fetched < s_day ? fetched : null;

    /// <summary>Finds the kernel, fetching it when the cache does not have it.</summary>
    /// <exception cref="UsageException">There is no such kernel.</exception>
    /// <exception cref="MachineFaultException">It cannot be fetched, and the cache has none that would do.</exception>
    public async Task<FetchedKernel> GetAsync(
        KernelSpec.Debian spec,
        KernelArchitecture architecture,
        bool offline,
        IProgress<string>? progress,
        CancellationToken cancellation)
    {
        if (offline)
        {
            return await FromCacheAsync(spec, architecture, "offline", cancellation).ConfigureAwait(false)
                ?? throw new MachineFaultException(NotCached(spec, architecture, "and the network is not to be used (--offline)"));
        }

        List<string> notes = [];
        try
        {
            IReadOnlyList<DebianKernel> candidates = await FindAsync(spec, architecture, notes, progress, cancellation).ConfigureAwait(false);
            return await FetchFirstAsync(spec, candidates, notes, progress, cancellation).ConfigureAwait(false);
        }
        catch (ArchiveUnreachableException e)
        {
            FetchedKernel? cached = await FromCacheAsync(spec, architecture, "Debian's archive does not answer", cancellation).ConfigureAwait(false);
            return cached ?? throw new MachineFaultException(NotCached(spec, architecture, $"and Debian's archive does not answer:\n{e.Message}"), e);
        }
    }

    /// <summary>Adds modules to an entry that were not worth keeping when it was made.</summary>
    public async Task AddModulesAsync(FetchedKernel kernel, IReadOnlySet<string> names, IProgress<string>? progress, CancellationToken cancellation)
    {
        DebianPackage package = kernel.Entry.ModulePackage;
        progress?.Report($"fetching {package.Name} again for {string.Join(", ", names.Order(StringComparer.Ordinal))}");
        string temporary = Path.Combine(kernel.Directory, $".add-{Environment.ProcessId}-{Guid.NewGuid():N}");
        Directory.CreateDirectory(temporary);
        try
        {
            string file = Path.Combine(temporary, "package.deb");
            await archive.DownloadAsync(package, file, cancellation).ConfigureAwait(false);
            string tree = Path.Combine(temporary, "tree");
            await UnpackAsync(file, kernel.Entry.Release, tree, name => ModuleFile.HasModuleName(name) && names.Contains(ModuleName.Canonical(name)), cancellation).ConfigureAwait(false);
            string modules = Path.Combine(tree, DebianEntry.Modules);
            foreach (string path in Directory.Exists(modules) ? Directory.EnumerateFiles(modules, "*", SearchOption.AllDirectories) : [])
            {
                // Renaming a whole file into place disturbs no other run that reads the entry.
                string target = Path.Combine(kernel.Directory, DebianEntry.Modules, Path.GetRelativePath(modules, path));
                Directory.CreateDirectory(Path.GetDirectoryName(target)!);
                File.Move(path, target, overwrite: true);
            }
        }
        catch (PackageUnusableException e)
        {
            throw new MachineFaultException($"{e.Message}, and the cached part of it lacks {string.Join(", ", names)}. Use a newer kernel.", e);
        }
        catch (ArchiveUnreachableException e)
        {
            throw new MachineFaultException($"{package.Name} has to be fetched again for {string.Join(", ", names)}, and Debian's archive does not answer:\n{e.Message}", e);
        }
        finally
        {
            Directory.Delete(temporary, recursive: true);
        }
    }

    private async Task<IReadOnlyList<DebianKernel>> FindAsync(
        KernelSpec.Debian spec,
        KernelArchitecture architecture,
        List<string> notes,
        IProgress<string>? progress,
        CancellationToken cancellation)
    {
        DebianCatalog? catalog = null;
        if (archive.Age is { } age && age < s_day)
        {
            catalog = await archive.LoadAsync(cancellation).ConfigureAwait(false);
        }

        if (catalog is null)
        {
            catalog = await RefreshAsync(s_day, notes, progress, cancellation).ConfigureAwait(false);
        }

        IReadOnlyList<DebianKernel> candidates = catalog.Match(spec.Version, architecture);
        if (candidates.Count == 0 && archive.Age is { } old && old > s_justFetched)
        {
            catalog = await RefreshAsync(s_justFetched, notes, progress, cancellation).ConfigureAwait(false);
            candidates = catalog.Match(spec.Version, architecture);
        }

        if (candidates.Count > 0)
        {
            return candidates;
        }

        // Debian drops superseded packages; the cache may still have it.
        if (CachedMatches(spec, architecture).Any())
        {
            return [];
        }

        throw new UsageException(
            $"{spec}: Debian has no kernel {spec.Version} for {architecture.DebianName()}. "
            + $"It has {string.Join(", ", catalog.Series(architecture))}; write for example debian:{catalog.Series(architecture).LastOrDefault(v => !v.Contains('~')) ?? "6.12"}.");
    }

    private async Task<DebianCatalog> RefreshAsync(TimeSpan olderThan, List<string> notes, IProgress<string>? progress, CancellationToken cancellation)
    {
        try
        {
            notes.AddRange(await archive.RefreshAsync(olderThan, progress, cancellation).ConfigureAwait(false));
        }
        catch (ArchiveUnreachableException e)
        {
            // Older indexes may still lead to a package that is cached, or to one that a mirror with old indexes has.
            if (archive.Age is not { } age || await archive.LoadAsync(cancellation).ConfigureAwait(false) is not { } old)
            {
                throw;
            }

            notes.Add($"Debian's package indexes could not be fetched and are {(int)age.TotalHours} hours old: {e.Message.Split('\n')[^1].Trim()}");
            return old;
        }

        return await archive.LoadAsync(cancellation).ConfigureAwait(false)
            ?? throw new ArchiveUnreachableException("the package indexes were just removed; run again");
    }

    private async Task<FetchedKernel> FetchFirstAsync(
        KernelSpec.Debian spec,
        IReadOnlyList<DebianKernel> candidates,
        List<string> notes,
        IProgress<string>? progress,
        CancellationToken cancellation)
    {
        List<string> unusable = [];
        foreach (DebianKernel kernel in candidates)
        {
            try
            {
                string directory = await cache.GetOrCreateAsync(
                    KernelCache.DebianKind,
                    kernel.CacheKey,
                    temporary => CreateAsync(kernel, temporary, progress, cancellation),
                    progress,
                    cancellation).ConfigureAwait(false);
                DebianEntry entry = await ReadEntryAsync(directory, cancellation).ConfigureAwait(false);
                notes.AddRange(unusable.Select(why => $"{why}; {kernel.Release} was taken instead"));
                return new FetchedKernel(directory, entry, notes);
            }
            catch (PackageUnusableException e)
            {
                unusable.Add(e.Message);
                progress?.Report(e.Message);
            }
        }

        KernelArchitecture architecture = candidates.Count > 0 ? candidates[0].Architecture : spec.Architecture ?? KernelArchitecture.X86_64;
        string why = unusable.Count > 0 ? $"{string.Join("; ", unusable)}" : $"Debian no longer lists {spec.Version}";
        return await FromCacheAsync(spec, architecture, why, cancellation).ConfigureAwait(false)
            ?? throw new UsageException($"{spec}: {why}. Name another version, such as debian:{string.Join('.', spec.Version.Split('.')[..Math.Min(2, spec.Version.Split('.').Length)])}.");
    }

    private async Task CreateAsync(DebianKernel kernel, string directory, IProgress<string>? progress, CancellationToken cancellation)
    {
        foreach (DebianPackage package in kernel.Packages)
        {
            progress?.Report($"fetching {package.Name} {package.Version} from {package.Suite} ({Math.Max(1, package.Size / 1_000_000)} MB)");
            await archive.DownloadAsync(package, PackagePath(directory, package), cancellation).ConfigureAwait(false);
        }

        progress?.Report($"unpacking {kernel.Release}");
        foreach (DebianPackage package in kernel.Packages)
        {
            await UnpackAsync(PackagePath(directory, package), kernel.Release, directory, name => !ModuleFile.HasModuleName(name) || WantedModules.IsWorthKeeping(name), cancellation).ConfigureAwait(false);
        }

        string image = Path.Combine(directory, DebianEntry.Image);
        if (!File.Exists(image))
        {
            throw new PackageUnusableException($"{kernel.Packages[0].Name} {kernel.Version} holds no kernel image where Debian's packages have had one");
        }

        KernelImage identified = await KernelImage.IdentifyAsync(image, cancellation).ConfigureAwait(false);
        if (identified.Unwrapped is { } unwrapped)
        {
            await File.WriteAllBytesAsync(image, unwrapped, cancellation).ConfigureAwait(false);
        }

        await CompleteModulesAsync(kernel, directory, cancellation).ConfigureAwait(false);
        foreach (DebianPackage package in kernel.Packages)
        {
            File.Delete(PackagePath(directory, package));
        }

        DebianEntry entry = new(kernel.Release, kernel.Version, kernel.Architecture, kernel.Packages);
        await using FileStream stream = File.Create(Path.Combine(directory, DebianEntry.FileName));
        await JsonSerializer.SerializeAsync(stream, entry, KernelJson.Default.DebianEntry, cancellation).ConfigureAwait(false);
    }

    // What a module needs is known only from the module, which lies anywhere in the package: look again for what is missing.
    private static async Task CompleteModulesAsync(DebianKernel kernel, string directory, CancellationToken cancellation)
    {
        string modules = Path.Combine(directory, DebianEntry.Modules);
        if (!Directory.Exists(modules))
        {
            return;
        }

        HashSet<string> asked = new(StringComparer.Ordinal);
        while (true)
        {
            ModuleSet set = await ModuleSet.ResolveAsync(
                ModuleTree.ReadInstalled(modules),
                WantedModules.For(kernel.Architecture),
                new Dictionary<string, string>(),
                kernel.Release,
                kernel.Architecture,
                cancellation).ConfigureAwait(false);
            HashSet<string> missing = [.. set.Missing.Where(asked.Add)];
            if (missing.Count == 0)
            {
                return;
            }

            foreach (DebianPackage package in kernel.Packages)
            {
                await UnpackAsync(PackagePath(directory, package), kernel.Release, directory, name => ModuleFile.HasModuleName(name) && missing.Contains(ModuleName.Canonical(name)), cancellation).ConfigureAwait(false);
            }
        }
    }

    private static string PackagePath(string directory, DebianPackage package) => Path.Combine(directory, $"{package.Name}.deb");

    // isWanted is asked about image, config, and files by their path in the module directory.
    private static async Task UnpackAsync(string package, string release, string directory, Func<string, bool> isWanted, CancellationToken cancellation)
    {
        List<string> unpacked = [];
        await DebianPackageReader.ExtractAsync(
            package,
            name =>
            {
                const string Modules = DebianEntry.Modules + "/";
                string? place = DebianPackageReader.Place(name, release);
                if (place is null || !isWanted(place.StartsWith(Modules, StringComparison.Ordinal) ? place[Modules.Length..] : place))
                {
                    return null;
                }

                string path = Path.Combine(directory, place);
                unpacked.Add(path);
                return path;
            },
            cancellation).ConfigureAwait(false);

        // Uncompressed once here rather than at every boot. One process for all of them.
        await UncompressAsync("xz", ["-d", "--"], "xz-utils", [.. unpacked.Where(p => p.EndsWith(".ko.xz", StringComparison.Ordinal))], cancellation).ConfigureAwait(false);
        await UncompressAsync("zstd", ["-dq", "--rm", "--"], "zstd", [.. unpacked.Where(p => p.EndsWith(".ko.zst", StringComparison.Ordinal))], cancellation).ConfigureAwait(false);
    }

    private static async Task UncompressAsync(string program, string[] options, string package, string[] files, CancellationToken cancellation)
    {
        if (files.Length == 0)
        {
            return;
        }

        ToolResult result = await Tool.RunAsync(program, [.. options, .. files], package, cancellation).ConfigureAwait(false);
        if (result.ExitCode != 0)
        {
            throw result.Error.Contains("No space left", StringComparison.Ordinal)
                ? new MachineFaultException(NoSpace.Message(Path.GetDirectoryName(files[0])!))
                : new MachineFaultException($"{program} cannot unpack the kernel's modules: {result.Complaint}");
        }
    }

    private static async Task<DebianEntry> ReadEntryAsync(string directory, CancellationToken cancellation)
    {
        string path = Path.Combine(directory, DebianEntry.FileName);
        try
        {
            await using FileStream stream = File.OpenRead(path);
            return await JsonSerializer.DeserializeAsync(stream, KernelJson.Default.DebianEntry, cancellation).ConfigureAwait(false)
                ?? throw new JsonException("it is empty");
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException)
        {
            throw new MachineFaultException($"The cache entry {directory} is damaged ({e.Message}). Delete that directory and run again.", e);
        }
    }

    private async Task<FetchedKernel?> FromCacheAsync(KernelSpec.Debian spec, KernelArchitecture architecture, string why, CancellationToken cancellation)
    {
        foreach ((string key, DebianEntry entry) in CachedMatches(spec, architecture))
        {
            if (await cache.TryUseAsync(KernelCache.DebianKind, key, cancellation).ConfigureAwait(false) is { } directory)
            {
                return new FetchedKernel(directory, entry, [$"{why}: {entry.Release} ({entry.Version}) was taken from the cache; Debian may have a newer one"]);
            }
        }

        return null;
    }

    /// <summary>The kernels that need no network, as a kernel specification names each, with what it calls itself; oldest first.</summary>
    public IReadOnlyList<(string Spec, string Release)> Cached() =>
        [.. Entries().Select(e => e.Entry)
            .OrderBy(e => new DebianVersion(e.Version))
            .ThenBy(e => e.Architecture)
            .Select(e => ($"debian:{new DebianVersion(e.Version).Upstream}:{e.Architecture.DebianName()}", e.Release))];

    private IEnumerable<(string Key, DebianEntry Entry)> CachedMatches(KernelSpec.Debian spec, KernelArchitecture architecture)
    {
        return Entries()
            .Where(e => e.Entry.Architecture == architecture && DebianKernel.Matches(spec.Version, e.Entry.Release, e.Entry.Version, architecture))
            .OrderBy(e => new DebianVersion(e.Entry.Version).IsCandidate)
            .ThenByDescending(e => new DebianVersion(e.Entry.Version));
    }

    private IEnumerable<(string Key, DebianEntry Entry)> Entries()
    {
        foreach (string key in cache.Keys(KernelCache.DebianKind))
        {
            DebianEntry? entry = null;
            try
            {
                using FileStream stream = File.OpenRead(Path.Combine(cache.PathOf(KernelCache.DebianKind, key), DebianEntry.FileName));
                entry = JsonSerializer.Deserialize(stream, KernelJson.Default.DebianEntry);
            }
            catch (Exception e) when (e is JsonException or FileNotFoundException or DirectoryNotFoundException)
            {
                // Being pruned by another run, or damaged: either way it is not there to be used.
            }

            if (entry is not null)
            {
                yield return (key, entry);
            }
        }
    }

    private string NotCached(KernelSpec.Debian spec, KernelArchitecture architecture, string why)
    {
        string[] have = [.. Entries().Where(e => e.Entry.Architecture == architecture).Select(e => $"debian:{new DebianVersion(e.Entry.Version).Upstream}").Distinct()];
        string offer = have.Length == 0 ? "The cache has no Debian kernel yet." : $"The cache has {string.Join(", ", have)}.";
        return $"{spec}: no such kernel for {architecture.DebianName()} is in the cache, {why}. {offer}";
    }
}

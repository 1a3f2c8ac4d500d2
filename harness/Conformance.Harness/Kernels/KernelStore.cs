// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Conformance.Kernels;

/// <summary>
/// Turns what the user named into a kernel that can be started, and keeps what that took in a cache that any number of runs
/// may share. What a store has handed out stays in the cache until the store is disposed of or the process ends.
/// </summary>
public sealed class KernelStore : IDisposable
{
    private const int KeptInitramfs = 32;
    private const int KeptModules = 32;

    private readonly string _cacheDirectory;
    private readonly KernelCache _cache;
    private readonly DebianKernels _debian;
    private readonly PreparedKernels _prepared;

    /// <param name="cacheDirectory">Usually <see cref="CacheDirectory.Default"/>; made when it is needed.</param>
    public KernelStore(string cacheDirectory)
        : this(cacheDirectory, new AptArchive(Path.GetFullPath(cacheDirectory)))
    {
    }

    internal KernelStore(string cacheDirectory, AptArchive archive)
    {
        _cacheDirectory = Path.GetFullPath(cacheDirectory);
        _cache = new KernelCache(_cacheDirectory);
        _debian = new DebianKernels(_cache, archive);
        _prepared = new PreparedKernels(_cache);
    }

    /// <summary>Finds the kernel and builds its initramfs; swapped modules stay beside it, but for those the agent itself needs.</summary>
    /// <param name="progress">Told, in a line each, what takes time.</param>
    /// <exception cref="UsageException">The kernel, a module or an option does not exist or does not fit.</exception>
    /// <exception cref="MachineFaultException">No network and nothing cached, no space, a missing tool.</exception>
    public async Task<PreparedKernel> PrepareAsync(
        KernelSpec spec,
        PrepareOptions options,
        IProgress<string>? progress,
        CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(options);
        try
        {
            return spec switch
            {
                KernelSpec.Debian debian => await PrepareDebianAsync(debian, options, progress, cancellation).ConfigureAwait(false),
                KernelSpec.ImageFile image => await PrepareImageAsync(image, options, progress, cancellation).ConfigureAwait(false),
                KernelSpec.BuildTree tree => await PrepareBuildTreeAsync(tree, options, progress, cancellation).ConfigureAwait(false),
                KernelSpec.Host => RunningKernel.OfThisMachine(spec, options),
                KernelSpec.Ssh ssh => await RunningKernel.OfBoardAsync(ssh, options, cancellation).ConfigureAwait(false),
                _ => throw new ArgumentException($"There is no way to prepare {spec}.", nameof(spec)),
            };
        }
        catch (IOException e) when (NoSpace.Is(e))
        {
            throw new MachineFaultException(NoSpace.Message(_cacheDirectory), e);
        }
        catch (UnauthorizedAccessException e)
        {
            throw new MachineFaultException($"{e.Message} If that is in the cache, set CONFORMANCE_CACHE to a directory you own.", e);
        }
    }

    /// <summary>Debian's kernels in the cache, which need no network: the specification that names each, and what it calls itself.</summary>
    public IReadOnlyList<(string Spec, string Release)> ListDebian() => _debian.Cached();

    /// <summary>Everything the cache keeps, least recently used first.</summary>
    public IReadOnlyList<CacheEntry> ListCache() => _cache.List();

    /// <summary>
    /// Removes what was used longest ago until no more than <paramref name="maximumBytes"/> remain. What any run is using
    /// stays, so more may remain than asked for.
    /// </summary>
    public PruneResult PruneCache(long maximumBytes, CancellationToken cancellation = default) => _cache.Prune(maximumBytes, cancellation);

    /// <summary>Lets other runs prune what this store handed out.</summary>
    public void Dispose() => _cache.Dispose();

    private static string IdSuffix(string sha256) => sha256[..8];

    private static string Hash(ReadOnlySpan<byte> data) => Convert.ToHexStringLower(SHA256.HashData(data));

    private static async Task<string> HashFileAsync(string path, CancellationToken cancellation)
    {
        await using FileStream stream = File.OpenRead(path);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, cancellation).ConfigureAwait(false));
    }

    private static void CheckArchitecture(string subject, KernelArchitecture actual, KernelArchitecture? wanted)
    {
        if (wanted is { } w && w != actual)
        {
            throw new UsageException($"{subject} is an {actual.Name()} kernel, but {w.Name()} is asked for. Give an {w.Name()} kernel, or ask for {actual.Name()}.");
        }
    }

    private async Task<PreparedKernel> PrepareDebianAsync(KernelSpec.Debian spec, PrepareOptions options, IProgress<string>? progress, CancellationToken cancellation)
    {
        if (spec.Architecture is { } named)
        {
            CheckArchitecture(spec.Text, named, options.Architecture);
        }

        KernelArchitecture architecture = spec.Architecture ?? options.Architecture ?? KernelArchitecture.X86_64;
        if (await KeyAsync().ConfigureAwait(false) is { } known && await _prepared.FindAsync(known, cancellation).ConfigureAwait(false) is { } before)
        {
            return before;
        }

        FetchedKernel kernel = await _debian.GetAsync(spec, architecture, options.Offline, progress, cancellation).ConfigureAwait(false);
        string modules = Path.Combine(kernel.Directory, DebianEntry.Modules);
        ModuleTree tree = ModuleTree.ReadInstalled(modules);
        ModuleSet set = await ResolveAsync(tree, kernel.Entry.Release, architecture, options, cancellation).ConfigureAwait(false);
        if (set.Missing.Count > 0 && !options.Offline)
        {
            await _debian.AddModulesAsync(kernel, set.Missing, progress, cancellation).ConfigureAwait(false);
            tree = ModuleTree.ReadInstalled(modules);
            set = await ResolveAsync(tree, kernel.Entry.Release, architecture, options, cancellation).ConfigureAwait(false);
        }

        string upstream = new DebianVersion(kernel.Entry.Version).Upstream;
        bool exact = DebianKernel.MatchesExactly(spec.Version, kernel.Entry.Release, kernel.Entry.Version, architecture);
        string config = Path.Combine(kernel.Directory, DebianEntry.Config);
        PreparedKernel prepared = await AssembleAsync(
            new PreparedKernel
            {
                // One build of several of the same version can only be told by its release.
                Id = exact ? $"debian-{kernel.Entry.Release}" : $"debian-{upstream.Replace('~', '-')}-{architecture.DebianName()}",
                Release = kernel.Entry.Release,
                Architecture = architecture,
                Source = spec.Text,
                ImagePath = Path.Combine(kernel.Directory, DebianEntry.Image),
                Config = File.Exists(config) ? config : null,
                Packages = [.. kernel.Entry.Packages.Select(p => $"{p.Name} {p.Version} ({p.Suite})")],
                Notes = kernel.Notes,
            },
            tree,
            set,
            options,
            cancellation).ConfigureAwait(false);

        // How it was found this time may be another the next time: a pool that lacked a package, a mirror that did not answer.
        if (kernel.Notes.Count == 0 && await KeyAsync().ConfigureAwait(false) is { } key)
        {
            await _prepared.KeepAsync(key, prepared, cancellation).ConfigureAwait(false);
        }

        return prepared;

        async Task<string?> KeyAsync() => options.Offline || _debian.IndexesOf is not { } indexes
            ? null
            : await PreparedKernels.KeyAsync(spec, architecture, indexes, options, cancellation).ConfigureAwait(false);
    }

    private async Task<PreparedKernel> PrepareImageAsync(KernelSpec.ImageFile spec, PrepareOptions options, IProgress<string>? progress, CancellationToken cancellation)
    {
        KernelImage image = await KernelImage.IdentifyAsync(spec.Path, cancellation).ConfigureAwait(false);
        CheckArchitecture(spec.Path, image.Architecture, options.Architecture);
        ModuleTree tree = spec.Modules is null ? ModuleTree.Empty : ModuleTree.Locate(spec.Modules, image.Release);
        string config = Path.Combine(Path.GetDirectoryName(spec.Path)!, $"config-{image.Release}");
        return await PrepareFilesAsync(spec, "image", spec.Path, image, tree, File.Exists(config) ? config : null, options, progress, cancellation).ConfigureAwait(false);
    }

    private async Task<PreparedKernel> PrepareBuildTreeAsync(KernelSpec.BuildTree spec, PrepareOptions options, IProgress<string>? progress, CancellationToken cancellation)
    {
        string path = BuildTreeLayout.FindImage(spec.Directory, options.Architecture);
        KernelImage image = await KernelImage.IdentifyAsync(path, cancellation).ConfigureAwait(false);
        CheckArchitecture(path, image.Architecture, options.Architecture);
        string config = Path.Combine(spec.Directory, ".config");
        return await PrepareFilesAsync(
            spec,
            "build",
            path,
            image with { Release = image.Release ?? BuildTreeLayout.ReadRelease(spec.Directory) },
            ModuleTree.ReadBuildTree(spec.Directory),
            File.Exists(config) ? config : null,
            options,
            progress,
            cancellation).ConfigureAwait(false);
    }

    private async Task<PreparedKernel> PrepareFilesAsync(
        KernelSpec spec,
        string kind,
        string path,
        KernelImage image,
        ModuleTree tree,
        string? config,
        PrepareOptions options,
        IProgress<string>? progress,
        CancellationToken cancellation)
    {
        ModuleSet set = await ResolveAsync(tree, image.Release, image.Architecture, options, cancellation).ConfigureAwait(false);
        string release = image.Release ?? set.Modules.Select(m => m.Info.Release).FirstOrDefault() ?? "unknown";
        if (image.Unwrapped is { } unwrapped)
        {
            string key = Hash(unwrapped);
            string directory = await _cache.GetOrCreateAsync(
                KernelCache.ImageKind,
                key,
                temporary => File.WriteAllBytesAsync(Path.Combine(temporary, "Image"), unwrapped, cancellation),
                progress,
                cancellation).ConfigureAwait(false);
            path = Path.Combine(directory, "Image");
        }

        string digest = await HashFileAsync(path, cancellation).ConfigureAwait(false);
        return await AssembleAsync(
            new PreparedKernel
            {
                Id = $"{kind}-{release}-{IdSuffix(digest)}",
                Release = release,
                Architecture = image.Architecture,
                Source = spec.Text,
                ImagePath = path,
                ImageSha256 = digest,
                Config = config,
            },
            tree,
            set,
            options,
            cancellation).ConfigureAwait(false);
    }

    private static Task<ModuleSet> ResolveAsync(ModuleTree tree, string? release, KernelArchitecture architecture, PrepareOptions options, CancellationToken cancellation) =>
        ModuleSet.ResolveAsync(tree, WantedModules.For(architecture).Concat(options.ExtraModules), options.ModuleOverrides, release, architecture, cancellation);

    private async Task<PreparedKernel> AssembleAsync(PreparedKernel kernel, ModuleTree tree, ModuleSet set, PrepareOptions options, CancellationToken cancellation)
    {
        IReadOnlyList<string> doubts = CheckReachable(kernel, tree, set);

        InitramfsWriter writer = new();
        foreach (string directory in new[] { "dev", "proc", "sys", "modules", "guests" })
        {
            writer.AddDirectory(directory);
        }

        writer.AddCharacterDevice("dev/console", 5, 1);
        if (options.AgentPath is { } agent)
        {
            writer.AddFile("init", await ReadAgentAsync(agent, kernel.Architecture, cancellation).ConfigureAwait(false), executable: true);
        }

        foreach (string guest in GuestImages(options.GuestsDirectory, kernel.Architecture))
        {
            writer.AddFile($"guests/{Path.GetFileName(guest)}", await File.ReadAllBytesAsync(guest, cancellation).ConfigureAwait(false));
        }

        string[] boot = [.. WantedModules.Boot.SelectMany(name => set.Closures.GetValueOrDefault(name, [])).Distinct()];
        List<KernelModule> modules = [];
        List<SelectedModule> packed = [];
        foreach (SelectedModule module in set.Modules)
        {
            bool uploaded = module.Overridden && !boot.Contains(module.Name);
            modules.Add(new KernelModule(module.Name, $"/modules/{module.FileName}", module.Sha256, module.Overridden)
            {
                Upload = uploaded ? await StoreModuleAsync(module, cancellation).ConfigureAwait(false) : null,
            });
            if (!uploaded)
            {
                packed.Add(module);
            }
        }

        if (packed.Count < set.Modules.Count)
        {
            // The kernel's own ones instead, so that the initramfs is the one it has without the swap.
            ModuleSet own = await ResolveAsync(tree, null, kernel.Architecture, options with { ModuleOverrides = new Dictionary<string, string>() }, cancellation).ConfigureAwait(false);
            packed.AddRange(own.Modules.Where(m => !packed.Exists(p => p.Name == m.Name)));
        }

        foreach (SelectedModule module in packed)
        {
            writer.AddFile($"modules/{module.FileName}", module.Content);
        }

        StringBuilder boots = new();
        foreach (string name in boot)
        {
            boots.Append(CultureInfo.InvariantCulture, $"{modules.First(m => m.Name == name).Path}\n");
        }

        writer.AddFile("modules/boot.list", Encoding.UTF8.GetBytes(boots.ToString()));
        (string path, string digest) = await StoreInitramfsAsync(writer, cancellation).ConfigureAwait(false);
        return kernel with
        {
            ImageSha256 = kernel.ImageSha256.Length > 0 ? kernel.ImageSha256 : await HashFileAsync(kernel.ImagePath, cancellation).ConfigureAwait(false),
            InitramfsPath = path,
            InitramfsSha256 = digest,
            Modules = modules,
            Closures = set.Closures,
            Notes = [.. kernel.Notes, .. set.Notes, .. doubts],
        };
    }

    // A kernel that cannot run the agent would only hang, long after anyone remembers how it was configured.
    private static IReadOnlyList<string> CheckReachable(PreparedKernel kernel, ModuleTree tree, ModuleSet set)
    {
        KernelConfiguration? configuration = kernel.Config is null ? null : KernelConfiguration.Read(kernel.Config);
        if (configuration?.Obstacles is { Count: > 0 } obstacles)
        {
            throw new UsageException($"{kernel.Source}: the agent could not be reached in this kernel. Enable {string.Join(", ", obstacles)} and build it again.");
        }

        foreach (string boot in WantedModules.Boot)
        {
            bool isModule = configuration?[boot.ToUpperInvariant()] == 'm';
            bool isThere = set.Closures.TryGetValue(boot, out IReadOnlyList<string>? closure) && !(isModule && closure.Count == 0);
            if (!isThere)
            {
                throw new UsageException(
                    isModule
                        ? $"{kernel.Source}: {boot} is a module of this kernel (CONFIG_{boot.ToUpperInvariant()}=m), and the agent cannot be reached without it. "
                            + (tree.Directory.Length == 0 ? "Add ',modules=DIR' with the directory that 'make modules_install' filled, or build it in." : $"Run 'make modules': {tree.Directory} does not have it.")
                        : $"{kernel.Source}: {kernel.Release} has neither a built-in {boot} nor a module of that name, so the agent in it could not be reached. Enable CONFIG_{boot.ToUpperInvariant()}.");
            }
        }

        return configuration?.Doubts(kernel.Architecture) ?? [];
    }

    private async Task<(string Path, string Digest)> StoreInitramfsAsync(InitramfsWriter writer, CancellationToken cancellation)
    {
        const string FileName = "initramfs.cpio";
        using MemoryStream content = new();
        string digest = await writer.WriteAsync(content, cancellation).ConfigureAwait(false);
        string directory = await _cache.GetOrCreateAsync(
            KernelCache.InitramfsKind,
            digest,
            async temporary =>
            {
                await using FileStream file = File.Create(Path.Combine(temporary, FileName));
                content.Position = 0;
                await content.CopyToAsync(file, cancellation).ConfigureAwait(false);

                // Every build of the agent or a guest makes another one.
                _cache.Trim(KernelCache.InitramfsKind, KeptInitramfs);
            },
            progress: null,
            cancellation).ConfigureAwait(false);
        return (Path.Combine(directory, FileName), digest);
    }

    private async Task<string> StoreModuleAsync(SelectedModule module, CancellationToken cancellation)
    {
        // By what is kept: the digest of the module as built says nothing of the debug information that was left out.
        string directory = await _cache.GetOrCreateAsync(
            KernelCache.ModuleKind,
            Hash(module.Content),
            async temporary =>
            {
                await File.WriteAllBytesAsync(Path.Combine(temporary, module.FileName), module.Content, cancellation).ConfigureAwait(false);
                _cache.Trim(KernelCache.ModuleKind, KeptModules);
            },
            progress: null,
            cancellation).ConfigureAwait(false);
        return Path.Combine(directory, module.FileName);
    }

    private static async Task<byte[]> ReadAgentAsync(string path, KernelArchitecture architecture, CancellationToken cancellation)
    {
        if (!File.Exists(path))
        {
            throw new MachineFaultException($"The agent {path} is not built. Run: make -C harness/Agent.");
        }

        byte[] content = await File.ReadAllBytesAsync(path, cancellation).ConfigureAwait(false);
        bool fits = content.Length > 20 && content.AsSpan().StartsWith("\u007fELF"u8) && BitConverter.ToUInt16(content, 18) == architecture.ElfMachine();
        return fits
            ? content
            : throw new MachineFaultException($"{path} is not an agent for {architecture.Name()}. Run: make -C harness/Agent.");
    }

    private static IEnumerable<string> GuestImages(string? directory, KernelArchitecture architecture)
    {
        if (directory is null)
        {
            return [];
        }

        string prefix = architecture == KernelArchitecture.X86_64 ? "x86" : "arm64";
        string[] images = Directory.Exists(directory) ? [.. Directory.EnumerateFiles(directory, prefix + "*.img").Order(StringComparer.Ordinal)] : [];
        return images.Length > 0
            ? images
            : throw new MachineFaultException($"{directory} has no guest images for {architecture.Name()}. Run: make -C guests.");
    }
}

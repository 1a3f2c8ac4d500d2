// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Conformance.Kernels;

/// <summary>The archive or the network to it does not answer.</summary>
internal sealed class ArchiveUnreachableException(string message) : Exception(message);

/// <summary>A package that an index lists is gone from its pool, or is not what it should be: another may do.</summary>
internal sealed class PackageUnusableException(string message) : Exception(message);

/// <summary>
/// Debian's archive, through apt itself in a state directory of its own: apt checks the signatures, knows this machine's
/// mirror, proxy and credentials, and nothing of the machine's own package state is read or changed.
/// </summary>
internal sealed partial class AptArchive
{
    private const string NoMirror = "this machine's apt sources name no Debian mirror. Add one, or give a kernel image file or a build tree instead of debian:.";
    private const string Helper = "/usr/lib/apt/apt-helper";
    private const string NoApt = "this machine has no apt. Give a kernel image file or a build tree instead of debian:.";

    private static readonly string[] s_suites =
        ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid", "experimental"];

    private static readonly string[] s_securitySuites = ["bullseye-security", "bookworm-security", "trixie-security"];

    // What apt's methods say when a server, or a directory, answers and does not have the file.
    private static readonly string[] s_gone = ["404  Not Found", "410  Gone", "File not found", "No such file or directory"];

    private readonly string _directory;
    private readonly string _lockPath;
    private readonly string _aptConfiguration;
    private readonly string _keyring;

    /// <param name="cacheDirectory">The cache's root; the state goes into <c>apt/</c> below it.</param>
    /// <param name="aptConfiguration">This machine's own apt configuration.</param>
    /// <param name="keyring">Used where the machine's own sources name no key.</param>
    public AptArchive(
        string cacheDirectory,
        string aptConfiguration = "/etc/apt",
        string keyring = "/usr/share/keyrings/debian-archive-keyring.gpg")
    {
        _directory = Path.Combine(cacheDirectory, "apt");
        _lockPath = Path.Combine(cacheDirectory, "locks", "apt.lock");
        _aptConfiguration = aptConfiguration;
        _keyring = keyring;
    }

    private string ConfigurationPath => Path.Combine(_directory, "apt.conf");

    private string SourcesPath => Path.Combine(_directory, "debian.sources");

    private string CatalogPath => Path.Combine(_directory, "catalog.json");

    /// <summary>How old the indexes are; null when there are none, or when they are of another mirror.</summary>
    public TimeSpan? Age => DateTime.UtcNow - Fetched;

    /// <summary>When the indexes were fetched, in UTC; null when there are none, or when they are of another mirror.</summary>
    public DateTime? Fetched =>
        File.Exists(CatalogPath) && File.Exists(SourcesPath) && File.ReadAllText(SourcesPath) == Sources(AptSource.ReadAll(_aptConfiguration), _keyring)
            ? File.GetLastWriteTimeUtc(CatalogPath)
            : null;

    /// <summary>What the indexes fetched last say; null when none were fetched yet.</summary>
    public async Task<DebianCatalog?> LoadAsync(CancellationToken cancellation)
    {
        if (!File.Exists(CatalogPath))
        {
            return null;
        }

        await using FileStream stream = File.OpenRead(CatalogPath);
        try
        {
            return new DebianCatalog(await JsonSerializer.DeserializeAsync(stream, KernelJson.Default.ListDebianPackage, cancellation).ConfigureAwait(false) ?? []);
        }
        catch (JsonException)
        {
            // Written by another version of this program: fetched again.
            return null;
        }
    }

    /// <summary>Fetches the indexes, unless another run just did.</summary>
    /// <param name="olderThan">Indexes younger than this are left alone.</param>
    /// <returns>What could not be fetched, in words; empty when all is well.</returns>
    /// <exception cref="ArchiveUnreachableException">Nothing could be fetched; older indexes are still there.</exception>
    public async Task<IReadOnlyList<string>> RefreshAsync(TimeSpan olderThan, IProgress<string>? progress, CancellationToken cancellation)
    {
        using FileLock exclusive = await FileLock.AcquireAsync(
            _lockPath,
            exclusive: true,
            () => progress?.Report("waiting for another run to finish fetching Debian's package indexes"),
            cancellation).ConfigureAwait(false);
        if (Age is { } age && age < olderThan)
        {
            return [];
        }

        if (!File.Exists(Helper))
        {
            throw new ArchiveUnreachableException(NoApt);
        }

        await ConfigureAsync(cancellation).ConfigureAwait(false);
        progress?.Report("fetching Debian's package indexes (once a day)");

        // Without its binary cache of all packages, which nothing here asks for, apt is done in half the time.
        ToolResult update = await Tool.RunAsync(
            "apt-get",
            [$"-c={ConfigurationPath}", "-o", "pkgCacheFile::Generate=false", "-q", "update"],
            "apt",
            cancellation).ConfigureAwait(false);
        string[] lines = [.. update.Output.Split('\n'), .. update.Error.Split('\n')];
        if (!lines.Any(line => line.StartsWith("Get:", StringComparison.Ordinal) || line.StartsWith("Hit:", StringComparison.Ordinal)))
        {
            throw new ArchiveUnreachableException(update.Complaint);
        }

        List<DebianPackage> packages = await ReadIndexesAsync(progress, cancellation).ConfigureAwait(false);
        if (packages.Count == 0)
        {
            throw new ArchiveUnreachableException($"Debian's package indexes list no kernels. apt said:\n{update.Complaint}{KeyringAdvice(update.Error)}");
        }

        string temporary = CatalogPath + ".new";
        await using (FileStream stream = File.Create(temporary))
        {
            await JsonSerializer.SerializeAsync(stream, packages, KernelJson.Default.ListDebianPackage, cancellation).ConfigureAwait(false);
        }

        File.Move(temporary, CatalogPath, overwrite: true);
        return [.. lines.Where(line => line.StartsWith("E:", StringComparison.Ordinal)).Distinct().Take(4).Select(line => $"apt: {line[2..].Trim()}{KeyringAdvice(line)}")];
    }

    /// <summary>Fetches one package; apt compares its content with the signed index.</summary>
    /// <exception cref="PackageUnusableException">The pool no longer has it.</exception>
    /// <exception cref="ArchiveUnreachableException">No answer.</exception>
    public async Task DownloadAsync(DebianPackage package, string path, CancellationToken cancellation)
    {
        if (!File.Exists(Helper))
        {
            throw new ArchiveUnreachableException(NoApt);
        }

        await ConfigureAsync(cancellation).ConfigureAwait(false);
        ToolResult result = await Tool.RunAsync(
            Helper,
            [$"-c={ConfigurationPath}", "-q", "download-file", package.Repository + package.Filename, path, $"SHA256:{package.Sha256}"],
            "apt",
            cancellation).ConfigureAwait(false);
        if (result.ExitCode == 0)
        {
            return;
        }

        string all = result.Output + result.Error;
        if (all.Contains("No space left", StringComparison.Ordinal))
        {
            throw new MachineFaultException(NoSpace.Message(_directory));
        }

        if (s_gone.Any(words => all.Contains(words, StringComparison.Ordinal)))
        {
            throw new PackageUnusableException($"{package.Name} {package.Version} is listed in {package.Suite} but is gone from the pool");
        }

        throw new ArchiveUnreachableException(result.Complaint);
    }

    /// <summary>The sources file for a machine with these sources of its own.</summary>
    internal static string Sources(IReadOnlyList<AptSource> machine, string keyring)
    {
        StringBuilder text = new();
        Append(AptSource.FindMirror(machine, security: false), MainMirror(machine), s_suites);
        Append(AptSource.FindMirror(machine, security: true), SecurityMirror(machine), s_securitySuites);
        return text.ToString();

        void Append(AptSource? mirror, string uri, string[] suites)
        {
            text.Append("Types: deb\n");
            text.Append("URIs: ").Append(uri).Append('\n');
            text.Append("Suites: ").AppendJoin(' ', suites).Append('\n');
            text.Append("Components: main\n");
            text.Append("Architectures: amd64 arm64\n");
            foreach ((string name, string value) in mirror?.Options ?? new Dictionary<string, string>())
            {
                text.Append(name).Append(": ").Append(value).Append('\n');
            }

            if (mirror?.Options.ContainsKey("Signed-By") != true && File.Exists(keyring))
            {
                text.Append("Signed-By: ").Append(keyring).Append('\n');
            }

            text.Append('\n');
        }
    }

    private static string KeyringAdvice(string error) =>
        error.Contains("NO_PUBKEY", StringComparison.Ordinal) || error.Contains("not signed", StringComparison.Ordinal)
            ? " (Debian's signing keys are missing or old here: apt install debian-archive-keyring.)"
            : "";

    private string Configuration()
    {
        // Read after the machine's own configuration, so that its proxy and credentials hold and its hooks do not.
        // Everything but the package lists is switched off by leaving it out: translations, Contents, DEP-11.
        return $$"""
            #clear APT::Update;
            #clear DPkg;
            #clear Acquire::IndexTargets;
            #clear APT::Architectures;
            Acquire::IndexTargets::deb::Packages
            {
              MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
              flatMetaKey "Packages";
              ShortDescription "Packages";
              Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
              flatDescription "$(RELEASE) Packages";
              Optional "false";
            };
            APT::Architectures { "amd64"; "arm64"; };
            APT::Sandbox::User "root";
            Acquire::Languages "none";
            Acquire::GzipIndexes "true";
            Acquire::Retries "2";
            Acquire::http::Timeout "30";
            Acquire::https::Timeout "30";
            Dir::State "{{_directory}}";
            Dir::State::lists "{{_directory}}/lists";
            Dir::State::status "/dev/null";
            Dir::Cache "{{_directory}}";
            Dir::Cache::archives "{{_directory}}/archives";
            Dir::Cache::pkgcache "";
            Dir::Cache::srcpkgcache "";
            Dir::Etc::sourcelist "{{SourcesPath}}";
            Dir::Etc::sourceparts "/dev/null";

            """;
    }

    private async Task ConfigureAsync(CancellationToken cancellation)
    {
        if (_directory.Contains('"', StringComparison.Ordinal))
        {
            throw new UsageException($"apt cannot use a cache directory with a quotation mark in its name: {_directory}. Set CONFORMANCE_CACHE to another.");
        }

        Directory.CreateDirectory(Path.Combine(_directory, "lists", "partial"));
        Directory.CreateDirectory(Path.Combine(_directory, "archives", "partial"));
        await WriteIfChangedAsync(ConfigurationPath, Configuration(), cancellation).ConfigureAwait(false);
        await WriteIfChangedAsync(SourcesPath, Sources(AptSource.ReadAll(_aptConfiguration), _keyring), cancellation).ConfigureAwait(false);
    }

    private static async Task WriteIfChangedAsync(string path, string text, CancellationToken cancellation)
    {
        if (!File.Exists(path) || await File.ReadAllTextAsync(path, cancellation).ConfigureAwait(false) != text)
        {
            string temporary = $"{path}.{Environment.ProcessId}";
            await File.WriteAllTextAsync(temporary, text, cancellation).ConfigureAwait(false);
            File.Move(temporary, path, overwrite: true);
        }
    }

    private async Task<List<DebianPackage>> ReadIndexesAsync(IProgress<string>? progress, CancellationToken cancellation)
    {
        IReadOnlyList<AptSource> machine = AptSource.ReadAll(_aptConfiguration);
        string main = MainMirror(machine);
        string security = SecurityMirror(machine);
        (string Path, string Suite, string Repository)[] indexes =
        [
            .. Directory.EnumerateFiles(Path.Combine(_directory, "lists"))
                .Select(path => (Path: path, Match: IndexFileName().Match(Path.GetFileName(path))))
                .Where(file => file.Match.Success)
                .Select(file => (file.Path, Suite: file.Match.Groups["suite"].Value))
                .Select(file => (file.Path, file.Suite, s_securitySuites.Contains(file.Suite) ? security : main)),
        ];

        progress?.Report($"reading {indexes.Length} package indexes");
        ConcurrentBag<DebianPackage> packages = [];
        await Parallel.ForEachAsync(
            indexes,
            cancellation,
            async (index, token) =>
            {
                (int code, string error) = await Tool.PipeAsync(
                    Helper,
                    [$"-c={ConfigurationPath}", "cat-file", index.Path],
                    "apt",
                    input: null,
                    async stream =>
                    {
                        await foreach (DebianPackage package in DebianIndex.ReadAsync(stream, index.Suite, index.Repository, token).ConfigureAwait(false))
                        {
                            packages.Add(package);
                        }
                    },
                    token).ConfigureAwait(false);
                if (code != 0)
                {
                    throw new MachineFaultException($"apt cannot read its own package index {index.Path}: {error.Trim()}. Delete {_directory} and run again.");
                }
            }).ConfigureAwait(false);

        // Sorted, so that of a package in several suites always the same listing is taken.
        return
        [
            .. packages
                .OrderBy(p => p.Name, StringComparer.Ordinal)
                .ThenBy(p => p.Version, StringComparer.Ordinal)
                .ThenBy(p => p.Architecture, StringComparer.Ordinal)
                .ThenBy(p => p.Suite, StringComparer.Ordinal)
                .DistinctBy(p => (p.Name, p.Version, p.Architecture)),
        ];
    }

    // The address of the index with its slashes as underscores, as apt has always named them.
    [GeneratedRegex(@"_dists_(?<suite>[a-z-]+)_main_binary-(amd64|arm64)_Packages(\.[a-z0-9]+)?$")]
    private static partial Regex IndexFileName();

    private static string MainMirror(IReadOnlyList<AptSource> machine) =>
        AptSource.FindMirror(machine, security: false)?.Uri ?? throw new MachineFaultException(NoMirror);

    // A mirror of Debian has its security archive beside it, whether or not this machine uses it.
    private static string SecurityMirror(IReadOnlyList<AptSource> machine) =>
        AptSource.FindMirror(machine, security: true)?.Uri ?? MainMirror(machine).TrimEnd('/') + "-security/";
}

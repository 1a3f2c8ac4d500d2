// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Conformance.Kernels;

/// <summary>
/// What Debian's kernels were prepared to before, by all that went into it: no module is read, and nothing is packed, a second time.
/// Other sources are prepared each time, because nothing says cheaply that a build tree is as it was.
/// </summary>
internal sealed class PreparedKernels(KernelCache cache)
{
    private const int Kept = 64;
    private const string FileName = "prepared.json";

    /// <summary>Names the result of a preparation before it is made.</summary>
    /// <param name="indexes">When the package indexes were fetched, in UTC.</param>
    /// <returns>Null when one of the files is not there, which the preparation itself will say better.</returns>
    public static async Task<string?> KeyAsync(
        KernelSpec.Debian spec,
        KernelArchitecture architecture,
        DateTime indexes,
        PrepareOptions options,
        CancellationToken cancellation)
    {
        // The program is part of it: a later version may prepare the same things differently.
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"{typeof(PreparedKernels).Module.ModuleVersionId} {spec.Text} {architecture} {indexes.Ticks}\n");
        text.AppendJoin(' ', options.ExtraModules).Append('\n');
        IEnumerable<(string Name, string Path)> files = options.ModuleOverrides.OrderBy(o => o.Key, StringComparer.Ordinal).Select(o => (o.Key, o.Value));
        if (options.AgentPath is { } agent)
        {
            files = files.Append(("agent", agent));
        }

        if (options.GuestsDirectory is { } guests)
        {
            if (!Directory.Exists(guests))
            {
                return null;
            }

            files = files.Concat(Directory.GetFiles(guests, "*.img").Order(StringComparer.Ordinal).Select(path => ("guest", path)));
        }

        foreach ((string name, string path) in files)
        {
            if (!File.Exists(path))
            {
                return null;
            }

            await using FileStream file = File.OpenRead(path);
            text.Append(CultureInfo.InvariantCulture, $"{name} {path} {Convert.ToHexString(await SHA256.HashDataAsync(file, cancellation).ConfigureAwait(false))}\n");
        }

        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())).AsSpan(0, 16));
    }

    /// <summary>The kernel that was kept under the key, with all its files in use; null when it or one of them is gone.</summary>
    public async Task<PreparedKernel?> FindAsync(string key, CancellationToken cancellation)
    {
        if (await cache.TryUseAsync(KernelCache.PreparedKind, key, cancellation).ConfigureAwait(false) is not { } directory)
        {
            return null;
        }

        PreparedKernel kernel;
        try
        {
            kernel = await PreparedKernel.LoadAsync(Path.Combine(directory, FileName), cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException)
        {
            return null;
        }

        foreach (string path in kernel.Modules.Select(m => m.Upload).OfType<string>().Append(kernel.ImagePath).Append(kernel.InitramfsPath))
        {
            string entry = Path.GetDirectoryName(path)!;
            string kind = Path.GetFileName(Path.GetDirectoryName(entry)!);
            if (await cache.TryUseAsync(kind, Path.GetFileName(entry), cancellation).ConfigureAwait(false) != entry || !File.Exists(path))
            {
                return null;
            }
        }

        return kernel;
    }

    public Task KeepAsync(string key, PreparedKernel kernel, CancellationToken cancellation) => cache.GetOrCreateAsync(
        KernelCache.PreparedKind,
        key,
        async temporary =>
        {
            await kernel.SaveAsync(Path.Combine(temporary, FileName), cancellation).ConfigureAwait(false);
            cache.Trim(KernelCache.PreparedKind, Kept);
        },
        progress: null,
        cancellation);
}

// SPDX-License-Identifier: MIT
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Conformance.Kernels;

/// <summary>A kernel with everything a target needs to start it. Serialises to JSON for suite processes.</summary>
public sealed record PreparedKernel
{
    private readonly IReadOnlyDictionary<string, IReadOnlyList<string>> _closures =
        new Dictionary<string, IReadOnlyList<string>>();

    /// <summary>Names the kernel in reports and folders: <c>debian-6.12.117-amd64</c>.</summary>
    public required string Id { get; init; }

    /// <summary>What uname -r prints on it.</summary>
    public required string Release { get; init; }

    /// <summary>The architecture it runs on.</summary>
    public required KernelArchitecture Architecture { get; init; }

    /// <summary>The specification it was made from.</summary>
    public required string Source { get; init; }

    /// <summary>The image as QEMU's <c>-kernel</c> takes it; empty for a kernel that already runs (<c>host</c>, <c>ssh:</c>).</summary>
    public string ImagePath { get; init; } = "";

    /// <summary>Lower-case hex digest of <see cref="ImagePath"/>; empty when that is.</summary>
    public string ImageSha256 { get; init; } = "";

    /// <summary>The initramfs; empty for a kernel that already runs.</summary>
    public string InitramfsPath { get; init; } = "";

    /// <summary>Lower-case hex digest of <see cref="InitramfsPath"/>; empty when that is.</summary>
    public string InitramfsSha256 { get; init; } = "";

    /// <summary>The modules there are to load, each after those it needs.</summary>
    public IReadOnlyList<KernelModule> Modules { get; init; } = [];

    /// <summary>
    /// Module name to the names to load, in order and including itself: empty when it is built in, absent when the kernel
    /// does not have it. Keys may be written <c>kvm-amd</c> or <c>kvm_amd</c>.
    /// </summary>
    public IReadOnlyDictionary<string, IReadOnlyList<string>> Closures
    {
        get => _closures;
        init => _closures = value.ToDictionary(p => p.Key, p => p.Value, ModuleName.Comparer);
    }

    /// <summary>The kernel's build configuration, where it is known.</summary>
    public string? Config { get; init; }

    /// <summary>The packages it was taken from, with version and suite; empty for other sources.</summary>
    public IReadOnlyList<string> Packages { get; init; } = [];

    /// <summary>What the reader of a report should know: taken from the cache without a network, a newer package was gone.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>Whether an image is booted for it, rather than a running kernel used.</summary>
    [JsonIgnore]
    public bool IsBooted => ImagePath.Length > 0;

    /// <summary>The module of that name, or null.</summary>
    public KernelModule? FindModule(string name) => Modules.FirstOrDefault(m => ModuleName.Comparer.Equals(m.Name, name));

    /// <summary>
    /// The modules to load for <paramref name="name"/>, in order: empty when it is built in, null when the kernel does not have it.
    /// </summary>
    public IReadOnlyList<KernelModule>? LoadOrder(string name) =>
        Closures.TryGetValue(name, out IReadOnlyList<string>? names)
            ? [.. names.Select(n => FindModule(n) ?? throw new InvalidOperationException($"{Id}: module {n} is in a closure but not among the modules."))]
            : null;

    /// <summary>Writes the record as JSON.</summary>
    public async Task SaveAsync(string path, CancellationToken cancellation = default)
    {
        await using FileStream stream = File.Create(path);
        await JsonSerializer.SerializeAsync(stream, this, KernelJson.Default.PreparedKernel, cancellation);
    }

    /// <summary>Reads a record written by <see cref="SaveAsync"/>.</summary>
    /// <exception cref="JsonException">The file is something else.</exception>
    public static async Task<PreparedKernel> LoadAsync(string path, CancellationToken cancellation = default)
    {
        await using FileStream stream = File.OpenRead(path);
        return await JsonSerializer.DeserializeAsync(stream, KernelJson.Default.PreparedKernel, cancellation)
            ?? throw new JsonException($"{path} holds no prepared kernel.");
    }
}

// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>What goes into the initramfs beside the kernel's own modules, and how to look for the kernel.</summary>
public sealed record PrepareOptions
{
    /// <summary>The wanted architecture; null takes the kernel's own, and x86_64 where a source has several.</summary>
    public KernelArchitecture? Architecture { get; init; }

    /// <summary>Modules to take from elsewhere: <c>kvm.ko</c> (or <c>kvm</c>) to the path of a .ko, .ko.xz or .ko.zst file.</summary>
    public IReadOnlyDictionary<string, string> ModuleOverrides { get; init; } = new Dictionary<string, string>();

    /// <summary>Modules wanted beside the usual ones, by name; one that the kernel does not have is left out.</summary>
    public IReadOnlyList<string> ExtraModules { get; init; } = [];

    /// <summary>The agent built for the kernel's architecture; becomes <c>/init</c>. Null leaves it out (nothing to boot, only to fetch).</summary>
    public string? AgentPath { get; init; }

    /// <summary>Folder with <c>x86_64.img</c>, <c>x86_32.img</c>, <c>arm64.img</c>; those of the kernel's architecture become <c>/guests/*.img</c>.</summary>
    public string? GuestsDirectory { get; init; }

    /// <summary>Never use the network: only what the cache holds.</summary>
    public bool Offline { get; init; }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics.CodeAnalysis;

namespace Conformance.Kernels;

/// <summary>The kernel writes one module as <c>kvm-amd.ko</c>, <c>kvm-amd</c> and <c>kvm_amd</c>; these are one name.</summary>
public sealed class ModuleName : IEqualityComparer<string>
{
    private static readonly string[] s_suffixes = [".ko", ".ko.xz", ".ko.zst", ".ko.gz", ".o"];

    private ModuleName()
    {
    }

    /// <summary>Compares names as the kernel does: <c>-</c> is <c>_</c>.</summary>
    public static ModuleName Comparer { get; } = new();

    /// <summary>The kernel's own form of a name, a file name or a path.</summary>
    public static string Canonical(string nameOrPath)
    {
        string name = Path.GetFileName(nameOrPath);
        foreach (string suffix in s_suffixes)
        {
            if (name.EndsWith(suffix, StringComparison.Ordinal))
            {
                name = name[..^suffix.Length];
                break;
            }
        }

        return name.Replace('-', '_');
    }

    /// <inheritdoc/>
    public bool Equals(string? x, string? y) =>
        x is null || y is null ? x is null && y is null : string.Equals(Canonical(x), Canonical(y), StringComparison.Ordinal);

    /// <inheritdoc/>
    public int GetHashCode([DisallowNull] string obj) => Canonical(obj).GetHashCode(StringComparison.Ordinal);
}

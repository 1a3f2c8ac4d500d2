// SPDX-License-Identifier: MIT
using System.Security.Cryptography;
using System.Text;

namespace Conformance.Kernels;

/// <summary>One kernel the archive has, with the packages it consists of.</summary>
/// <param name="Release">What uname -r prints: <c>6.12.117+deb13-amd64</c>.</param>
/// <param name="Version">The version of its packages: <c>6.12.117-1</c>.</param>
/// <param name="Packages">Image first; one package, or image, modules and configuration.</param>
internal sealed record DebianKernel(
    string Release,
    string Version,
    KernelArchitecture Architecture,
    bool Unsigned,
    IReadOnlyList<DebianPackage> Packages)
{
    public DebianVersion PackageVersion { get; } = new(Version);

    /// <summary>The suites that list it, joined for a message.</summary>
    public string Suite => Packages[0].Suite;

    /// <summary>Names its place in the cache: the release for people, the content for certainty.</summary>
    public string CacheKey
    {
        get
        {
            string digest = Packages.Count == 1
                ? Packages[0].Sha256
                : Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(string.Join(' ', Packages.Select(p => p.Sha256)))));
            return $"{Release}-{digest[..12]}";
        }
    }

    /// <summary>Whether <paramref name="wanted"/> means this kernel; see <see cref="KernelSpec.Debian"/> for the forms.</summary>
    public bool Matches(string wanted) => Matches(wanted, Release, Version, Architecture);

    internal static bool Matches(string wanted, string release, string version, KernelArchitecture architecture) =>
        MatchesExactly(wanted, release, version, architecture)
        || StartsWithComponent(new DebianVersion(version).Upstream, wanted);

    /// <summary>Whether <paramref name="wanted"/> can mean no other build than this: a release or a package version.</summary>
    internal static bool MatchesExactly(string wanted, string release, string version, KernelArchitecture architecture) =>
        wanted == release || wanted == version || $"{wanted}-{architecture.DebianName()}" == release;

    // 6.1 is not the beginning of 6.12; 7.3 is that of 7.3.1 and of 7.3~rc7.
    private static bool StartsWithComponent(string version, string wanted) =>
        version.StartsWith(wanted, StringComparison.Ordinal)
        && (version.Length == wanted.Length || version[wanted.Length] is '.' or '~');
}

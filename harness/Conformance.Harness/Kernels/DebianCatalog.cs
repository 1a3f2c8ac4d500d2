// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>The kernels an archive has, out of the packages its indexes list.</summary>
internal sealed class DebianCatalog
{
    // A linux-image package smaller than this holds dependencies, not a kernel.
    private const long SmallestImage = 1 << 20;

    private readonly List<DebianKernel> _kernels = [];

    public DebianCatalog(IEnumerable<DebianPackage> packages)
    {
        var releases = packages
            .Select(package => (Package: package, Class: DebianPackage.Classify(package.Name)))
            .Where(p => p.Class is not null)
            .GroupBy(p => (p.Class!.Value.Release, p.Package.Version, p.Package.Architecture));
        foreach (var release in releases)
        {
            if (!KernelArchitectures.TryParse(release.Key.Architecture, out KernelArchitecture architecture))
            {
                continue;
            }

            DebianPackage? Find(DebianPart part, bool unsigned) =>
                release.FirstOrDefault(p => p.Class!.Value.Part == part && p.Class.Value.Unsigned == unsigned
                    && (part != DebianPart.Image || p.Package.Size >= SmallestImage)).Package;

            void Add(bool unsigned, params DebianPackage?[] parts) =>
                _kernels.Add(new DebianKernel(release.Key.Release, release.Key.Version, architecture, unsigned, [.. parts.OfType<DebianPackage>()]));

            DebianPackage? modules = Find(DebianPart.Modules, unsigned: false);
            DebianPackage? description = Find(DebianPart.Base, unsigned: false);
            if (Find(DebianPart.Image, unsigned: false) is { } image)
            {
                Add(unsigned: false, image);
            }
            else if (modules is not null && Find(DebianPart.Binary, unsigned: false) is { } binary)
            {
                Add(unsigned: false, binary, modules, description);
            }
            else if (Find(DebianPart.Image, unsigned: true) is { } unsignedImage)
            {
                Add(unsigned: true, unsignedImage);
            }
            else if (modules is not null && Find(DebianPart.Binary, unsigned: true) is { } unsignedBinary)
            {
                Add(unsigned: true, unsignedBinary, modules, description);
            }
        }
    }

    /// <summary>Every complete kernel.</summary>
    public IReadOnlyList<DebianKernel> Kernels => _kernels;

    /// <summary>
    /// The kernels <paramref name="wanted"/> may mean, best first: the newest, and release candidates only after everything
    /// released, so that <c>debian:7</c> never is one while <c>debian:7.3</c> may be.
    /// </summary>
    public IReadOnlyList<DebianKernel> Match(string wanted, KernelArchitecture architecture) =>
    [
        .. _kernels
            .Where(k => k.Architecture == architecture && k.Matches(wanted))
            .OrderBy(k => k.PackageVersion.IsCandidate)
            .ThenByDescending(k => k.PackageVersion)
            .ThenBy(k => k.Unsigned)
            .ThenByDescending(k => k.Release, StringComparer.Ordinal),
    ];

    /// <summary>The newest version of each series (6.12, 7.2), for a message.</summary>
    public IReadOnlyList<string> Series(KernelArchitecture architecture) =>
    [
        .. _kernels
            .Where(k => k.Architecture == architecture)
            .GroupBy(k => string.Join('.', k.PackageVersion.Upstream.Split('.', '~')[..2]))
            .Select(series => series.MaxBy(k => k.PackageVersion)!.PackageVersion)
            .Order()
            .Select(version => version.Upstream),
    ];
}

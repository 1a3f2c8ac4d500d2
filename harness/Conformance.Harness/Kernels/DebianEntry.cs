// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>
/// A Debian kernel in the cache, as <c>kernel.json</c> of its directory describes it. Beside it lie <c>image</c>,
/// <c>config</c> and <c>modules/</c>, the latter laid out as in /lib/modules/RELEASE.
/// </summary>
internal sealed record DebianEntry(
    string Release,
    string Version,
    KernelArchitecture Architecture,
    IReadOnlyList<DebianPackage> Packages)
{
    public const string FileName = "kernel.json";
    public const string Image = "image";
    public const string Config = "config";
    public const string Modules = "modules";

    /// <summary>The package that carries the modules.</summary>
    public DebianPackage ModulePackage =>
        Packages.FirstOrDefault(p => DebianPackage.Classify(p.Name)?.Part == DebianPart.Modules) ?? Packages[0];
}

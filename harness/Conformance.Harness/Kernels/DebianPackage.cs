// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Kernels;

/// <summary>What part of a kernel a package carries.</summary>
internal enum DebianPart
{
    /// <summary>Image, modules and configuration together (up to 6.18), or nothing but dependencies (later).</summary>
    Image,

    /// <summary>The image alone, under usr/lib/modules/RELEASE/vmlinuz (from 6.19).</summary>
    Binary,

    /// <summary>The modules alone.</summary>
    Modules,

    /// <summary>Configuration, modules.order and modules.builtin (from 7.2; nearly empty before).</summary>
    Base,
}

/// <summary>A package of a kernel, as an index of the archive lists it.</summary>
/// <param name="Suite">The suite that lists it: <c>trixie-security</c>.</param>
/// <param name="Repository">The archive's address, ending in a slash.</param>
/// <param name="Filename">Path below <paramref name="Repository"/>.</param>
/// <param name="Size">Of the package, in bytes.</param>
/// <param name="Sha256">Of the package, lower-case hex; the index is signed, so this is what makes a download trustworthy.</param>
internal sealed partial record DebianPackage(
    string Name,
    string Version,
    string Architecture,
    string Suite,
    string Repository,
    string Filename,
    long Size,
    string Sha256)
{
    /// <summary>The part and the kernel release a package name stands for; null for every package that is of no use here.</summary>
    /// <remarks>Real-time, cloud and 16k-page flavours, debug symbols and templates do not match: the release must end in the plain architecture.</remarks>
    public static (DebianPart Part, string Release, bool Unsigned)? Classify(string name)
    {
        Match match = KernelPackage().Match(name);
        if (!match.Success)
        {
            return null;
        }

        DebianPart part = match.Groups["part"].Value switch
        {
            "image" => DebianPart.Image,
            "modules" => DebianPart.Modules,
            "base" => DebianPart.Base,
            _ => DebianPart.Binary,
        };
        return (part, match.Groups["release"].Value, match.Groups["unsigned"].Success || match.Groups["part"].Value == "binary-unsigned");
    }

    [GeneratedRegex("^linux-(?<part>image|binary|binary-unsigned|modules|base)-(?<release>[0-9][^-]*(-[0-9][^-]*)?-(amd64|arm64))(?<unsigned>-unsigned)?$")]
    private static partial Regex KernelPackage();
}

// SPDX-License-Identifier: MIT
using System.Formats.Tar;
using System.Text.RegularExpressions;

namespace Conformance.Kernels;

/// <summary>Takes single files out of a package without unpacking the rest.</summary>
internal static partial class DebianPackageReader
{
    /// <summary>Extracts the files that <paramref name="place"/> gives a destination for.</summary>
    /// <param name="place">From a name in the package (without the leading <c>./</c>) to a path, or null to skip it.</param>
    public static async Task ExtractAsync(string package, Func<string, string?> place, CancellationToken cancellation)
    {
        (int code, string error) = await Tool.PipeAsync(
            "dpkg-deb",
            ["--fsys-tarfile", package],
            "dpkg",
            input: null,
            async stream =>
            {
                await using TarReader tar = new(stream);
                while (await tar.GetNextEntryAsync(copyData: false, cancellation).ConfigureAwait(false) is { } entry)
                {
                    if (entry.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile
                        && place(entry.Name.StartsWith("./", StringComparison.Ordinal) ? entry.Name[2..] : entry.Name) is { } path)
                    {
                        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
                        await using FileStream file = File.Create(path);
                        if (entry.DataStream is not null)
                        {
                            await entry.DataStream.CopyToAsync(file, cancellation).ConfigureAwait(false);
                        }
                    }
                }

                // dpkg-deb pads the archive; leaving that unread would make it fail on a closed pipe.
                await stream.CopyToAsync(Stream.Null, cancellation).ConfigureAwait(false);
            },
            cancellation).ConfigureAwait(false);
        if (code != 0)
        {
            throw new MachineFaultException($"{Path.GetFileName(package)} cannot be unpacked: {error.Trim()}");
        }
    }

    /// <summary>
    /// Where a file of a kernel package belongs in a <see cref="DebianEntry"/>: image and configuration from boot/ or, in newer
    /// packages, from the module directory.
    /// </summary>
    public static string? Place(string name, string release)
    {
        // Packages without Debian's signature add a suffix.
        if (name == $"boot/vmlinuz-{release}" || name == $"boot/vmlinuz-{release}.unsigned")
        {
            return DebianEntry.Image;
        }

        if (name == $"boot/config-{release}")
        {
            return DebianEntry.Config;
        }

        Match match = ModulePath().Match(name);
        if (!match.Success || match.Groups["release"].Value != release)
        {
            return null;
        }

        string path = match.Groups["path"].Value;
        return path switch
        {
            "vmlinuz" or "vmlinuz.unsigned" => DebianEntry.Image,
            "config" => DebianEntry.Config,
            "modules.order" or "modules.builtin" => $"{DebianEntry.Modules}/{path}",
            _ when ModuleFile.HasModuleName(path) && !path.Split('/').Contains("..") => $"{DebianEntry.Modules}/{path}",
            _ => null,
        };
    }

    [GeneratedRegex("^(usr/)?lib/modules/(?<release>[^/]+)/(?<path>.+)$")]
    private static partial Regex ModulePath();
}

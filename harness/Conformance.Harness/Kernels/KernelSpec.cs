// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;

namespace Conformance.Kernels;

/// <summary>Which kernel to test, as the user named it with <c>--kernel</c>.</summary>
public abstract partial record KernelSpec
{
    private const string Forms =
        "A kernel is one of: debian:VERSION (debian:6.12), a bzImage or Image file, a kernel build tree, host, ssh:USER@BOARD.";

    private KernelSpec(string text) => Text = text;

    /// <summary>What the user wrote.</summary>
    public string Text { get; }

    /// <inheritdoc/>
    public sealed override string ToString() => Text;

    /// <summary>A kernel package from Debian's archive.</summary>
    /// <param name="Version">An upstream version or a leading part of one (<c>7</c>, <c>6.12</c>, <c>6.12.95</c>, <c>7.3~rc7</c>),
    /// a kernel release (<c>6.12.117+deb12-amd64</c>) or a package version (<c>6.12.117-1</c>).</param>
    /// <param name="Architecture">Named in the text (<c>debian:6.12:arm64</c>), else null.</param>
    public sealed record Debian(string Text, string Version, KernelArchitecture? Architecture) : KernelSpec(Text);

    /// <summary>A bzImage, Image or vmlinuz file.</summary>
    /// <param name="Path">Absolute path of the image.</param>
    /// <param name="Modules">Absolute path of its module tree; null when all it needs is built in.</param>
    public sealed record ImageFile(string Text, string Path, string? Modules) : KernelSpec(Text);

    /// <summary>A kernel build tree, as make left it.</summary>
    /// <param name="Directory">Absolute path: the source tree, or the output tree of <c>make O=</c>.</param>
    public sealed record BuildTree(string Text, string Directory) : KernelSpec(Text);

    /// <summary>The kernel this machine runs.</summary>
    public sealed record Host(string Text) : KernelSpec(Text);

    /// <summary>The kernel of a machine reachable by ssh.</summary>
    /// <param name="Destination">As ssh takes it: <c>user@board</c>, or a name from its configuration.</param>
    public sealed record Ssh(string Text, string Destination) : KernelSpec(Text);

    /// <summary>Reads a kernel specification. Relative paths are resolved against the current directory.</summary>
    /// <exception cref="UsageException">The text names no kernel; the message says which forms there are.</exception>
    public static KernelSpec Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (string.IsNullOrWhiteSpace(text))
        {
            throw new UsageException($"The kernel is empty. {Forms}");
        }

        if (text == "host")
        {
            return new Host(text);
        }

        if (text.StartsWith("debian:", StringComparison.Ordinal))
        {
            return ParseDebian(text);
        }

        if (text.StartsWith("ssh:", StringComparison.Ordinal))
        {
            return ParseSsh(text);
        }

        return ParsePath(text);
    }

    private static Debian ParseDebian(string text)
    {
        string version = text["debian:".Length..];
        KernelArchitecture? architecture = null;
        int colon = version.IndexOf(':');
        if (colon >= 0)
        {
            string name = version[(colon + 1)..];
            if (!KernelArchitectures.TryParse(name, out KernelArchitecture named))
            {
                throw new UsageException($"{text}: '{name}' is not an architecture tested here; write debian:{version[..colon]}:amd64 or debian:{version[..colon]}:arm64.");
            }

            architecture = named;
            version = version[..colon];
        }

        // Debian sorts 7.3~rc7 before 7.3; kernel people write 7.3-rc7.
        version = ReleaseCandidate().Replace(version, "~rc$1");
        if (!DebianVersionText().IsMatch(version))
        {
            throw new UsageException(
                version.Length == 0
                    ? $"{text}: which version? Write debian:6.12 for the newest 6.12, or debian:6.12.95 for exactly that one."
                    : $"{text}: '{version}' is not a kernel version. Write debian:6.12 for the newest 6.12, or debian:6.12.95 for exactly that one.");
        }

        return new Debian(text, version, architecture);
    }

    private static Ssh ParseSsh(string text)
    {
        string destination = text["ssh:".Length..];
        if (destination.Length == 0 || destination.Any(char.IsWhiteSpace))
        {
            throw new UsageException($"{text}: name the machine as ssh does, for example ssh:root@board.");
        }

        // ssh would take it for an option.
        if (destination[0] == '-')
        {
            throw new UsageException($"{text}: a machine's name does not start with '-'; write ssh:user@board.");
        }

        return new Ssh(text, destination);
    }

    private static KernelSpec ParsePath(string text)
    {
        const string ModulesOption = ",modules=";
        string path = text;
        string? modules = null;
        int option = text.LastIndexOf(ModulesOption, StringComparison.Ordinal);
        if (option >= 0)
        {
            path = text[..option];
            modules = text[(option + ModulesOption.Length)..];
        }

        if (Directory.Exists(path))
        {
            return modules is null
                ? new BuildTree(text, Path.GetFullPath(path))
                : throw new UsageException($"{text}: {path} is a directory, a kernel build tree, and brings its own modules. Leave ',modules=' out, or name the image file.");
        }

        if (!File.Exists(path))
        {
            throw new UsageException(MissingPath(text, path));
        }

        if (modules is not null && !Directory.Exists(modules))
        {
            throw new UsageException(
                modules.Length == 0 || !File.Exists(modules)
                    ? $"{text}: there is no module directory '{modules}'. Give the directory that 'make modules_install' filled, such as /lib/modules/VERSION."
                    : $"{text}: '{modules}' is a file. modules= takes a directory; to swap one module use --module NAME.ko=PATH.");
        }

        return new ImageFile(text, Path.GetFullPath(path), modules is null ? null : Path.GetFullPath(modules));
    }

    private static string MissingPath(string text, string path)
    {
        if (BareVersion().Match(text) is { Success: true } bare)
        {
            return $"There is no file '{text}'. For Debian's kernel of that version write debian:{bare.Groups[1].Value}.";
        }

        if (SchemeText().Match(text) is { Success: true } scheme && !text.Contains('/'))
        {
            return $"'{scheme.Groups[1].Value}:' is not a source of kernels. {Forms}";
        }

        return $"There is no file or directory '{path}'. {Forms}";
    }

    [GeneratedRegex(@"-rc(\d+)")]
    private static partial Regex ReleaseCandidate();

    [GeneratedRegex(@"^\d+(\.\d+)*([-+~.][0-9A-Za-z.+~-]*)?$")]
    private static partial Regex DebianVersionText();

    [GeneratedRegex(@"^(?:debian|linux|v)?[-_]?(\d+(?:\.\d+)*)$", RegexOptions.IgnoreCase)]
    private static partial Regex BareVersion();

    [GeneratedRegex(@"^([A-Za-z][A-Za-z0-9+-]+):")]
    private static partial Regex SchemeText();
}

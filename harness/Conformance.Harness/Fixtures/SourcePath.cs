// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>Source files as a reader of the repository names them, wherever and however it was built.</summary>
internal static class SourcePath
{
    private static readonly string[] Roots = ["/suites/", "/harness/"];

    public static string? Relative(string? path)
    {
        if (path is null)
        {
            return null;
        }

        foreach (string root in Roots)
        {
            int start = path.LastIndexOf(root, StringComparison.Ordinal);
            if (start >= 0)
            {
                return path[(start + 1)..];
            }
        }

        return path;
    }

    /// <summary>The repository this was built from: the folder with Conformance.sln above the running assembly.</summary>
    /// <exception cref="InvalidOperationException">There is none above it.</exception>
    public static string RepositoryRoot { get; } = FindRoot();

    /// <summary>A path recorded by the compiler, as it is on this machine: deterministic builds record it below <c>/_/</c>.</summary>
    public static string Absolute(string path) => Directory.Exists(path) || File.Exists(path) ? path : Path.Combine(RepositoryRoot, Relative(path + "/")!.TrimEnd('/'));

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Conformance.sln")))
            {
                return folder.FullName;
            }
        }

        throw new InvalidOperationException($"No Conformance.sln above {AppContext.BaseDirectory}.");
    }
}

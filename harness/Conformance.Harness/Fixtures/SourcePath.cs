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
}

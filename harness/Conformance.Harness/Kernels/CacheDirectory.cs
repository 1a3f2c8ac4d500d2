// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>Where fetched and derived files live between runs.</summary>
public static class CacheDirectory
{
    /// <summary><c>$CONFORMANCE_CACHE</c>, else <c>$XDG_CACHE_HOME/conformance</c>, else <c>~/.cache/conformance</c>; not created here.</summary>
    public static string Default => Resolve(Environment.GetEnvironmentVariable, Environment.GetFolderPath(Environment.SpecialFolder.UserProfile));

    internal static string Resolve(Func<string, string?> environment, string home)
    {
        if (environment("CONFORMANCE_CACHE") is { Length: > 0 } chosen)
        {
            return Path.GetFullPath(chosen);
        }

        // The XDG specification tells programs to ignore a relative value.
        if (environment("XDG_CACHE_HOME") is { Length: > 0 } xdg && Path.IsPathRooted(xdg))
        {
            return Path.Combine(xdg, "conformance");
        }

        if (home.Length == 0)
        {
            throw new MachineFaultException("There is no home directory to keep kernels in. Set CONFORMANCE_CACHE to a directory.");
        }

        return Path.Combine(home, ".cache", "conformance");
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>
/// A private folder under the temporary directory. Its owner holds a lock in it, so that one whose owner was killed is known as such:
/// the next process that makes one removes it.
/// </summary>
internal sealed class ScratchFolder : IDisposable
{
    private const string Prefix = "cfm-";
    private const string LockFile = "lock";
    private static readonly Lazy<bool> s_swept = new(() =>
    {
        Sweep(System.IO.Path.GetTempPath());
        return true;
    });

    private readonly FileLock _held;

    /// <param name="parent">Null: the temporary directory.</param>
    public ScratchFolder(string? parent = null)
    {
        _ = s_swept.Value;
        FileLock? held;
        do
        {
            // A sweeper may find it between its making and its locking.
            Path = Make(parent ?? System.IO.Path.GetTempPath());
            held = FileLock.TryAcquire(System.IO.Path.Combine(Path, LockFile), exclusive: true);
        }
        while (held is null);
        _held = held;
    }

    public string Path { get; }

    /// <summary>Removes the folders in a directory whose owners are gone.</summary>
    internal static void Sweep(string directory)
    {
        foreach (string folder in Directory.GetDirectories(directory, $"{Prefix}*"))
        {
            try
            {
                string file = System.IO.Path.Combine(folder, LockFile);
                if (File.Exists(file) && FileLock.TryAcquire(file, exclusive: true) is { } free)
                {
                    Directory.Delete(folder, recursive: true);
                    free.Dispose();
                }
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or MachineFaultException)
            {
                // Somebody else's, or just being removed.
            }
        }
    }

    public void Dispose()
    {
        Directory.Delete(Path, recursive: true);
        _held.Dispose();
    }

    private static string Make(string parent) => OperatingSystem.IsWindows()
        ? throw new PlatformNotSupportedException()
        : Directory.CreateDirectory(
            System.IO.Path.Combine(parent, $"{Prefix}{Guid.NewGuid():N}"[..12]), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute).FullName;
}

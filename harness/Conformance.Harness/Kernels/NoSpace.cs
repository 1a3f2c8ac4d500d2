// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>Tells a full disk from other I/O errors, and says what to do about it.</summary>
internal static class NoSpace
{
    private const int ENOSPC = 28;
    private const int EDQUOT = 122;
    private const int ERROR_DISK_FULL = unchecked((int)0x80070070);

    public static bool Is(IOException e) => e.HResult is ENOSPC or EDQUOT or ERROR_DISK_FULL || (e.HResult & 0xFFFF) is ENOSPC or EDQUOT;

    public static string Message(string directory)
    {
        string free = "";
        try
        {
            free = $" ({new DriveInfo(directory).AvailableFreeSpace / (1 << 20)} MiB free)";
        }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException)
        {
            // The figure is a courtesy.
        }

        return $"No space left for kernels under {directory}{free}. Free some (any folder below its kernels/ may be deleted while nothing runs), or set CONFORMANCE_CACHE to a larger disk.";
    }
}

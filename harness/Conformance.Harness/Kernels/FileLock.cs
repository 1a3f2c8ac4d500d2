// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Uapi;
using Microsoft.Win32.SafeHandles;

namespace Conformance.Kernels;

/// <summary>
/// An advisory lock between runs on one machine. The kernel drops it when the process ends, however that happens, so
/// there is nothing stale to clean up; the lock file itself is never deleted, because a waiter may hold it open.
/// </summary>
internal sealed class FileLock : IDisposable
{
    private const int EINTR = 4;
    private const int EWOULDBLOCK = 11;

    private readonly SafeFileHandle _file;

    private FileLock(SafeFileHandle file) => _file = file;

    /// <summary>The lock if it is free now, else null.</summary>
    public static FileLock? TryAcquire(string path, bool exclusive)
    {
        SafeFileHandle file = Open(path);
        try
        {
            if (Lock(file, (exclusive ? FileLocking.LOCK_EX : FileLocking.LOCK_SH) | FileLocking.LOCK_NB))
            {
                return new FileLock(file);
            }
        }
        catch
        {
            file.Dispose();
            throw;
        }

        file.Dispose();
        return null;
    }

    /// <summary>Waits for the lock; <paramref name="busy"/> is told when that cannot be at once.</summary>
    public static async Task<FileLock> AcquireAsync(string path, bool exclusive, Action? busy, CancellationToken cancellation)
    {
        if (TryAcquire(path, exclusive) is { } free)
        {
            return free;
        }

        busy?.Invoke();

        // flock blocks its thread and knows no cancellation: when nobody waits any more, the lock is let go as soon as it is got.
        Task<FileLock> waiting = Task.Factory.StartNew(
            () =>
            {
                SafeFileHandle file = Open(path);
                try
                {
                    Lock(file, exclusive ? FileLocking.LOCK_EX : FileLocking.LOCK_SH);
                    return new FileLock(file);
                }
                catch
                {
                    file.Dispose();
                    throw;
                }
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default);

        try
        {
            return await waiting.WaitAsync(cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            _ = waiting.ContinueWith(late => late.Result.Dispose(), CancellationToken.None, TaskContinuationOptions.OnlyOnRanToCompletion, TaskScheduler.Default);
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // Closing alone does not unlock while a child that was just forked elsewhere in this process still has the descriptor.
        if (!_file.IsClosed)
        {
            Lock(_file, FileLocking.LOCK_UN);
        }

        _file.Dispose();
    }

    private static SafeFileHandle Open(string path)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);

        // Not File.OpenHandle: in every share mode that takes a lock of its own, of the same kind.
        SafeFileHandle file = FileLocking.open(path, FileLocking.O_RDWR | FileLocking.O_CREAT | FileLocking.O_CLOEXEC, 0x1B6);
        if (!file.IsInvalid)
        {
            return file;
        }

        string error = Marshal.GetLastPInvokeErrorMessage();
        file.Dispose();
        throw new MachineFaultException($"{path} cannot be opened: {error}. Set CONFORMANCE_CACHE to a directory you own, with space in it.");
    }

    private static bool Lock(SafeFileHandle file, int operation)
    {
        while (FileLocking.flock(file, operation) != 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno == EWOULDBLOCK)
            {
                return false;
            }

            if (errno != EINTR)
            {
                throw new MachineFaultException($"The cache cannot be locked: flock: {Marshal.GetPInvokeErrorMessage(errno)}. Put it on a local file system with CONFORMANCE_CACHE.");
            }
        }

        return true;
    }
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Targets;

/// <summary>The harness's own session in a kernel under test: files, modules, the log. No test sees it.</summary>
internal sealed class ControlSession
{
    private const int AtFdcwd = -100;
    private const int WriteOnly = 1;
    private const int CreateTruncate = 0x240;
    private const int PieceBytes = 1 << 20;
    private readonly AgentSession _session;
    private readonly SystemCalls _calls;
    private readonly bool _logIsRationed;
    private readonly SemaphoreSlim _marking = new(1, 1);
    private long _kmsg = -1;

    private ControlSession(AgentSession session, SystemCalls calls, bool logIsRationed)
    {
        _session = session;
        _calls = calls;
        _logIsRationed = logIsRationed;
    }

    /// <param name="logIsRationed">The kernel was booted by somebody else and takes ten lines in five seconds from one open /dev/kmsg (printk.devkmsg).</param>
    public static async Task<ControlSession> OpenAsync(AgentConnection agent, KernelArchitecture architecture, bool logIsRationed, CancellationToken cancellation) =>
        new(await agent.OpenSessionAsync(cancellation).ConfigureAwait(false), architecture == KernelArchitecture.X86_64 ? SystemCalls.X86_64 : SystemCalls.Arm64, logIsRationed);

    /// <summary>Writes one line to the kernel's log, as a warning: that is what its console shows.</summary>
    /// <exception cref="IOException">It was refused, or the kernel is gone.</exception>
    public async Task LogAsync(string line, CancellationToken cancellation)
    {
        await _marking.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_kmsg < 0)
            {
                _kmsg = await OpenFileAsync("/dev/kmsg", WriteOnly).ConfigureAwait(false);
            }

            byte[] bytes = Encoding.UTF8.GetBytes($"<4>{line}\n");
            Check(await _session.CallAsync(new SystemCall(_calls.Write, "write(\"/dev/kmsg\")").Arg(_kmsg).In(bytes).Arg(bytes.Length)).WaitAsync(cancellation).ConfigureAwait(false), "write", "/dev/kmsg");
        }
        finally
        {
            if (_logIsRationed && _kmsg >= 0)
            {
                _ = CloseAsync(_kmsg);
                _kmsg = -1;
            }

            _marking.Release();
        }
    }

    /// <summary>Gives a log what the kernel prints from now on, until the session or its kernel is gone; then the log has ended.</summary>
    /// <exception cref="IOException">/dev/kmsg cannot be opened.</exception>
    public async Task FollowLogAsync(KernelLog log)
    {
        const int SeekEnd = 2;
        long fd = await OpenFileAsync("/dev/kmsg", 0).ConfigureAwait(false);
        Check(await _session.CallAsync(new SystemCall(_calls.Lseek, "lseek(\"/dev/kmsg\", end)").Arg(fd).Arg(0).Arg(SeekEnd)).ConfigureAwait(false), "seek", "/dev/kmsg");
        _ = ReadRecordsAsync(fd, log);
    }

    /// <exception cref="IOException">It cannot be read.</exception>
    public async Task<string> ReadFileAsync(string path)
    {
        long fd = await OpenFileAsync(path, 0).ConfigureAwait(false);
        try
        {
            using MemoryStream content = new();
            while (true)
            {
                CallResult read = await _session.CallAsync(new SystemCall(_calls.Read, $"read(\"{path}\")").Arg(fd).Out(65536).Arg(65536)).ConfigureAwait(false);
                Check(read, "read", path);
                if (read.Result == 0)
                {
                    return Encoding.UTF8.GetString(content.GetBuffer(), 0, (int)content.Length);
                }

                content.Write(read.Buffers[0], 0, (int)read.Result);
            }
        }
        finally
        {
            await CloseAsync(fd).ConfigureAwait(false);
        }
    }

    /// <summary>Makes a file of these bytes.</summary>
    /// <exception cref="IOException">It cannot be made.</exception>
    public async Task WriteFileAsync(string path, ReadOnlyMemory<byte> content)
    {
        long fd = await OpenFileAsync(path, WriteOnly | CreateTruncate).ConfigureAwait(false);
        try
        {
            // A page or so of a file in procfs is taken as a whole; a module is not.
            while (content.Length > 0)
            {
                ReadOnlyMemory<byte> piece = content[..Math.Min(content.Length, PieceBytes)];
                CallResult write = await _session.CallAsync(new SystemCall(_calls.Write, $"write(\"{path}\")").Arg(fd).In(piece.Span).Arg(piece.Length)).ConfigureAwait(false);
                Check(write, "write", path);
                content = content[(int)write.Result..];
            }
        }
        finally
        {
            await CloseAsync(fd).ConfigureAwait(false);
        }
    }

    /// <summary>Sets the time of day of a kernel that slept in a file.</summary>
    public async Task SetClockAsync(DateTimeOffset now)
    {
        byte[] time = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(time, now.ToUnixTimeSeconds());
        BinaryPrimitives.WriteInt64LittleEndian(time.AsSpan(8), now.Millisecond * 1_000_000L);
        Check(await _session.CallAsync(new SystemCall(_calls.ClockSettime, "clock_settime(CLOCK_REALTIME)").Arg(0).In(time)).ConfigureAwait(false), "set", "the clock");
    }

    /// <summary>
    /// Has every processor of a kernel that slept in a file program its timer again. QEMU 7.2 does not save the EL2 timers, on which an arm64 kernel with
    /// VHE runs: what was to expire on a processor never did, and what is to expire later programs nothing. A time that is long past does.
    /// </summary>
    public Task StartTimersAsync()
    {
        const int TimerAbsolute = 1;
        return SleepOnEachAsync(TimerAbsolute, nanoseconds: 1, "a time that is past");
    }

    /// <summary>Returns once a timer has expired on every processor; never on a kernel that one of them no longer wakes.</summary>
    public Task AwaitTimersAsync() => SleepOnEachAsync(0, nanoseconds: 1_000_000, "a millisecond");

    private async Task SleepOnEachAsync(int flags, long nanoseconds, string what)
    {
        const int ClockMonotonic = 1;
        byte[] time = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(time.AsSpan(8), nanoseconds);
        for (int processor = 0; processor < _session.Connection.Hello.Processors; processor++)
        {
            await StayOnAsync(CpuSet.Of(processor)).ConfigureAwait(false);
            Check(await _session.CallAsync(new SystemCall(_calls.ClockNanosleep, $"clock_nanosleep({what})").Arg(ClockMonotonic).Arg(flags).In(time).Arg(0)).ConfigureAwait(false), "wait for", what);
        }

        await StayOnAsync(CpuSet.All()).ConfigureAwait(false);

        async Task StayOnAsync(byte[] mask) =>
            Check(await _session.CallAsync(new SystemCall(_calls.SchedSetaffinity, "sched_setaffinity(self)").Arg(0).Arg(mask.Length).In(mask)).ConfigureAwait(false), "move to", "another processor");
    }

    /// <summary>Loads a module from a file of the kernel under test; one that is loaded already is as good.</summary>
    /// <returns>What the kernel answered: 0, EEXIST, or why it refused.</returns>
    public async Task<Errno> LoadModuleAsync(string path)
    {
        CallResult open = await TryOpenFileAsync(path, 0).ConfigureAwait(false);
        if (open.Errno != 0)
        {
            return (Errno)open.Errno;
        }

        CallResult load = await _session.CallAsync(
            new SystemCall(_calls.FinitModule, $"finit_module(\"{path}\")").Arg(open.Result).In("\0"u8).Arg(0), offload: true).ConfigureAwait(false);
        await CloseAsync(open.Result).ConfigureAwait(false);
        return (Errno)load.Errno;
    }

    /// <summary>Asks the kernel to switch its machine off. There is no answer: the kernel goes with the agent in it.</summary>
    public async Task PowerOffAsync()
    {
        // reboot(2): LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF.
        await _session.CallAsync(new SystemCall(_calls.Reboot, "reboot(POWER_OFF)").Arg(0xfee1dead).Arg(672274793).Arg(0x4321fedc)).ConfigureAwait(false);
    }

    // Here rather than on this machine: a read of /dev/kmsg gives one record, and blocks until there is one.
    private async Task ReadRecordsAsync(long fd, KernelLog log)
    {
        try
        {
            while (true)
            {
                CallResult read = await _session.CallAsync(new SystemCall(_calls.Read, "read(\"/dev/kmsg\")").Arg(fd).Out(8192).Arg(8192), offload: true).ConfigureAwait(false);
                // EPIPE: records were overwritten before they were read; the next read goes on behind them.
                if (read.Result > 0)
                {
                    log.FeedRecord(Encoding.UTF8.GetString(read.Buffers[0], 0, (int)read.Result));
                }
                else if ((Errno)read.Errno is not (Errno.EPIPE or Errno.EINTR))
                {
                    break;
                }
            }
        }
        catch (IOException e)
        {
            // The session went with the target.
            Debug.WriteLine(e.Message);
        }

        log.End();
    }

    private static void Check(CallResult result, string what, string path)
    {
        if (result.Errno != 0)
        {
            throw new IOException($"The kernel under test does not {what} {path}: {(Errno)result.Errno}.");
        }
    }

    private Task<CallResult> TryOpenFileAsync(string path, int flags) =>
        _session.CallAsync(new SystemCall(_calls.Openat, $"open(\"{path}\")").Arg(AtFdcwd).In([.. Encoding.UTF8.GetBytes(path), 0]).Arg(flags).Arg(0b110_000_000));

    private async Task<long> OpenFileAsync(string path, int flags)
    {
        CallResult open = await TryOpenFileAsync(path, flags).ConfigureAwait(false);
        Check(open, "open", path);
        return open.Result;
    }

    private Task CloseAsync(long fd) => _session.CallAsync(new SystemCall(_calls.Close, "close()").Arg(fd));
}

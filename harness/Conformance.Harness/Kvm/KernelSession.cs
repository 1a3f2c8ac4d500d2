// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;

namespace Conformance.Kvm;

/// <summary>What an ioctl answered: its non-negative result, or an error.</summary>
public readonly record struct IoctlAnswer(Errno Error, long Result, byte[] Data)
{
    public bool Ok => Error == Errno.None;

    /// <summary>The error of a call whose only success is 0; any other success is a claim broken, whatever the test is about.</summary>
    public Errno Outcome
    {
        get
        {
            if (Ok)
            {
                Result.Should().Be(0, "the call has no other success");
            }

            return Error;
        }
    }
}

/// <summary>
/// One process of the kernel under test, as a test sees it: descriptors, ioctls and memory. Ending it releases all of them, whatever state a
/// claim left them in.
/// </summary>
public sealed class KernelSession : IAsyncDisposable
{
    private const int O_RDONLY = 0;
    private const int O_RDWR = 2;
    private const int O_CLOEXEC = 0x80000;
    private const int EFD_SEMAPHORE = 1;
    private const int EFD_NONBLOCK = 0x800;
    private const int EFD_CLOEXEC = 0x80000;
    private const int AT_FDCWD = -100;
    private const short POLLIN = 1;
    private const int ProtRead = 1, ProtWrite = 2, MapShared = 1, MapPrivate = 2, MapAnonymous = 0x20;

    private int _eventfds;

    internal KernelSession(AgentSession agent, KernelArchitecture architecture, Func<string, string> guestImagePath)
    {
        Agent = agent;
        Architecture = architecture;
        GuestImagePath = guestImagePath;
        Numbers = architecture == KernelArchitecture.X86_64 ? SystemCalls.X86_64 : SystemCalls.Arm64;
    }

    public AgentSession Agent { get; }

    public KernelArchitecture Architecture { get; }

    public SystemCalls Numbers { get; }

    /// <summary>Where a guest image is, as this process sees the file system.</summary>
    public Func<string, string> GuestImagePath { get; }

    /// <summary>How long an event that the kernel owes may take before the claim that it happens is broken. Far above what emulation needs.</summary>
    public TimeSpan EventPatience { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>
    /// The processors are QEMU's: after an interrupt that QEMU delivered twice, EXITINTINFO names a type without being valid, and newer
    /// kernels (not 6.12) refuse to emulate the instruction of that exit (svm_check_emulate_instruction). Nothing was done by then, so vCPUs run it again.
    /// </summary>
    public bool RepeatsVectoringErrors { get; set; }

    /// <summary>The PCI functions that claims may take from a machine which others use too; null: all, for it is the suite's own.</summary>
    public IReadOnlyCollection<string>? NamedDevices { get; init; }

    public bool HasEnded => Agent.Ended.IsCompleted;

    /// <summary>Opens a file of the kernel under test.</summary>
    /// <exception cref="KvmException">It cannot be opened.</exception>
    public async Task<KernelFd> OpenAsync(string path, bool writable = true)
    {
        (Errno error, KernelFd? fd) = await TryOpenAsync(path, writable);
        return fd ?? throw new KvmException($"open(\"{path}\")", error);
    }

    public async Task<(Errno Error, KernelFd? Fd)> TryOpenAsync(string path, bool writable = true)
    {
        CallResult call = await Agent.CallAsync(OpenCall(path, writable));
        return call.Errno == 0 ? (Errno.None, new KernelFd(this, (int)call.Result, path)) : ((Errno)call.Errno, null);
    }

    internal SystemCall OpenCall(string path, bool writable) => new SystemCall(Numbers.Openat, $"open(\"{path}\")")
        .Arg(AT_FDCWD).In(CString(path)).Arg((writable ? O_RDWR : O_RDONLY) | O_CLOEXEC).Arg(0);

    /// <summary>The whole of a small file such as those of procfs and sysfs; null when it does not exist.</summary>
    public async Task<string?> ReadFileAsync(string path)
    {
        (Errno error, KernelFd? fd) = await TryOpenAsync(path, writable: false);
        if (fd is null)
        {
            return error is Errno.ENOENT or Errno.ENOTDIR ? null : throw new KvmException($"open(\"{path}\")", error);
        }

        await using (fd)
        {
            var text = new MemoryStream();
            while (true)
            {
                (Errno readError, byte[] data) = await TryReadAsync(fd, 65536);
                // A thread's file in /proc whose thread has ended since it was opened.
                if (readError == Errno.ESRCH)
                {
                    return null;
                }

                if (readError != Errno.None)
                {
                    throw new KvmException($"read(\"{path}\")", readError);
                }

                if (data.Length == 0)
                {
                    return Encoding.UTF8.GetString(text.GetBuffer(), 0, (int)text.Length);
                }

                text.Write(data);
            }
        }
    }

    /// <summary>The names in a folder that do not begin with a dot, in ordinal order.</summary>
    public async Task<IReadOnlyCollection<string>> ListFolderAsync(string path)
    {
        const int LengthOffset = 16, NameOffset = 19;
        await using KernelFd folder = await OpenAsync(path, writable: false);
        var names = new SortedSet<string>(StringComparer.Ordinal);
        while (true)
        {
            CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Getdents64, $"getdents({path})").Arg(folder.Number).Out(8192).Arg(8192));
            if (call.Errno != 0)
            {
                throw new KvmException($"getdents({path})", (Errno)call.Errno);
            }

            if (call.Result == 0)
            {
                return names;
            }

            for (int at = 0; at < call.Result; at += BinaryPrimitives.ReadUInt16LittleEndian(call.Buffers[0].AsSpan(at + LengthOffset)))
            {
                ReadOnlySpan<byte> name = call.Buffers[0].AsSpan(at + NameOffset);
                string text = Encoding.ASCII.GetString(name[..name.IndexOf((byte)0)]);
                if (text[0] != '.')
                {
                    names.Add(text);
                }
            }
        }
    }

    /// <summary>Writes text to an existing file, in one write, as procfs and sysfs want it.</summary>
    public async Task<Errno> TryWriteFileAsync(string path, string text)
    {
        CallResult open = await Agent.CallAsync(new SystemCall(Numbers.Openat, $"open(\"{path}\", O_WRONLY)")
            .Arg(AT_FDCWD).In(CString(path)).Arg(1 | O_CLOEXEC).Arg(0));
        if (open.Errno != 0)
        {
            return (Errno)open.Errno;
        }

        await using var fd = new KernelFd(this, (int)open.Result, path);
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        CallResult write = await Agent.CallAsync(new SystemCall(Numbers.Write, $"write(\"{path}\", \"{text.TrimEnd()}\")")
            .Arg(fd.Number).In(bytes).Arg(bytes.Length));
        return (Errno)write.Errno;
    }

    public async Task WriteFileAsync(string path, string text)
    {
        Errno error = await TryWriteFileAsync(path, text);
        if (error != Errno.None)
        {
            throw new KvmException($"write(\"{path}\")", error);
        }
    }

    /// <summary>The first processor that this process may use: 0, unless the machine gives it others only.</summary>
    public async Task<int> FirstProcessorAsync() => (await ProcessorsAsync())[0];

    /// <summary>The processors that this process may use.</summary>
    public async Task<int[]> ProcessorsAsync()
    {
        string status = await ReadFileAsync("/proc/self/status") ?? "";
        string allowed = status.Split('\n').FirstOrDefault(l => l.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal)) ?? "Cpus_allowed_list:\t0";
        return [.. allowed[(allowed.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim().Split(',')
            .Select(r => r.Split('-').Select(n => int.Parse(n, CultureInfo.InvariantCulture)).ToArray())
            .SelectMany(r => Enumerable.Range(r[0], r[^1] - r[0] + 1))];
    }

    /// <summary>Binds a thread of this process, and the threads that it starts from now on, to one processor (sched_setaffinity).</summary>
    /// <param name="processor">Its number, below 1024.</param>
    /// <param name="thread">The thread; 0 is the one that makes this session's calls.</param>
    public async Task StayOnProcessorAsync(int processor, int thread = 0)
    {
        byte[] mask = CpuSet.Of(processor);
        CallResult bound = await Agent.CallAsync(new SystemCall(Numbers.SchedSetaffinity, $"sched_setaffinity({(thread == 0 ? "self" : thread)}, processor {processor})")
            .Arg(thread).Arg(mask.Length).In(mask));
        if (bound.Errno != 0)
        {
            throw new KvmException("sched_setaffinity", (Errno)bound.Errno);
        }
    }

    /// <summary>An eventfd, named A, B, C … in the order of creation.</summary>
    public async Task<EventFd> CreateEventFdAsync(uint count = 0, bool semaphore = false)
    {
        string name = EventFdName(_eventfds++);
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Eventfd2, $"eventfd() = {name}")
            .Arg(count).Arg(EFD_NONBLOCK | EFD_CLOEXEC | (semaphore ? EFD_SEMAPHORE : 0)));
        return call.Errno == 0 ? new EventFd(this, (int)call.Result, name) : throw new KvmException("eventfd()", (Errno)call.Errno);
    }

    /// <summary>Anonymous memory of the session, zero filled.</summary>
    /// <param name="length">In bytes; rounded up to pages by the kernel.</param>
    public Task<Mapping> MapAnonymousAsync(ulong length, string name) => MapAsync(null, length, 0, name);

    /// <param name="fd">What to map, shared; null: anonymous and private.</param>
    public async Task<Mapping> MapAsync(KernelFd? fd, ulong length, ulong offset, string name, bool writable = true)
    {
        CallResult call = await Agent.CallAsync(fd is null ? MapAnonymousCall(length, name, writable) : new SystemCall(Numbers.Mmap, $"mmap({name}, {length})")
            .Arg(0).Arg(length).Arg(ProtRead | (writable ? ProtWrite : 0)).Arg(MapShared).Arg(fd.Number).Arg(offset));
        return call.Errno == 0
            ? new Mapping(this, (ulong)call.Result, length, name)
            : throw new KvmException($"mmap({name}, {length})", (Errno)call.Errno);
    }

    internal SystemCall MapAnonymousCall(ulong length, string name, bool writable = true) => new SystemCall(Numbers.Mmap, $"mmap({name}, {length})")
        .Arg(0).Arg(length).Arg(ProtRead | (writable ? ProtWrite : 0)).Arg(MapPrivate | MapAnonymous).Arg(-1).Arg(0);

    /// <summary>An ioctl whose argument is a value.</summary>
    public async Task<IoctlAnswer> IoctlAsync(KernelFd fd, Ioctl request, ulong argument = 0, bool offload = false)
    {
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Ioctl, $"ioctl({fd.Name}, {request.Name}, {argument})")
            .Arg(fd.Number).Arg(request.Number).Arg(argument), offload);
        return new IoctlAnswer((Errno)call.Errno, call.Result, []);
    }

    /// <summary>An ioctl whose argument is a structure, which is read back.</summary>
    /// <param name="what">The arguments in words, for the journal.</param>
    public async Task<IoctlAnswer> IoctlAsync(KernelFd fd, Ioctl request, byte[] argument, string what, bool offload = false)
    {
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Ioctl, $"ioctl({fd.Name}, {request.Name}, {what})")
            .Arg(fd.Number).Arg(request.Number).InOut(argument, argument.Length), offload);
        return new IoctlAnswer((Errno)call.Errno, call.Result, call.Buffers[0]);
    }

    public Task<IoctlAnswer> IoctlAsync<T>(KernelFd fd, Ioctl request, T argument, string what, bool offload = false)
        where T : unmanaged => IoctlAsync(fd, request, Bytes(argument), what, offload);

    /// <summary>An ioctl that fills a structure.</summary>
    public async Task<(Errno Error, T Value)> TryGetAsync<T>(KernelFd fd, Ioctl request, T argument, string what)
        where T : unmanaged
    {
        IoctlAnswer answer = await IoctlAsync(fd, request, argument, what);
        return (answer.Outcome, Read<T>(answer.Data));
    }

    public async Task<(Errno Error, byte[] Data)> TryReadAsync(KernelFd fd, int length)
    {
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Read, $"read({fd.Name})").Arg(fd.Number).Out(length).Arg(length));
        return call.Errno == 0 ? (Errno.None, call.Buffers[0][..(int)call.Result]) : ((Errno)call.Errno, []);
    }

    public async Task WriteAsync(KernelFd fd, byte[] data)
    {
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Write, $"write({fd.Name})").Arg(fd.Number).In(data).Arg(data.Length));
        if (call.Errno != 0)
        {
            throw new KvmException($"write({fd.Name})", (Errno)call.Errno);
        }
    }

    /// <summary>Waits until the descriptor is readable.</summary>
    /// <exception cref="MissingEventException">It was not within <see cref="EventPatience"/>.</exception>
    public async Task PollAsync(KernelFd fd)
    {
        // The kernel measures the patience: that it answers at all tells a lost event from a kernel that hangs.
        byte[] timeout = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(timeout, EventPatience.Ticks / TimeSpan.TicksPerSecond);
        BinaryPrimitives.WriteInt64LittleEndian(timeout.AsSpan(8), EventPatience.Ticks % TimeSpan.TicksPerSecond * 100);
        byte[] pollfd = new byte[8];
        BinaryPrimitives.WriteInt32LittleEndian(pollfd, fd.Number);
        BinaryPrimitives.WriteInt16LittleEndian(pollfd.AsSpan(4), POLLIN);
        CallResult call = await Agent.CallAsync(
            new SystemCall(Numbers.Ppoll, $"poll({fd.Name})").InOut(pollfd, 8).Arg(1).In(timeout).Arg(0).Arg(0), offload: true);
        if (call.Errno != 0)
        {
            throw new KvmException($"poll({fd.Name})", (Errno)call.Errno);
        }

        if (call.Result == 0)
        {
            throw new MissingEventException($"{fd.Name} was not signalled within {EventPatience.TotalSeconds:0} s.");
        }
    }

    /// <summary>Waits for the state of a thread of the session, as /proc names it; 'X' once it is gone.</summary>
    /// <returns>The state; null when it did not come.</returns>
    public async Task<char?> WaitForThreadAsync(long threadId, Func<char, bool> awaited)
    {
        using CancellationTokenSource patience = EventDeadline();
        while (!patience.IsCancellationRequested)
        {
            string? stat = await ReadThreadStatAsync(threadId);
            char state = stat is null ? 'X' : stat[stat.LastIndexOf(')') + 2];
            if (awaited(state))
            {
                return state;
            }
        }

        return null;
    }

    /// <summary>Opened, read and closed in one way to the kernel and back, for it is read again and again; null when the thread is gone.</summary>
    private async Task<string?> ReadThreadStatAsync(long threadId)
    {
        string path = $"/proc/self/task/{threadId}/stat";
        KeptResult file = Agent.Keep();
        Task<CallResult> opened = Agent.CallAsync(OpenCall(path, writable: false).KeepAs(file));
        Task<CallResult> read = Agent.CallAsync(new SystemCall(Numbers.Read, $"read({path})").Arg(file).Out(1024).Arg(1024));
        Task<CallResult> closed = Agent.CallAsync(new SystemCall(Numbers.Close, $"close({path})").Arg(file));
        if ((await opened).Errno != 0)
        {
            return (Errno)opened.Result.Errno is Errno.ENOENT ? null : throw new KvmException($"open(\"{path}\")", (Errno)opened.Result.Errno);
        }

        await Task.WhenAll(read, closed);
        return (Errno)read.Result.Errno switch
        {
            Errno.None => Encoding.UTF8.GetString(read.Result.Buffers[0], 0, (int)read.Result.Result),
            Errno.ESRCH => null,
            Errno error => throw new KvmException($"read(\"{path}\")", error),
        };
    }

    internal async Task CloseAsync(KernelFd fd)
    {
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Close, $"close({fd.Name})").Arg(fd.Number));
        if (call.Errno != 0)
        {
            throw new KvmException($"close({fd.Name})", (Errno)call.Errno);
        }
    }

    internal async Task<int> DuplicateAsync(KernelFd fd)
    {
        CallResult call = await Agent.CallAsync(new SystemCall(Numbers.Dup, $"dup({fd.Name})").Arg(fd.Number));
        return call.Errno == 0 ? (int)call.Result : throw new KvmException($"dup({fd.Name})", (Errno)call.Errno);
    }

    internal CancellationTokenSource EventDeadline()
    {
        var source = CancellationTokenSource.CreateLinkedTokenSource(Agent.Deadline);
        source.CancelAfter(EventPatience);
        return source;
    }

    public ValueTask DisposeAsync() => Agent.DisposeAsync();

    internal static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    internal static T Read<T>(ReadOnlySpan<byte> data)
        where T : unmanaged => MemoryMarshal.Read<T>(data);

    private static string EventFdName(int index) => "eventfd " + (index < 26 ? ((char)('A' + index)).ToString() : (index + 1).ToString());

    private static byte[] CString(string text) => [.. Encoding.UTF8.GetBytes(text), 0];
}

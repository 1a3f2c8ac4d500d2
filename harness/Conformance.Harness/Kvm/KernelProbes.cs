// SPDX-License-Identifier: MIT
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>Counts calls of kernel functions, by kprobes through tracefs: what the kernel itself says it did.</summary>
public sealed class KernelProbes : IAsyncDisposable
{
    private const string Folder = "/sys/kernel/tracing";
    private const string Group = "conformance";
    private const uint MountNumberX86 = 165;
    private const uint MountNumberArm64 = 40;

    private readonly KernelSession _session;
    private readonly List<string> _probes = [];

    private KernelProbes(KernelSession session) => _session = session;

    /// <summary>Probes functions that the kernel has; those it lacks count as null. Null itself: this kernel has no kprobes.</summary>
    public static async Task<KernelProbes?> OpenAsync(KernelSession session, params IReadOnlyList<string> functions)
    {
        if (await session.ReadFileAsync($"{Folder}/kprobe_events") is null)
        {
            uint mount = session.Architecture == Kernels.KernelArchitecture.X86_64 ? MountNumberX86 : MountNumberArm64;
            await session.Agent.CallAsync(new SystemCall(mount, $"mount(tracefs, {Folder})").In("tracefs\0"u8).In([.. System.Text.Encoding.ASCII.GetBytes(Folder), 0])
                .In("tracefs\0"u8).Arg(0).Arg(0));
            if (await session.ReadFileAsync($"{Folder}/kprobe_events") is null)
            {
                return null;
            }
        }

        var probes = new KernelProbes(session);
        foreach (string function in functions)
        {
            // A probe that a killed session left behind is as good as a new one.
            if (await TryAppendAsync(session, $"{Folder}/kprobe_events", $"p:{Group}/{function} {function}\n") is Errno.None or Errno.EEXIST)
            {
                await session.WriteFileAsync($"{Folder}/events/{Group}/{function}/enable", "1");
                probes._probes.Add(function);
            }
        }

        await session.TryWriteFileAsync($"{Folder}/trace", "\n");
        return probes;
    }

    /// <summary>How often a function was called since; null when it could not be probed.</summary>
    public async Task<int?> CountAsync(string function)
    {
        if (!_probes.Contains(function))
        {
            return null;
        }

        string trace = await _session.ReadFileAsync($"{Folder}/trace") ?? "";
        return trace.Split('\n').Count(l => l.Contains($" {function}: (", StringComparison.Ordinal));
    }

    public async ValueTask DisposeAsync()
    {
        if (_session.HasEnded)
        {
            return;
        }

        foreach (string probe in _probes)
        {
            await _session.TryWriteFileAsync($"{Folder}/events/{Group}/{probe}/enable", "0");
            await TryAppendAsync(_session, $"{Folder}/kprobe_events", $"-:{Group}/{probe}\n");
        }
    }

    // kprobe_events is emptied by a plain open for writing; it has to be opened to append.
    private static async Task<Errno> TryAppendAsync(KernelSession session, string path, string text)
    {
        const int AtFdCwd = -100, WriteOnly = 1, Append = 0x400;
        byte[] name = [.. System.Text.Encoding.ASCII.GetBytes(path), 0], bytes = System.Text.Encoding.ASCII.GetBytes(text);
        CallResult open = await session.Agent.CallAsync(new SystemCall(session.Numbers.Openat, $"open(\"{path}\", O_APPEND)").Arg(AtFdCwd).In(name).Arg(WriteOnly | Append).Arg(0));
        if (open.Errno != 0)
        {
            return (Errno)open.Errno;
        }

        await using var fd = new KernelFd(session, (int)open.Result, path);
        CallResult write = await session.Agent.CallAsync(new SystemCall(session.Numbers.Write, $"write(\"{path}\", \"{text.Trim()}\")").Arg(fd.Number).In(bytes).Arg(bytes.Length));
        return (Errno)write.Errno;
    }
}

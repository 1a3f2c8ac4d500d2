// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Targets;

/// <summary>This machine's own kernel, with the agent as a child process. Needs root.</summary>
public sealed class LocalTarget : Target
{
    private static readonly TimeSpan s_startPatience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan s_endPatience = TimeSpan.FromSeconds(20);

    private readonly Process _process;
    private readonly ScratchFolder _folder;
    private readonly string _build;
    private readonly Task<string> _errors;
    private readonly TaskCompletionSource<TargetDeath> _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private AgentConnection _agent = null!;
    private AgentSession _control = null!;
    private bool _ending;

    private LocalTarget(Process process, ScratchFolder folder, string build)
    {
        _process = process;
        _folder = folder;
        _build = build;
        _errors = process.StandardError.ReadToEndAsync();
        Log = new KernelLog(WriteToKernelLogAsync);
    }

    public override string Kind => "local";

    public override string Accelerator => "none";

    public override AgentConnection Agent => _agent;

    public override KernelLog Log { get; }

    public override Task<TargetDeath> Died => _died.Task;

    private SystemCalls Calls => KernelArchitectures.OfThisMachine == KernelArchitecture.Arm64 ? SystemCalls.Arm64 : SystemCalls.X86_64;

    /// <summary>Starts the agent and returns when it has answered.</summary>
    /// <exception cref="MachineFaultException">It cannot be started, or not as root.</exception>
    public static async Task<LocalTarget> StartAsync(string build, CancellationToken cancellation)
    {
        if (!Environment.IsPrivilegedProcess)
        {
            throw new MachineFaultException("This machine's own kernel is tested as root: its log and its devices are closed to others. Run it with sudo.");
        }

        KernelArchitecture architecture = KernelArchitectures.OfThisMachine ?? throw new MachineFaultException("There is no agent for this machine's processor.");
        var folder = new ScratchFolder();
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint($"{folder.Path}/a"));
        listener.Listen(1);
        Process process;
        try
        {
            process = Process.Start(new ProcessStartInfo(Path.Combine(build, "tether"), [Path.Combine(build, $"agent-{architecture.MachineName()}"), "--connect", $"{folder.Path}/a"])
            {
                RedirectStandardInput = true,
                RedirectStandardError = true,
            })!;
        }
        catch (Win32Exception e)
        {
            folder.Dispose();
            throw new MachineFaultException($"The agent cannot be started: {e.Message}. Build it with ./conformance.", e);
        }

        var target = new LocalTarget(process, folder, build);
        try
        {
            using var start = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            start.CancelAfter(s_startPatience);
            await target.ConnectAsync(listener, start.Token).ConfigureAwait(false);
            return target;
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            await target.DisposeAsync().ConfigureAwait(false);
            cancellation.ThrowIfCancellationRequested();
            string errors = (await target._errors.ConfigureAwait(false)).Trim();
            throw new MachineFaultException($"The agent did not answer: {(errors.Length > 0 ? errors : e.Message)}", e);
        }
    }

    public override string GuestImagePath(string name) => Path.Combine(_build, "guests", name);

    public override Task ShutdownAsync() => DisposeAsync().AsTask();

    /// <summary>Asks modprobe; what this kernel does not have is missed by whoever needs it.</summary>
    public override async Task LoadModulesAsync(IReadOnlyList<string> names)
    {
        foreach (string name in names)
        {
            try
            {
                using Process modprobe = Process.Start(new ProcessStartInfo("modprobe", ["--quiet", name]) { RedirectStandardError = true })!;
                await modprobe.WaitForExitAsync();
            }
            catch (Win32Exception)
            {
                // A kernel without modules needs no modprobe either.
                return;
            }
        }
    }

    public override Task<string> ReadFileAsync(string path) => File.ReadAllTextAsync(path);

    public override async ValueTask DisposeAsync()
    {
        if (_ending)
        {
            return;
        }

        _ending = true;
        if (_agent is not null)
        {
            await _agent.DisposeAsync().ConfigureAwait(false);
            await EndAgentAsync().ConfigureAwait(false);
        }

        // The end of its input makes the tether kill what is left.
        _process.StandardInput.Close();
        await _process.WaitForExitAsync().ConfigureAwait(false);
        await _errors.ConfigureAwait(false);
        _process.Dispose();
        OnLost();
        _folder.Dispose();
    }

    // Without its stream the agent ends its sessions and exits when the kernel has released all they owned.
    private async Task EndAgentAsync()
    {
        using var patience = new CancellationTokenSource(s_endPatience);
        try
        {
            await _process.WaitForExitAsync(patience.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Debug.WriteLine("The kernel did not release a session; the agent is killed.");
        }
    }

    private async Task ConnectAsync(Socket listener, CancellationToken cancellation)
    {
        Task<Socket> accepted = listener.AcceptAsync(cancellation).AsTask();
        await Task.WhenAny(accepted, _process.WaitForExitAsync(cancellation)).ConfigureAwait(false);
        cancellation.ThrowIfCancellationRequested();
        if (!accepted.IsCompleted)
        {
            throw new IOException($"it exited with {_process.ExitCode}");
        }

        _agent = await AgentConnection.OpenAsync(new NetworkStream(await accepted.ConfigureAwait(false), ownsSocket: true), cancellation).ConfigureAwait(false);
        _control = await _agent.OpenSessionAsync(cancellation).ConfigureAwait(false);
        await FollowKernelLogAsync().ConfigureAwait(false);
        _ = Log.Death.ContinueWith(death => _died.TrySetResult(new TargetDeath(TargetEnd.KernelDied, death.Result.Title, death.Result.Text, death.Result)), TaskScheduler.Default);
        _ = _agent.Completion.ContinueWith(_ => OnLost(), TaskScheduler.Default);
    }

    private void OnLost()
    {
        Log.End();
        _died.TrySetResult(_ending ? new TargetDeath(TargetEnd.ShutDown, "shut down", "") : new TargetDeath(TargetEnd.Lost, "the agent is gone", Log.Tail()));
    }

    private Task WriteToKernelLogAsync(string line, CancellationToken cancellation) => File.WriteAllTextAsync("/dev/kmsg", line + "\n", cancellation);

    // Records are read in the session rather than here: a read of /dev/kmsg gives one record, and blocks until there is one.
    private async Task FollowKernelLogAsync()
    {
        CallResult open = await _control.CallAsync(new SystemCall(Calls.Openat, "open(\"/dev/kmsg\")").Arg(-100).In("/dev/kmsg\0"u8).Arg(0).Arg(0));
        if (open.Errno != 0)
        {
            throw new IOException($"/dev/kmsg does not open: {(Errno)open.Errno}.");
        }

        const int SeekEnd = 2;
        await _control.CallAsync(new SystemCall(Calls.Lseek, "lseek(/dev/kmsg, end)").Arg(open.Result).Arg(0).Arg(SeekEnd));
        _ = ReadRecordsAsync(open.Result);
    }

    private async Task ReadRecordsAsync(long fd)
    {
        try
        {
            while (true)
            {
                CallResult read = await _control.CallAsync(new SystemCall(Calls.Read, "read(/dev/kmsg)").Arg(fd).Out(8192).Arg(8192), offload: true);
                // EPIPE: records were overwritten before they were read; the next read goes on behind them.
                if (read.Result > 0)
                {
                    Log.FeedRecord(Encoding.UTF8.GetString(read.Buffers[0], 0, (int)read.Result));
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

        Log.End();
    }
}

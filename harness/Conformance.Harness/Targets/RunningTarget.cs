// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Targets;

/// <summary>
/// A kernel that runs already, on this machine or on another. A process that is tethered to this one holds the agent: itself, or the
/// connection to it; the agent connects to a socket of this machine.
/// </summary>
public abstract class RunningTarget : Target
{
    private static readonly TimeSpan s_startPatience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan s_endPatience = TimeSpan.FromSeconds(20);

    private readonly SystemCalls _calls;
    private readonly ScratchFolder _folder = new();
    private readonly TaskCompletionSource<TargetDeath> _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Process? _process;
    private Task<string> _errors = Task.FromResult("");
    private AgentConnection _agent = null!;
    private AgentSession _control = null!;
    private bool _ending;

    private protected RunningTarget(KernelArchitecture architecture)
    {
        _calls = architecture == KernelArchitecture.Arm64 ? SystemCalls.Arm64 : SystemCalls.X86_64;
        Log = new KernelLog(WriteToKernelLogAsync);
    }

    /// <inheritdoc/>
    public override string Accelerator => "none";

    /// <inheritdoc/>
    public override AgentConnection Agent => _agent;

    /// <inheritdoc/>
    public override KernelLog Log { get; }

    /// <inheritdoc/>
    public override Task<TargetDeath> Died => _died.Task;

    /// <inheritdoc/>
    public override Task ShutdownAsync() => DisposeAsync().AsTask();

    /// <inheritdoc/>
    public override async Task<string> ReadFileAsync(string path)
    {
        long fd = await OpenAsync(path, 0).ConfigureAwait(false);
        var text = new MemoryStream();
        while (true)
        {
            CallResult read = await _control.CallAsync(new SystemCall(_calls.Read, $"read(\"{path}\")").Arg(fd).Out(1 << 16).Arg(1 << 16)).ConfigureAwait(false);
            if (read.Result <= 0)
            {
                await CloseAsync(fd).ConfigureAwait(false);
                return read.Errno == 0 ? Encoding.UTF8.GetString(text.ToArray()) : throw new IOException($"{path} cannot be read: {(Errno)read.Errno}.");
            }

            text.Write(read.Buffers[0].AsSpan(0, (int)read.Result));
        }
    }

    /// <inheritdoc/>
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

        if (_process is not null)
        {
            // The end of its input makes the tether kill what is left.
            _process.StandardInput.Close();
            await _process.WaitForExitAsync().ConfigureAwait(false);
            await _errors.ConfigureAwait(false);
            _process.Dispose();
        }

        OnLost();
        _folder.Dispose();
    }

    /// <summary>Starts the process and returns when the agent has answered; on failure the target is gone.</summary>
    /// <param name="build">Folder with tether.</param>
    /// <param name="command">The program and its arguments, given the socket that the agent is to connect to.</param>
    /// <exception cref="MachineFaultException">The agent does not answer.</exception>
    private protected async Task StartAsync(string build, Func<string, IReadOnlyList<string>> command, CancellationToken cancellation)
    {
        string socket = $"{_folder.Path}/a";
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(socket));
        listener.Listen(1);
        try
        {
            _process = Process.Start(new ProcessStartInfo(Path.Combine(build, "tether"), command(socket)) { RedirectStandardInput = true, RedirectStandardError = true })!;
        }
        catch (Win32Exception e)
        {
            await DisposeAsync().ConfigureAwait(false);
            throw new MachineFaultException($"The agent cannot be started: {e.Message}. Build it with ./conformance.", e);
        }

        _errors = _process.StandardError.ReadToEndAsync(CancellationToken.None);
        try
        {
            using var start = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            start.CancelAfter(s_startPatience);
            await ConnectAsync(listener, start.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            await DisposeAsync().ConfigureAwait(false);
            cancellation.ThrowIfCancellationRequested();
            string errors = (await _errors.ConfigureAwait(false)).Trim();
            throw new MachineFaultException($"The agent did not answer: {(errors.Length > 0 ? errors : e.Message)}", e);
        }
    }

    // Without its stream the agent ends its sessions and exits when the kernel has released all they owned.
    private async Task EndAgentAsync()
    {
        using var patience = new CancellationTokenSource(s_endPatience);
        try
        {
            await _process!.WaitForExitAsync(patience.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Debug.WriteLine("The kernel did not release a session; the agent is killed.");
        }
    }

    private async Task ConnectAsync(Socket listener, CancellationToken cancellation)
    {
        Task<Socket> accepted = listener.AcceptAsync(cancellation).AsTask();
        await Task.WhenAny(accepted, _process!.WaitForExitAsync(cancellation)).ConfigureAwait(false);
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

    // Opened for each line: the kernel limits what one open file writes.
    private async Task WriteToKernelLogAsync(string line, CancellationToken cancellation)
    {
        const int WriteOnly = 1;
        long fd = await OpenAsync("/dev/kmsg", WriteOnly).WaitAsync(cancellation).ConfigureAwait(false);
        byte[] bytes = Encoding.UTF8.GetBytes(line + "\n");
        CallResult write = await _control.CallAsync(new SystemCall(_calls.Write, "write(\"/dev/kmsg\")").Arg(fd).In(bytes).Arg(bytes.Length)).WaitAsync(cancellation).ConfigureAwait(false);
        await CloseAsync(fd).WaitAsync(cancellation).ConfigureAwait(false);
        if (write.Errno != 0)
        {
            throw new IOException($"/dev/kmsg cannot be written: {(Errno)write.Errno}.");
        }
    }

    private async Task<long> OpenAsync(string path, int flags)
    {
        CallResult open = await _control.CallAsync(new SystemCall(_calls.Openat, $"open(\"{path}\")").Arg(-100).In([.. Encoding.UTF8.GetBytes(path), 0]).Arg(flags).Arg(0)).ConfigureAwait(false);
        return open.Errno == 0 ? open.Result : throw new IOException($"{path} does not open: {(Errno)open.Errno}.");
    }

    private Task CloseAsync(long fd) => _control.CallAsync(new SystemCall(_calls.Close, "close").Arg(fd));

    // Records are read in the session rather than here: a read of /dev/kmsg gives one record, and blocks until there is one.
    private async Task FollowKernelLogAsync()
    {
        const int SeekEnd = 2;
        long fd = await OpenAsync("/dev/kmsg", 0).ConfigureAwait(false);
        await _control.CallAsync(new SystemCall(_calls.Lseek, "lseek(/dev/kmsg, end)").Arg(fd).Arg(0).Arg(SeekEnd));
        _ = ReadRecordsAsync(fd);
    }

    private async Task ReadRecordsAsync(long fd)
    {
        try
        {
            while (true)
            {
                CallResult read = await _control.CallAsync(new SystemCall(_calls.Read, "read(/dev/kmsg)").Arg(fd).Out(8192).Arg(8192), offload: true);
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

// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using System.Net.Sockets;
using Conformance.Kernels;
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

    private readonly KernelArchitecture _architecture;
    private readonly ScratchFolder _folder = new();
    private readonly TaskCompletionSource<TargetDeath> _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Process? _process;
    private Task<string> _errors = Task.FromResult("");
    private AgentConnection _agent = null!;
    private ControlSession _control = null!;
    private bool _ending;

    private protected RunningTarget(KernelArchitecture architecture)
    {
        _architecture = architecture;
        Log = new KernelLog((line, token) => _control.LogAsync(line, token));
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
    public override Task<string> ReadFileAsync(string path) => _control.ReadFileAsync(path);

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
        _control = await ControlSession.OpenAsync(_agent, _architecture, logIsRationed: true, cancellation).ConfigureAwait(false);
        await _control.FollowLogAsync(Log).ConfigureAwait(false);
        _ = Log.Death.ContinueWith(death => _died.TrySetResult(new TargetDeath(TargetEnd.KernelDied, death.Result.Title, death.Result.Text, death.Result)), TaskScheduler.Default);
        _ = _agent.Completion.ContinueWith(_ => OnLost(), TaskScheduler.Default);
    }

    private void OnLost()
    {
        Log.End();
        _died.TrySetResult(_ending ? new TargetDeath(TargetEnd.ShutDown, "shut down", "") : new TargetDeath(TargetEnd.Lost, "the agent is gone", Log.Tail()));
    }
}

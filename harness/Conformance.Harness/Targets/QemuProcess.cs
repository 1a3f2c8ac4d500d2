// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text.Json;
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>How QEMU ended.</summary>
/// <param name="Code">Its exit status; above 128: the signal that ended it.</param>
/// <param name="Cause">QEMU's own word for it (<c>guest-reset</c>, <c>host-qmp-quit</c>); null when it had no time for one.</param>
/// <param name="Errors">What it wrote to its standard error, without what it always says.</param>
internal sealed record QemuExit(int Code, string? Cause, string Errors)
{
    public bool AskedByKernel => Cause?.StartsWith("guest-", StringComparison.Ordinal) == true;

    public override string ToString() => Code > 128 ? $"was killed by signal {Code - 128}" : $"ended with status {Code}";
}

/// <summary>One QEMU, tied to the life of this process, with its monitor, its console and the agent's channel.</summary>
internal sealed class QemuProcess : IAsyncDisposable
{
    private static readonly TimeSpan s_closing = TimeSpan.FromSeconds(2);
    private static readonly string[] s_usual = ["TCG doesn't support requested feature", "has no peer"];

    private readonly MachineLine _line;
    private readonly Process _process;
    private readonly KernelLog _log;
    private readonly Task<string> _output;
    private readonly Task<string> _errors;
    private Task<QmpEvent>? _shutdown;
    private Task _console = Task.CompletedTask;
    private bool _disposed;

    private QemuProcess(MachineLine line, Process process, SocketFolder sockets, KernelLog log)
    {
        _line = line;
        _process = process;
        _log = log;
        Sockets = sockets;
        _output = process.StandardOutput.ReadToEndAsync();
        _errors = process.StandardError.ReadToEndAsync();
        Exited = WaitForExitAsync();
    }

    /// <summary>Its sockets; a migration makes further ones there.</summary>
    public SocketFolder Sockets { get; }

    public QmpClient Qmp { get; private set; } = null!;

    /// <summary>The harness's end of the agent's channel.</summary>
    public NetworkStream Channel { get; private set; } = null!;

    /// <summary>The serial line: what is written here, the kernel's console receives.</summary>
    public NetworkStream Console { get; private set; } = null!;

    /// <summary>Completes when QEMU is gone and all it had said is read; never fails.</summary>
    public Task<QemuExit> Exited { get; }

    /// <summary>Starts QEMU and returns when its monitor answers.</summary>
    /// <param name="build">Folder with tether.</param>
    /// <param name="line">Which QEMU.</param>
    /// <param name="arguments">The machine, without its channels.</param>
    /// <param name="consoleFile">What the console prints is appended to it.</param>
    /// <param name="log">Gets the same.</param>
    /// <exception cref="MachineFaultException">QEMU is missing or refused its arguments.</exception>
    public static async Task<QemuProcess> StartAsync(
        string build, MachineLine line, IReadOnlyList<string> arguments, string consoleFile, KernelLog log, CancellationToken cancellation)
    {
        SocketFolder sockets = new();
        QemuProcess qemu;
        Socket console, monitor, channel;
        try
        {
            (console, monitor, channel) = (sockets.Listen("c"), sockets.Listen("q"), sockets.Listen("a"));
            qemu = new QemuProcess(line, StartProcess(build, line, [.. arguments, .. Channels(sockets, consoleFile)]), sockets, log);
        }
        catch
        {
            sockets.Dispose();
            throw;
        }

        try
        {
            await qemu.ConnectAsync(console, monitor, channel, cancellation).ConfigureAwait(false);
            return qemu;
        }
        catch
        {
            await qemu.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Waits for something only a QEMU that lives can do; its end is the answer too.</summary>
    /// <exception cref="MachineFaultException">QEMU ended first.</exception>
    public async Task<T> WhileItLivesAsync<T>(Task<T> work)
    {
        await Task.WhenAny(work, Exited).ConfigureAwait(false);
        if (work is { IsFaulted: true, Exception.InnerException: IOException })
        {
            // A QEMU that ends closes its sockets a moment before it is gone, and why it went is what matters.
            await Task.WhenAny(Exited, Task.Delay(s_closing)).ConfigureAwait(false);
        }

        if (Exited.IsCompleted && !work.IsCompletedSuccessfully)
        {
            QemuExit exit = await Exited.ConfigureAwait(false);
            _ = work.ContinueWith(static late => late.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
            throw new MachineFaultException(exit.Code switch
            {
                127 => $"{exit.Errors}\nInstall it: apt-get install --no-install-recommends {_line.Package}",
                _ => $"QEMU {exit}.{(exit.Errors.Length > 0 ? "\n" + exit.Errors : "")}",
            });
        }

        return await work.ConfigureAwait(false);
    }

    /// <summary>Ends it at once; returns when it is gone.</summary>
    public async Task KillAsync()
    {
        // The end of its input is what makes the tether kill QEMU.
        _process.StandardInput.Close();
        await Exited.ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        await KillAsync().ConfigureAwait(false);
        if (Qmp is not null)
        {
            await Qmp.DisposeAsync().ConfigureAwait(false);
        }

        if (Channel is not null)
        {
            await Channel.DisposeAsync().ConfigureAwait(false);
        }

        _process.Dispose();
        Sockets.Dispose();
    }

    /// <summary>A value inside a QEMU option: a comma would end it.</summary>
    internal static string Escape(string value) => value.Replace(",", ",,", StringComparison.Ordinal);

    private static string[] Channels(SocketFolder sockets, string consoleFile) =>
    [
        "-chardev", $"socket,id=console,path={Escape(sockets["c"])},logfile={Escape(consoleFile)},logappend=on", "-serial", "chardev:console",
        "-chardev", $"socket,id=monitor,path={Escape(sockets["q"])}", "-mon", "chardev=monitor,mode=control",
        "-chardev", $"socket,id=agent,path={Escape(sockets["a"])}",
    ];

    private static Process StartProcess(string build, MachineLine line, IEnumerable<string> arguments)
    {
        string tether = Path.Combine(build, "tether");
        try
        {
            return Process.Start(new ProcessStartInfo(tether, [line.Program, .. arguments])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            })!;
        }
        catch (Win32Exception e)
        {
            throw new MachineFaultException($"{tether} cannot be started: {e.Message}. Build it with ./conformance.", e);
        }
    }

    private async Task ConnectAsync(Socket console, Socket monitor, Socket channel, CancellationToken cancellation)
    {
        Console = new NetworkStream(await WhileItLivesAsync(console.AcceptAsync(cancellation).AsTask()).ConfigureAwait(false), ownsSocket: true);
        _console = ReadConsoleAsync();
        NetworkStream stream = new(await WhileItLivesAsync(monitor.AcceptAsync(cancellation).AsTask()).ConfigureAwait(false), ownsSocket: true);
        Task<QmpClient> opening = QmpClient.OpenAsync(stream, cancellation);
        Channel = new NetworkStream(await WhileItLivesAsync(channel.AcceptAsync(cancellation).AsTask()).ConfigureAwait(false), ownsSocket: true);
        Qmp = await WhileItLivesAsync(opening).ConfigureAwait(false);
        _shutdown = Qmp.NextEventAsync("SHUTDOWN");
    }

    private async Task ReadConsoleAsync()
    {
        byte[] buffer = new byte[16384];
        try
        {
            for (int n; (n = await Console.ReadAsync(buffer).ConfigureAwait(false)) > 0;)
            {
                _log.Feed(buffer.AsSpan(0, n));
            }
        }
        catch (IOException e)
        {
            // A killed QEMU resets the connection; the console ends here either way.
            Debug.WriteLine(e.Message);
        }
        finally
        {
            _log.End();
            await Console.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task<QemuExit> WaitForExitAsync()
    {
        await _process.WaitForExitAsync().ConfigureAwait(false);
        await _console.ConfigureAwait(false);
        _log.End();
        if (Qmp is not null)
        {
            await Qmp.Completion.ConfigureAwait(false);
        }

        string? cause = _shutdown is { IsCompletedSuccessfully: true } shutdown && shutdown.Result.Data is { ValueKind: JsonValueKind.Object } data
            && data.TryGetProperty("reason", out JsonElement reason) ? reason.GetString() : null;
        IEnumerable<string> said = ((await _errors.ConfigureAwait(false)) + await _output.ConfigureAwait(false))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            .Where(l => !s_usual.Any(u => l.Contains(u, StringComparison.Ordinal)));
        return new QemuExit(_process.ExitCode, cause, string.Join('\n', said));
    }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net.Sockets;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Targets;

/// <summary>A kernel in QEMU, with the agent on virtio-serial, the console and QMP on sockets of their own.</summary>
public sealed class EmulatedTarget : Target
{
    private static readonly TimeSpan s_bootPatience = TimeSpan.FromSeconds(120);
    private static readonly TimeSpan s_endPatience = TimeSpan.FromSeconds(10);

    private readonly PreparedKernel _kernel;
    private readonly Process _process;
    private readonly string _folder;
    private readonly TaskCompletionSource<TargetDeath> _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task<string> _stderr;
    private AgentConnection _agent = null!;
    private AgentSession _control = null!;
    private QmpClient? _qmp;
    private bool _ending;

    private EmulatedTarget(PreparedKernel kernel, Process process, string folder)
    {
        _kernel = kernel;
        _process = process;
        _folder = folder;
        _stderr = process.StandardError.ReadToEndAsync();
        Log = new KernelLog(WriteToKernelLogAsync);
    }

    public override string Kind => "emulated";

    public override string Accelerator => "tcg";

    public override string? QemuVersion => _qmp?.Version;

    public override AgentConnection Agent => _agent;

    public override KernelLog Log { get; }

    public override Task<TargetDeath> Died => _died.Task;

    public override QmpClient? Qmp => _qmp;

    /// <summary>Starts QEMU and returns when the agent has answered.</summary>
    /// <exception cref="MachineFaultException">QEMU is missing or refused its arguments, or the kernel did not come up.</exception>
    public static async Task<EmulatedTarget> StartAsync(PreparedKernel kernel, MachineOptions options, string build, string work, CancellationToken cancellation)
    {
        // Sockets have paths of at most 107 bytes: a short folder of our own, whatever the output folder is called.
        string folder = Directory.CreateTempSubdirectory("cfm").FullName;
        using Socket agent = Listen(folder, "a"), console = Listen(folder, "c"), monitor = Listen(folder, "q");
        MachineLine line = MachineLine.For(kernel.Architecture);
        var start = new ProcessStartInfo(Path.Combine(build, "tether")) { RedirectStandardInput = true, RedirectStandardError = true, RedirectStandardOutput = true };
        start.ArgumentList.Add(line.Program);
        foreach (string argument in line.Arguments(options, kernel.ImagePath, kernel.InitramfsPath))
        {
            start.ArgumentList.Add(argument);
        }

        foreach (string argument in new[]
        {
            "-chardev", $"socket,id=agent,path={folder}/a", "-chardev", $"socket,id=console,path={folder}/c,logfile={work}/console.log,logappend=on",
            "-serial", "chardev:console", "-chardev", $"socket,id=monitor,path={folder}/q", "-mon", "chardev=monitor,mode=control",
        })
        {
            start.ArgumentList.Add(argument);
        }

        Process process = Process.Start(start) ?? throw new MachineFaultException("tether could not be started.");
        var target = new EmulatedTarget(kernel, process, folder);
        try
        {
            await target.ConnectAsync(agent, console, monitor, cancellation);
            return target;
        }
        catch
        {
            await target.DisposeAsync();
            throw;
        }
    }

    public override string GuestImagePath(string name) => $"/guests/{name}";

    public override async Task ShutdownAsync()
    {
        _ending = true;
        try
        {
            using var patience = new CancellationTokenSource(s_endPatience);
            await _qmp!.ExecuteAsync("quit", null, patience.Token);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or QmpException)
        {
            _process.Kill();
        }

        await _process.WaitForExitAsync();
    }

    public override async ValueTask DisposeAsync()
    {
        _ending = true;
        if (!_process.HasExited)
        {
            // The end of its input makes the tether kill QEMU.
            _process.StandardInput.Close();
        }

        await _process.WaitForExitAsync();
        if (_agent is not null)
        {
            await _agent.DisposeAsync();
        }

        if (_qmp is not null)
        {
            await _qmp.DisposeAsync();
        }

        _process.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    /// <inheritdoc/>
    public override async Task LoadModulesAsync(IReadOnlyList<string> names)
    {
        var loaded = new HashSet<string>(StringComparer.Ordinal);
        foreach (string name in names)
        {
            foreach (KernelModule module in _kernel.LoadOrder(name) ?? [])
            {
                if (loaded.Add(module.Name))
                {
                    await LoadAsync(module);
                }
            }
        }
    }

    /// <inheritdoc/>
    public override async Task<string> ReadFileAsync(string path) => await ReadAsync(_control, Calls, path);

    private SystemCalls Calls => _kernel.Architecture == KernelArchitecture.X86_64 ? SystemCalls.X86_64 : SystemCalls.Arm64;

    private static Socket Listen(string folder, string name)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(Path.Combine(folder, name)));
        socket.Listen(1);
        return socket;
    }

    private async Task ConnectAsync(Socket agent, Socket console, Socket monitor, CancellationToken cancellation)
    {
        using var boot = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        boot.CancelAfter(s_bootPatience);
        // QEMU that ends before the agent answers ends the waiting too.
        _ = _process.WaitForExitAsync(CancellationToken.None).ContinueWith(_ => OnExit(boot), TaskScheduler.Default);
        try
        {
            _ = ReadConsoleAsync(new NetworkStream(await console.AcceptAsync(boot.Token), ownsSocket: true));
            var monitorStream = new NetworkStream(await monitor.AcceptAsync(boot.Token), ownsSocket: true);
            var agentStream = new NetworkStream(await agent.AcceptAsync(boot.Token), ownsSocket: true);
            _qmp = await QmpClient.OpenAsync(monitorStream, boot.Token);
            _agent = await AgentConnection.OpenAsync(agentStream, boot.Token);
            _control = await _agent.OpenSessionAsync(boot.Token);
            await WriteFileAsync("/proc/sys/kernel/printk", "7\n");
        }
        catch (Exception e) when (e is OperationCanceledException or IOException && !cancellation.IsCancellationRequested)
        {
            throw new MachineFaultException(await ExplainAsync(e));
        }

        _ = Log.Death.ContinueWith(death => End(TargetEnd.KernelDied, death.Result.Title, death.Result), TaskScheduler.Default);
    }

    private async Task<string> ExplainAsync(Exception e)
    {
        if (!_process.HasExited)
        {
            return $"The kernel {_kernel.Id} did not bring up the agent: {e.Message}\n{Log.Tail()}";
        }

        string errors = (await _stderr).Trim();
        return _process.ExitCode == 127
            ? $"{errors}\nInstall it: apt-get install --no-install-recommends {MachineLine.For(_kernel.Architecture).Package}"
            : $"QEMU ended ({_process.ExitCode}) before the kernel {_kernel.Id} was up.\n{errors}\n{Log.Tail()}";
    }

    private void OnExit(CancellationTokenSource boot)
    {
        try
        {
            boot.Cancel();
        }
        catch (ObjectDisposedException)
        {
            // It was up: this is a death, not a failed start.
            Debug.WriteLine("QEMU ended");
        }

        End(_ending ? TargetEnd.ShutDown : Log.Death.IsCompleted ? TargetEnd.KernelDied : TargetEnd.Lost,
            _ending ? "shut down" : Log.Death.IsCompleted ? Log.Death.Result.Title : "QEMU ended and the kernel had said nothing",
            Log.Death.IsCompleted ? Log.Death.Result : null);
    }

    private void End(TargetEnd end, string reason, KernelReport? report) =>
        _died.TrySetResult(new TargetDeath(end, reason, report?.Text ?? Log.Tail(), report));

    private async Task ReadConsoleAsync(NetworkStream stream)
    {
        byte[] buffer = new byte[65536];
        try
        {
            for (int n; (n = await stream.ReadAsync(buffer)) > 0;)
            {
                Log.Feed(buffer.AsSpan(0, n));
            }
        }
        catch (IOException e)
        {
            Debug.WriteLine(e.Message);
        }
        finally
        {
            Log.End();
            await stream.DisposeAsync();
        }
    }

    private Task WriteToKernelLogAsync(string line, CancellationToken cancellation) => WriteFileAsync("/dev/kmsg", line + "\n");

    private async Task WriteFileAsync(string path, string text)
    {
        CallResult open = await _control.CallAsync(new SystemCall(Calls.Openat, $"open(\"{path}\")").Arg(-100).In(CString(path)).Arg(1).Arg(0));
        byte[] bytes = System.Text.Encoding.UTF8.GetBytes(text);
        CallResult write = await _control.CallAsync(new SystemCall(Calls.Write, $"write(\"{path}\")").Arg(open.Result).In(bytes).Arg(bytes.Length));
        await _control.CallAsync(new SystemCall(Calls.Close, "close()").Arg(open.Result));
        if (write.Result != bytes.Length)
        {
            throw new IOException($"{path} of the kernel under test could not be written: {(Errno)(open.Errno != 0 ? open.Errno : write.Errno)}.");
        }
    }

    private static async Task<string> ReadAsync(AgentSession session, SystemCalls calls, string path)
    {
        CallResult open = await session.CallAsync(new SystemCall(calls.Openat, $"open(\"{path}\")").Arg(-100).In(CString(path)).Arg(0).Arg(0));
        if (open.Errno != 0)
        {
            throw new IOException($"{path} of the kernel under test could not be opened: {(Errno)open.Errno}.");
        }

        var text = new System.Text.StringBuilder();
        while (true)
        {
            CallResult read = await session.CallAsync(new SystemCall(calls.Read, "read()").Arg(open.Result).Out(16384).Arg(16384));
            if (read.Result <= 0)
            {
                await session.CallAsync(new SystemCall(calls.Close, "close()").Arg(open.Result));
                return text.ToString();
            }

            text.Append(System.Text.Encoding.UTF8.GetString(read.Buffers[0], 0, (int)read.Result));
        }
    }

    private async Task LoadAsync(KernelModule module)
    {
        CallResult open = await _control.CallAsync(new SystemCall(Calls.Openat, $"open(\"{module.PathInInitramfs}\")").Arg(-100).In(CString(module.PathInInitramfs)).Arg(0).Arg(0));
        CallResult load = await _control.CallAsync(new SystemCall(Calls.FinitModule, $"finit_module({module.Name})").Arg(open.Result).In(CString("")).Arg(0), offload: true);
        await _control.CallAsync(new SystemCall(Calls.Close, "close()").Arg(open.Result));
        if (load.Errno is not 0 and not (int)Errno.EEXIST)
        {
            throw new MachineFaultException($"The module {module.Name} does not load on {_kernel.Release}: {(Errno)load.Errno}.\n{Log.Tail(10)}");
        }
    }

    private static byte[] CString(string text) => [.. System.Text.Encoding.UTF8.GetBytes(text), 0];
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net.Sockets;
using Conformance.Wire;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>A real agent process on this machine, spoken to over a socket.</summary>
internal sealed class LocalAgent : IAsyncDisposable
{
    private readonly Process _tether;
    private readonly Socket _listener;
    private readonly string _path;

    private LocalAgent(Process tether, Socket listener, string path, NetworkStream stream)
    {
        _tether = tether;
        _listener = listener;
        _path = path;
        Stream = stream;
    }

    public NetworkStream Stream { get; }

    public AgentConnection Connection { get; private set; } = null!;

    public Process Process => _tether;

    public static string Build { get; } = FindBuild();

    public static async Task<LocalAgent> StartAsync(bool hello = true)
    {
        // The agent's standard input and output are pipes of ours; a file would do as well: its own small process joins them.
        var start = new ProcessStartInfo(Path.Combine(Build, "agent-x86_64"), "--stdio") { RedirectStandardInput = true, RedirectStandardOutput = true };
        Process agent = Process.Start(start)!;
        (Socket ours, Socket theirs) = await PairAsync();
        var bridge = new NetworkStream(theirs, ownsSocket: true);
        _ = PumpAsync(bridge, agent.StandardInput.BaseStream);
        _ = PumpAsync(agent.StandardOutput.BaseStream, bridge);
        var local = new LocalAgent(agent, ours, "", new NetworkStream(ours, ownsSocket: true));
        if (hello)
        {
            local.Connection = await AgentConnection.OpenAsync(local.Stream, TestContext.Current.CancellationToken);
        }

        return local;
    }

    public async ValueTask DisposeAsync()
    {
        await Stream.DisposeAsync();
        _listener.Dispose();
        await _tether.WaitForExitAsync();
        _tether.Dispose();
    }

    private static async Task PumpAsync(Stream from, Stream to)
    {
        try
        {
            byte[] buffer = new byte[65536];
            for (int n; (n = await from.ReadAsync(buffer)) > 0;)
            {
                await to.WriteAsync(buffer.AsMemory(0, n));
                await to.FlushAsync();
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // The other side went away, which is how every connection ends.
            Trace.WriteLine(e.Message);
        }
        finally
        {
            await to.DisposeAsync();
        }
    }

    private static async Task<(Socket, Socket)> PairAsync()
    {
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        string path = Path.Combine(Path.GetTempPath(), $"cfm-{Guid.NewGuid():n}.sock");
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        Task<Socket> accepted = listener.AcceptAsync();
        await client.ConnectAsync(new UnixDomainSocketEndPoint(path));
        File.Delete(path);
        return (client, await accepted);
    }

    private static string FindBuild()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Conformance.sln")))
            {
                return Path.Combine(folder.FullName, "build");
            }
        }

        throw new InvalidOperationException("No Conformance.sln above the tests.");
    }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Conformance.Uapi;
using Conformance.Wire;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>A real agent process on this machine, spoken to over a socket.</summary>
internal sealed class LocalAgent : IAsyncDisposable
{
    private readonly Process _tether;

    private LocalAgent(Process tether, NetworkStream stream)
    {
        _tether = tether;
        Stream = stream;
    }

    public NetworkStream Stream { get; }

    public AgentConnection Connection { get; private set; } = null!;

    /// <summary>The tether, whose exit status is the agent's.</summary>
    public Process Process => _tether;

    /// <summary>Where make puts the C parts.</summary>
    public static string Build { get; } = FindBuild();

    /// <summary>The agent for this machine; <c>CONFORMANCE_TEST_AGENT</c> names another, such as <c>agent-checked</c>.</summary>
    public static string Path { get; } = Environment.GetEnvironmentVariable("CONFORMANCE_TEST_AGENT")
        ?? System.IO.Path.Combine(Build, RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? "agent-aarch64" : "agent-x86_64");

    public static SystemCalls Calls { get; } = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? SystemCalls.Arm64 : SystemCalls.X86_64;

    public static async Task<LocalAgent> StartAsync(bool hello = true)
    {
        using TemporaryFolder folder = new();
        using Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(folder["a"]));
        listener.Listen(1);
        Process tether = Process.Start(new ProcessStartInfo(System.IO.Path.Combine(Build, "tether"), [Path, "--connect", folder["a"]]) { RedirectStandardInput = true })!;
        var local = new LocalAgent(tether, new NetworkStream(await listener.AcceptAsync(TestContext.Current.CancellationToken), ownsSocket: true));
        if (hello)
        {
            local.Connection = await AgentConnection.OpenAsync(local.Stream, TestContext.Current.CancellationToken);
        }

        return local;
    }

    /// <summary>A session that gives up when the test is to.</summary>
    public async Task<AgentSession> OpenAsync()
    {
        AgentSession session = await Connection.OpenSessionAsync(TestContext.Current.CancellationToken);
        session.Deadline = TestContext.Current.CancellationToken;
        return session;
    }

    /// <summary>Closes the stream, at which the agent ends its sessions and exits.</summary>
    public async ValueTask DisposeAsync()
    {
        await Stream.DisposeAsync();
        await _tether.WaitForExitAsync();
        _tether.Dispose();
    }

    private static string FindBuild()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(System.IO.Path.Combine(folder.FullName, "Conformance.sln")))
            {
                return System.IO.Path.Combine(folder.FullName, "build");
            }
        }

        throw new InvalidOperationException("No Conformance.sln above the tests.");
    }
}

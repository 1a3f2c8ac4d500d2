// SPDX-License-Identifier: MIT
using System.Net.Sockets;

namespace Conformance.Targets;

/// <summary>A private folder for the sockets QEMU connects to, with a path short enough for sun_path (108 bytes, unix(7)).</summary>
internal sealed class SocketFolder : IDisposable
{
    private const int LongestPath = 100;
    private readonly List<Socket> _sockets = [];
    private readonly ScratchFolder _folder = new(System.IO.Path.GetTempPath().Length > LongestPath - 20 ? "/tmp" : null);

    public string Path => _folder.Path;

    public string this[string name] => $"{Path}/{name}";

    /// <summary>A socket that waits for one connection.</summary>
    public Socket Listen(string name)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _sockets.Add(socket);
        socket.Bind(new UnixDomainSocketEndPoint(this[name]));
        socket.Listen(1);
        return socket;
    }

    /// <summary>A connection to a socket somebody else made in the folder.</summary>
    public async Task<NetworkStream> ConnectAsync(string name, CancellationToken cancellation)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(this[name]), cancellation).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Stops listening and removes the folder; connections that were made live on.</summary>
    public void Dispose()
    {
        foreach (Socket socket in _sockets)
        {
            socket.Dispose();
        }

        _folder.Dispose();
    }
}

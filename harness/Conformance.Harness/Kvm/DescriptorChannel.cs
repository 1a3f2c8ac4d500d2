// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Text;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>One end of a unix socket between two processes of the kernel under test, over which they pass descriptors (SCM_RIGHTS).</summary>
public sealed class DescriptorChannel : IAsyncDisposable
{
    private const int AF_UNIX = 1;
    private const int SOCK_STREAM = 1;
    private const int SOCK_CLOEXEC = 0x80000;
    private const int SOL_SOCKET = 1;
    private const int SCM_RIGHTS = 1;
    private const int MessageHeader = 56;
    private const int ControlHeader = 16;

    private static int s_names;

    private readonly KernelFd _socket;

    private DescriptorChannel(KernelFd socket) => _socket = socket;

    private KernelSession Session => _socket.Session;

    /// <summary>Connects two sessions.</summary>
    /// <exception cref="KvmException">The kernel refused a step.</exception>
    public static async Task<(DescriptorChannel First, DescriptorChannel Second)> ConnectAsync(KernelSession first, KernelSession second)
    {
        // An abstract name: it is gone with the socket, whatever becomes of the test.
        byte[] address = [AF_UNIX, 0, 0, .. Encoding.ASCII.GetBytes($"conformance-{first.Agent.Pid}-{Interlocked.Increment(ref s_names)}")];
        await using KernelFd listener = await SocketAsync(first, "listening socket");
        Check(await first.Agent.CallAsync(new SystemCall(first.Numbers.Bind, "bind()").Arg(listener.Number).In(address).Arg(address.Length)), "bind()");
        Check(await first.Agent.CallAsync(new SystemCall(first.Numbers.Listen, "listen()").Arg(listener.Number).Arg(1)), "listen()");
        KernelFd connecting = await SocketAsync(second, "socket");
        Check(await second.Agent.CallAsync(new SystemCall(second.Numbers.Connect, "connect()").Arg(connecting.Number).In(address).Arg(address.Length)), "connect()");
        CallResult accepted = await first.Agent.CallAsync(
            new SystemCall(first.Numbers.Accept4, "accept()").Arg(listener.Number).Arg(0).Arg(0).Arg(SOCK_CLOEXEC));
        Check(accepted, "accept()");
        return (new DescriptorChannel(new KernelFd(first, (int)accepted.Result, "socket")), new DescriptorChannel(connecting));
    }

    /// <summary>Passes descriptors to the other end; this end keeps its own.</summary>
    public async Task SendAsync(params IReadOnlyList<KernelFd> descriptors)
    {
        byte[] control = new byte[ControlHeader + (descriptors.Count * 4)];
        BinaryPrimitives.WriteInt64LittleEndian(control, control.Length);
        BinaryPrimitives.WriteInt32LittleEndian(control.AsSpan(8), SOL_SOCKET);
        BinaryPrimitives.WriteInt32LittleEndian(control.AsSpan(12), SCM_RIGHTS);
        for (int i = 0; i < descriptors.Count; i++)
        {
            BinaryPrimitives.WriteInt32LittleEndian(control.AsSpan(ControlHeader + (i * 4)), descriptors[i].Number);
        }

        string what = $"sendmsg({string.Join(", ", descriptors)})";
        Check(await CallAsync(Session.Numbers.Sendmsg, what, control, returned: false), what);
    }

    /// <summary>Receives as many eventfds as the other end sent at once.</summary>
    public async Task<EventFd[]> ReceiveEventFdsAsync(params IReadOnlyList<string> names)
    {
        int[] numbers = await ReceiveAsync(names.Count);
        return [.. numbers.Select((number, i) => new EventFd(Session, number, names[i]))];
    }

    /// <summary>Receives a descriptor of any kind.</summary>
    public async Task<KernelFd> ReceiveAsync(string name) => new(Session, (await ReceiveAsync(1))[0], name);

    public ValueTask DisposeAsync() => _socket.DisposeAsync();

    private static async Task<KernelFd> SocketAsync(KernelSession session, string name)
    {
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Socket, "socket()").Arg(AF_UNIX).Arg(SOCK_STREAM | SOCK_CLOEXEC).Arg(0));
        Check(call, "socket()");
        return new KernelFd(session, (int)call.Result, name);
    }

    private async Task<int[]> ReceiveAsync(int count)
    {
        CallResult call = await CallAsync(Session.Numbers.Recvmsg, "recvmsg()", new byte[ControlHeader + (count * 4)], returned: true);
        Check(call, "recvmsg()");
        byte[] control = call.Buffers[^1];
        if (BinaryPrimitives.ReadInt64LittleEndian(control) != control.Length)
        {
            throw new InvalidOperationException($"{count} descriptors were asked for; the message carries {(BinaryPrimitives.ReadInt64LittleEndian(control) - ControlHeader) / 4}.");
        }

        return [.. Enumerable.Range(0, count).Select(i => BinaryPrimitives.ReadInt32LittleEndian(control.AsSpan(ControlHeader + (i * 4))))];
    }

    // A message is one byte beside its descriptors: a stream socket carries no descriptors without data.
    private async Task<CallResult> CallAsync(uint number, string what, byte[] control, bool returned)
    {
        byte[] header = new byte[MessageHeader], vector = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(24), 1);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(40), control.Length);
        BinaryPrimitives.WriteInt64LittleEndian(vector.AsSpan(8), 1);
        SystemCall call = new SystemCall(number, what).Arg(_socket.Number).In(header).Arg(0);
        int vectorBuffer = call.Attach(vector, vector.Length, false);
        int data = call.Attach([0], 1, false);
        int controlBuffer = call.Attach(control, control.Length, returned);
        call.Pointer(0, 16, vectorBuffer).Pointer(0, 32, controlBuffer).Pointer(vectorBuffer, 0, data);
        return await Session.Agent.CallAsync(call, offload: true);
    }

    private static void Check(CallResult call, string what)
    {
        if (call.Errno != 0)
        {
            throw new KvmException(what, (Errno)call.Errno);
        }
    }
}

/// <summary>Memory that several processes map.</summary>
public static class SharedMemory
{
    /// <summary>A memfd of this size.</summary>
    public static async Task<KernelFd> CreateSharedMemoryAsync(this KernelSession session, ulong length, string name)
    {
        CallResult create = await session.Agent.CallAsync(new SystemCall(session.Numbers.MemfdCreate, $"memfd_create({name})").In([.. Encoding.ASCII.GetBytes(name), 0]).Arg(1));
        if (create.Errno != 0)
        {
            throw new KvmException($"memfd_create({name})", (Errno)create.Errno);
        }

        var fd = new KernelFd(session, (int)create.Result, name);
        CallResult truncate = await session.Agent.CallAsync(new SystemCall(session.Numbers.Ftruncate, $"ftruncate({name}, {length})").Arg(fd.Number).Arg(length));
        return truncate.Errno == 0 ? fd : throw new KvmException($"ftruncate({name})", (Errno)truncate.Errno);
    }
}

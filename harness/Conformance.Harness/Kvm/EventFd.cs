// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>An eventfd: a 64-bit counter that a signal adds to and a read takes.</summary>
public sealed class EventFd : KernelFd
{
    internal EventFd(KernelSession session, int number, string name)
        : base(session, number, name)
    {
    }

    /// <summary>Adds to the counter, waking whoever waits on it: KVM, when an irqfd is bound to it.</summary>
    public async Task SignalAsync(ulong count = 1)
    {
        byte[] value = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(value, count);
        await Session.WriteAsync(this, value);
    }

    /// <summary>The counter, which becomes 0 (or one less, for a semaphore); null when it is 0 already.</summary>
    /// <remarks>The descriptor is non-blocking: an empty counter is an answer, not a wait.</remarks>
    public async Task<ulong?> ReadAsync()
    {
        (Errno error, byte[] data) = await Session.TryReadAsync(this, 8);
        return error switch
        {
            Errno.None => BinaryPrimitives.ReadUInt64LittleEndian(data),
            Errno.EAGAIN => null,
            _ => throw new KvmException($"read({Name})", error),
        };
    }

    /// <summary>Waits until the counter is not 0 and takes it.</summary>
    /// <exception cref="MissingEventException">Nothing came within the session's patience.</exception>
    public async Task<ulong> WaitAsync()
    {
        while (true)
        {
            if (await ReadAsync() is ulong count)
            {
                return count;
            }

            await Session.PollAsync(this);
        }
    }
}

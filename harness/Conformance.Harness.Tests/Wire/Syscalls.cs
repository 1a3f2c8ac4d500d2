// SPDX-License-Identifier: MIT
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Harness.Tests.Wire;

/// <summary>The few system calls these tests make of a session.</summary>
internal static class Syscalls
{
    public const int PageSize = 4096;

    private static SystemCalls Calls => LocalAgent.Calls;

    public static SystemCall Getpid => new(Calls.Getpid, "getpid()");

    public static Task<CallResult> GetpidAsync(this AgentSession session) => session.CallAsync(Getpid);

    /// <returns>The descriptor.</returns>
    public static async Task<int> EventFdAsync(this AgentSession session, uint count = 0) =>
        (int)(await session.CallAsync(new SystemCall(Calls.Eventfd2, "eventfd()").Arg(count).Arg(0))).Result;

    public static Task<CallResult> SignalAsync(this AgentSession session, int eventfd, long count = 1) =>
        session.CallAsync(new SystemCall(Calls.Write, $"write({eventfd})").Arg(eventfd).In(BitConverter.GetBytes(count)).Arg(8));

    /// <summary>Blocks in the session until the eventfd is signalled.</summary>
    public static Task<CallResult> ReadEventFdAsync(this AgentSession session, int eventfd, bool offload = false) =>
        session.CallAsync(new SystemCall(Calls.Read, $"read({eventfd})").Arg(eventfd).Out(8).Arg(8), offload);

    /// <summary>Blocks in the session for ever.</summary>
    public static SystemCall WaitForEver => new SystemCall(Calls.Ppoll, "ppoll(nothing)").Arg(0).Arg(0).Arg(0).Arg(0);

    /// <returns>Address of zeroed memory of the session.</returns>
    public static async Task<ulong> MapAsync(this AgentSession session, ulong length = PageSize)
    {
        CallResult map = await session.CallAsync(new SystemCall(Calls.Mmap, $"mmap({length})").Arg(0).Arg(length).Arg(3).Arg(0x22).Arg(-1).Arg(0));
        return map.Errno == 0 ? (ulong)map.Result : throw new InvalidOperationException($"mmap: {(Errno)map.Errno}");
    }

    public static async Task<ulong> Read64Async(this AgentSession session, ulong address) => BitConverter.ToUInt64(await session.ReadAsync(address, 8));
}

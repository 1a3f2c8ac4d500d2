// SPDX-License-Identifier: MIT
namespace Conformance.Uapi;

/// <summary>cpu_set_t, 1024 bits, as sched_setaffinity takes it.</summary>
internal static class CpuSet
{
    private const int Bytes = 128;

    public static byte[] All() => [.. Enumerable.Repeat((byte)0xff, Bytes)];

    /// <param name="processor">Its number, below 1024.</param>
    public static byte[] Of(int processor)
    {
        byte[] set = new byte[Bytes];
        set[processor / 8] = (byte)(1 << (processor % 8));
        return set;
    }
}

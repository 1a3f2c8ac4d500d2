// SPDX-License-Identifier: MIT
using System.Diagnostics;

namespace Conformance.Harness.Tests;

/// <summary>Waits for what another process does, which this one can only look at.</summary>
internal static class Eventually
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(10);

    public static async Task IsTrueAsync(Func<bool> condition)
    {
        long start = Stopwatch.GetTimestamp();
        using PeriodicTimer timer = new(Pause);
        while (!condition())
        {
            if (Stopwatch.GetElapsedTime(start) > Limit)
            {
                throw new TimeoutException($"Not so within {Limit.TotalSeconds} s.");
            }

            await timer.WaitForNextTickAsync();
        }
    }
}

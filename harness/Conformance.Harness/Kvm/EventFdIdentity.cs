// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>
/// The number the kernel gives each eventfd (fdinfo, eventfd-id): the lowest free one, and free again only when the last reference is
/// gone, the kernel's own included. A reference that something keeps shows as a number that does not come back.
/// </summary>
public static class EventFdIdentity
{
    /// <exception cref="KvmException">This kernel does not tell.</exception>
    public static async Task<int> ReadIdAsync(this EventFd eventfd)
    {
        string info = await eventfd.Session.ReadFileAsync($"/proc/self/fdinfo/{eventfd.Number}") ?? "";
        string? line = info.Split('\n').FirstOrDefault(l => l.StartsWith("eventfd-id:", StringComparison.Ordinal));
        return line is null
            ? throw new KvmException($"fdinfo of {eventfd}", Errno.ENOENT, "no eventfd-id")
            : int.Parse(line.AsSpan(11).Trim(), CultureInfo.InvariantCulture);
    }
}

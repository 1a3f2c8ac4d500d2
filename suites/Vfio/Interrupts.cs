// SPDX-License-Identifier: MIT
using System.Globalization;

namespace Conformance.Vfio;

/// <summary>The interrupt handlers that VFIO has installed for a device, as /proc/interrupts names them.</summary>
internal static class Interrupts
{
    public static async Task<string[]> OfAsync(VfioDevice device)
    {
        string text = await device.Session.ReadFileAsync("/proc/interrupts") ?? "";
        return [.. text.Split('\n').Where(l => l.Contains($"({device})", StringComparison.Ordinal))
            .SelectMany(l => l.Split([' ', ','], StringSplitOptions.RemoveEmptyEntries).Where(w => w.Contains($"({device})", StringComparison.Ordinal)))
            .Order(StringComparer.Ordinal)];
    }

    /// <summary>Interrupts of a handler that nobody claimed, by the kernel's own count; null: it does not keep one.</summary>
    public static async Task<int?> UnhandledAsync(VfioDevice device, string handler)
    {
        string text = await device.Session.ReadFileAsync("/proc/interrupts") ?? "";
        string line = text.Split('\n').First(l => l.Contains(handler, StringComparison.Ordinal));
        string? counts = await device.Session.ReadFileAsync($"/proc/irq/{line.Split(':')[0].Trim()}/spurious");
        string? unhandled = counts?.Split('\n').FirstOrDefault(l => l.StartsWith("unhandled ", StringComparison.Ordinal));
        return unhandled is null ? null : int.Parse(unhandled.Split(' ')[1], CultureInfo.InvariantCulture);
    }
}

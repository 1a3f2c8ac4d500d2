// SPDX-License-Identifier: MIT
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
}

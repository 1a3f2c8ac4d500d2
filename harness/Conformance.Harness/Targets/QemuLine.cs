// SPDX-License-Identifier: MIT
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>What would be started for a kernel, for people.</summary>
public static class QemuLine
{
    /// <summary>The command line without the channels, which differ from start to start; fit for a shell.</summary>
    /// <param name="kernel">A kernel that is booted.</param>
    /// <param name="options">The machine.</param>
    public static string Of(PreparedKernel kernel, MachineOptions options)
    {
        MachineLine line = MachineLine.For(kernel.Architecture);
        return string.Join(' ', ((IEnumerable<string>)[line.Program, .. line.Machine(options, null), .. line.Boot(options, kernel)]).Select(Quoted));
    }

    private static string Quoted(string word) =>
        word.All(c => char.IsAsciiLetterOrDigit(c) || "-_./:=,+@%".Contains(c)) && word.Length > 0 ? word : $"'{word.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}

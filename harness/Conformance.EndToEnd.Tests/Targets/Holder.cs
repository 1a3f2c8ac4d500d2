// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Targets;

namespace Conformance.EndToEnd.Tests.Targets;

/// <summary>Another process with a target of its own, to be killed.</summary>
internal static class Holder
{
    public const string Argument = "--hold-a-target";

    /// <summary>Starts a target, says so, and waits for ever.</summary>
    /// <param name="arguments">Prepared kernel, folder of saved kernels, work folder.</param>
    public static async Task<int> RunAsync(string[] arguments)
    {
        PreparedKernel kernel = await PreparedKernel.LoadAsync(arguments[0]);
        await using EmulatedTarget target = await EmulatedTarget.StartAsync(
            kernel, new MachineOptions { SnapshotDirectory = arguments[1] }, TargetLab.Build, arguments[2], CancellationToken.None);
        Console.WriteLine("up");
        await target.Died;
        return 1;
    }
}

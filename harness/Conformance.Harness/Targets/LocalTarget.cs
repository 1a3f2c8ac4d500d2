// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>This machine's own kernel, with the agent as a child process. Needs root.</summary>
public sealed class LocalTarget : RunningTarget
{
    private readonly string _build;

    private LocalTarget(KernelArchitecture architecture, string build)
        : base(architecture) => _build = build;

    /// <inheritdoc/>
    public override string Kind => "local";

    /// <summary>Starts the agent and returns when it has answered.</summary>
    /// <param name="build">Folder with tether, the agents and the guests.</param>
    /// <exception cref="MachineFaultException">It cannot be started, or not as root.</exception>
    public static async Task<LocalTarget> StartAsync(string build, CancellationToken cancellation)
    {
        if (!Environment.IsPrivilegedProcess)
        {
            throw new MachineFaultException("This machine's own kernel is tested as root: its log and its devices are closed to others. Run it with sudo.");
        }

        KernelArchitecture architecture = KernelArchitectures.OfThisMachine ?? throw new MachineFaultException("There is no agent for this machine's processor.");
        var target = new LocalTarget(architecture, build);
        await target.StartAsync(build, socket => [Path.Combine(build, $"agent-{architecture.MachineName()}"), "--connect", socket], cancellation).ConfigureAwait(false);
        return target;
    }

    /// <inheritdoc/>
    public override string GuestImagePath(string name) => Path.Combine(_build, "guests", name);

    /// <summary>Asks modprobe; what this kernel does not have is missed by whoever needs it.</summary>
    public override async Task LoadModulesAsync(IReadOnlyList<string> names)
    {
        foreach (string name in names)
        {
            try
            {
                using Process modprobe = Process.Start(new ProcessStartInfo("modprobe", ["--quiet", name]) { RedirectStandardError = true })!;
                await modprobe.WaitForExitAsync();
            }
            catch (Win32Exception)
            {
                // A kernel without modules needs no modprobe either.
                return;
            }
        }
    }
}

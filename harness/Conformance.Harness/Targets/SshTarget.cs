// SPDX-License-Identifier: MIT
using System.Formats.Tar;
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>
/// The kernel of a machine that ssh reaches as root. The agent and the guests are copied there; the agent's socket is forwarded here. When
/// the connection ends, however that happens, the agent ends there and its folder goes.
/// </summary>
public sealed class SshTarget : RunningTarget
{
    private readonly string _destination;
    private readonly string _folder;

    private SshTarget(KernelArchitecture architecture, string destination, string folder)
        : base(architecture) => (_destination, _folder) = (destination, folder);

    /// <inheritdoc/>
    public override string Kind => "ssh";

    /// <summary>Copies what the machine needs, starts the agent and returns when it has answered.</summary>
    /// <param name="destination">As ssh takes it.</param>
    /// <param name="build">Folder with tether, the agents and the guests.</param>
    /// <exception cref="MachineFaultException">The machine refuses a step; the message has what it said.</exception>
    public static async Task<SshTarget> StartAsync(KernelArchitecture architecture, string destination, string build, CancellationToken cancellation)
    {
        string folder = "";
        using Stream files = await PackAsync(architecture, build, cancellation).ConfigureAwait(false);
        (int code, string error) = await Tool.PipeAsync(
            "ssh",
            Ssh.Arguments(destination, "d=$(TMPDIR=/tmp mktemp -d) && { tar -xf - -C \"$d\" && echo \"$d\" || { rm -rf \"$d\"; false; }; }"),
            Ssh.Package,
            files,
            async output =>
            {
                using var reader = new StreamReader(output);
                folder = (await reader.ReadToEndAsync(cancellation).ConfigureAwait(false)).Trim();
            },
            cancellation).ConfigureAwait(false);
        if (code != 0 || !folder.StartsWith("/tmp/", StringComparison.Ordinal))
        {
            throw new MachineFaultException($"ssh:{destination}: the agent cannot be copied there: {new ToolResult(code, folder, error).Complaint}");
        }

        var target = new SshTarget(architecture, destination, folder);
        try
        {
            // Forwarded from a socket there to the one here. The folder goes when the agent does.
            await target.StartAsync(
                build,
                socket => ["ssh", "-R", $"{folder}/a:{socket}", .. Ssh.Options, "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15", "--", destination, $"{folder}/agent --connect {folder}/a; rm -rf {folder}"],
                cancellation).ConfigureAwait(false);
            return target;
        }
        catch
        {
            await Tool.RunAsync("ssh", Ssh.Arguments(destination, $"rm -rf {folder}"), Ssh.Package, CancellationToken.None).ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public override string GuestImagePath(string name) => $"{_folder}/guests/{name}";

    /// <summary>Asks modprobe there; what that kernel does not have is missed by whoever needs it.</summary>
    public override async Task LoadModulesAsync(IReadOnlyList<string> names) =>
        await Tool.RunAsync("ssh", Ssh.Arguments(_destination, $"for m in {string.Join(' ', names)}; do modprobe -q $m; done; true"), Ssh.Package, CancellationToken.None).ConfigureAwait(false);

    private static async Task<Stream> PackAsync(KernelArchitecture architecture, string build, CancellationToken cancellation)
    {
        var stream = new MemoryStream();
        try
        {
            await using (var archive = new TarWriter(stream, TarEntryFormat.Ustar, leaveOpen: true))
            {
                await archive.WriteEntryAsync(Path.Combine(build, $"agent-{architecture.MachineName()}"), "agent", cancellation).ConfigureAwait(false);
                foreach (string guest in Directory.GetFiles(Path.Combine(build, "guests"), "*.img"))
                {
                    await archive.WriteEntryAsync(guest, $"guests/{Path.GetFileName(guest)}", cancellation).ConfigureAwait(false);
                }
            }
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new MachineFaultException($"{e.Message} Build it with ./conformance.", e);
        }

        stream.Position = 0;
        return stream;
    }
}

// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Conformance.Kernels;
using Conformance.Results;

namespace Conformance.Cli;

/// <summary><c>conformance doctor</c>: what the machine has, and what to do about what it lacks.</summary>
internal sealed class DoctorCommand(Installation installation, CommandOutput output)
{
    private const long RoomWanted = 1L << 30;

    private bool _wanting;

    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        await ToolAsync("qemu-system-x86_64", "qemu-system-x86", needed: true, cancellation).ConfigureAwait(false);
        await ToolAsync("qemu-system-aarch64", "qemu-system-arm", needed: false, cancellation).ConfigureAwait(false);
        await ToolAsync("gcc", "gcc", needed: true, cancellation).ConfigureAwait(false);
        await ToolAsync("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", needed: false, cancellation).ConfigureAwait(false);
        await ToolAsync("xz", "xz-utils", needed: true, cancellation).ConfigureAwait(false);
        await ToolAsync("zstd", "zstd", needed: true, cancellation).ConfigureAwait(false);
        Built("tether", installation.Tether, needed: true);
        Built("agent x86_64", installation.Agent(KernelArchitecture.X86_64), needed: true);
        Built("agent arm64", installation.Agent(KernelArchitecture.Arm64), needed: false);
        Accelerator();
        Cache();
        return _wanting ? ExitCode.MachineFault : ExitCode.Clean;
    }

    private async Task ToolAsync(string program, string package, bool needed, CancellationToken cancellation)
    {
        string? version = null;
        try
        {
            ProcessStartInfo start = new(program, "--version") { RedirectStandardOutput = true, RedirectStandardError = true };
            using Process process = Process.Start(start)!;
            version = await process.StandardOutput.ReadLineAsync(cancellation).ConfigureAwait(false);
            await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
        }
        catch (Win32Exception)
        {
            // Not found: that is the answer.
        }

        Say(program, version, $"missing{(needed ? string.Empty : "; needed for arm64 kernels")}: apt-get install {package}", needed);
    }

    private void Built(string what, string path, bool needed) =>
        Say(what, File.Exists(path) ? path : null, $"not built{(needed ? string.Empty : "; needed for arm64 kernels")}: ./conformance builds it", needed);

    private void Accelerator()
    {
        // The file alone says nothing: a machine may have one that cannot boot a stock kernel.
        string kvm = File.Exists("/dev/kvm") ? "there is a /dev/kvm; it is used only when a probe boots" : "no /dev/kvm";
        Say("accelerator", $"emulation (tcg) works everywhere; {kvm}", string.Empty, needed: false);
    }

    private void Cache()
    {
        string cache = CacheDirectory.Default;
        string existing = cache;
        while (!Directory.Exists(existing))
        {
            existing = Path.GetDirectoryName(existing)!;
        }

        long room = new DriveInfo(existing).AvailableFreeSpace;
        string text = $"{cache}, {(room >> 20).ToString(CultureInfo.InvariantCulture)} MiB free";
        Say("cache", room >= RoomWanted ? text : null, $"{text}: set CONFORMANCE_CACHE to a folder with more room", needed: true);
    }

    private void Say(string what, string? found, string remedy, bool needed)
    {
        _wanting |= found is null && needed;
        string mark = found is not null ? "ok" : needed ? "MISSING" : "-";
        output.Out.WriteLine($"{mark,-8} {what,-22} {found ?? remedy}");
    }
}

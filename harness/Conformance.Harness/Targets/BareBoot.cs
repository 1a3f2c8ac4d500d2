// SPDX-License-Identifier: MIT
using System.Diagnostics;
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>What a boot of a kernel costs by itself: the machine of the tests, with an init that only powers off.</summary>
public static class BareBoot
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(120);

    /// <summary>Writes the initramfs for it.</summary>
    /// <param name="path">The file to write.</param>
    /// <param name="init">The program that powers off, for the kernel's architecture.</param>
    /// <param name="cancellation">Ends it.</param>
    public static async Task WriteInitramfsAsync(string path, string init, CancellationToken cancellation)
    {
        InitramfsWriter writer = new();
        writer.AddDirectory("dev");
        writer.AddCharacterDevice("dev/console", 5, 1);
        writer.AddFile("init", await File.ReadAllBytesAsync(init, cancellation).ConfigureAwait(false), executable: true);
        await using FileStream file = File.Create(path);
        await writer.WriteAsync(file, cancellation).ConfigureAwait(false);
    }

    /// <summary>Boots once.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="options">The machine.</param>
    /// <param name="initramfs">As <see cref="WriteInitramfsAsync"/> wrote it.</param>
    /// <param name="tether">The program that ends QEMU when this process is gone.</param>
    /// <param name="cancellation">Ends it.</param>
    /// <returns>Time from QEMU's start to its end.</returns>
    /// <exception cref="MachineFaultException">QEMU failed, or the kernel did not power off.</exception>
    public static async Task<TimeSpan> MeasureAsync(
        PreparedKernel kernel, MachineOptions options, string initramfs, string tether, CancellationToken cancellation)
    {
        MachineLine line = MachineLine.For(kernel.Architecture);
        ProcessStartInfo start = new(tether) { RedirectStandardInput = true, RedirectStandardError = true };
        start.ArgumentList.Add(line.Program);

        // Its agent channel has nobody at the other end, and its console goes where no one reads.
        PreparedKernel bare = kernel with { InitramfsPath = initramfs };
        foreach (string argument in (IEnumerable<string>)[.. line.Machine(options, memory: null), .. line.Boot(options, bare), "-chardev", "null,id=agent", "-serial", "null"])
        {
            start.ArgumentList.Add(argument);
        }

        long began = Stopwatch.GetTimestamp();
        using Process process = Process.Start(start) ?? throw new MachineFaultException("tether could not be started.");
        Task<string> errors = process.StandardError.ReadToEndAsync(CancellationToken.None);
        try
        {
            await process.WaitForExitAsync(cancellation).WaitAsync(s_patience, cancellation).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            throw new MachineFaultException($"{kernel.Id} did not power off within {s_patience.TotalSeconds} s.");
        }
        finally
        {
            process.StandardInput.Close();
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        }

        TimeSpan elapsed = Stopwatch.GetElapsedTime(began);
        return process.ExitCode == 0
            ? elapsed
            : throw new MachineFaultException($"{line.Program} ended with exit code {process.ExitCode}. {await errors.ConfigureAwait(false)}".TrimEnd());
    }
}

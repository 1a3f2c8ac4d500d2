// SPDX-License-Identifier: MIT
using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace Conformance.Kernels;

/// <summary>What a program left behind.</summary>
internal sealed record ToolResult(int ExitCode, string Output, string Error)
{
    /// <summary>The last lines of what it said, for a message.</summary>
    public string Complaint
    {
        get
        {
            string text = Error.Trim().Length > 0 ? Error.Trim() : Output.Trim();
            string[] lines = text.Split('\n');
            return text.Length == 0 ? $"exit code {ExitCode}" : string.Join("\n", lines[Math.Max(0, lines.Length - 12)..]);
        }
    }
}

/// <summary>Runs a program of this machine to its end; cancelling kills it.</summary>
internal static class Tool
{
    /// <summary>Runs a program and keeps what it prints.</summary>
    /// <param name="package">Where Debian has the program, for the message when it is missing.</param>
    /// <exception cref="MachineFaultException">The program is not installed.</exception>
    public static async Task<ToolResult> RunAsync(string program, IReadOnlyList<string> arguments, string package, CancellationToken cancellation)
    {
        string output = "";
        (int code, string error) = await PipeAsync(
            program,
            arguments,
            package,
            input: null,
            async stream =>
            {
                using StreamReader reader = new(stream, Encoding.UTF8);
                output = await reader.ReadToEndAsync(cancellation).ConfigureAwait(false);
            },
            cancellation).ConfigureAwait(false);
        return new ToolResult(code, output, error);
    }

    /// <summary>Runs a program with <paramref name="input"/> as its standard input, handing its standard output to <paramref name="read"/>.</summary>
    public static async Task<(int ExitCode, string Error)> PipeAsync(
        string program,
        IReadOnlyList<string> arguments,
        string package,
        Stream? input,
        Func<Stream, Task> read,
        CancellationToken cancellation)
    {
        ProcessStartInfo start = new(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };

        // Messages are searched for words.
        start.Environment["LC_ALL"] = "C";
        start.Environment.Remove("LANGUAGE");

        using Process process = Start(start, program, package);
        using CancellationTokenRegistration kill = cancellation.Register(() => Kill(process));
        try
        {
            Task<string> error = process.StandardError.ReadToEndAsync(CancellationToken.None);
            Task feed = FeedAsync(process, input, cancellation);
            await read(process.StandardOutput.BaseStream).ConfigureAwait(false);
            await feed.ConfigureAwait(false);
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
            cancellation.ThrowIfCancellationRequested();
            return (process.ExitCode, await error.ConfigureAwait(false));
        }
        catch
        {
            Kill(process);
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
            cancellation.ThrowIfCancellationRequested();
            throw;
        }
    }

    private static Process Start(ProcessStartInfo start, string program, string package)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception e)
        {
            throw new MachineFaultException($"{program} is needed and cannot be run ({e.Message}). On Debian: apt install {package}.", e);
        }
    }

    private static async Task FeedAsync(Process process, Stream? input, CancellationToken cancellation)
    {
        try
        {
            if (input is not null)
            {
                await input.CopyToAsync(process.StandardInput.BaseStream, cancellation).ConfigureAwait(false);
            }

            process.StandardInput.Close();
        }
        catch (IOException) when (input is not null)
        {
            // EPIPE: the program stopped reading, and its exit code says why.
        }
    }

    private static void Kill(Process process)
    {
        try
        {
            process.Kill(entireProcessTree: true);
        }
        catch (InvalidOperationException)
        {
            // It has ended by itself, which is all that is wanted.
        }
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Snapshots;

namespace Conformance.Cli;

/// <summary><c>conformance accept</c>: shows what differs from approved behaviour and takes it.</summary>
internal static class AcceptCommand
{
    private const string Received = ".received.txt";
    private const string Verified = ".verified.txt";

    /// <param name="name">Part of a received file's name; empty: all of them.</param>
    /// <param name="take">Take them; else only show.</param>
    public static int Run(Installation installation, string name, bool take, CommandOutput output)
    {
        string[] files = [.. Directory.EnumerateFiles(installation.Suites, "*" + Received, SearchOption.AllDirectories)
            .Where(f => Path.GetFileName(f).Contains(name, StringComparison.OrdinalIgnoreCase)).Order(StringComparer.Ordinal)];
        if (files.Length == 0)
        {
            throw new UsageException(name.Length == 0 ? "Nothing was received: every snapshot is as approved." : $"Nothing was received for '{name}'.");
        }

        foreach (string received in files)
        {
            string approved = received[..^Received.Length] + Verified;
            string seen = File.ReadAllText(received);
            output.Out.WriteLine(Path.GetRelativePath(installation.Root, approved));
            output.Out.WriteLine(File.Exists(approved) ? Snapshot.Difference(File.ReadAllText(approved), seen) : seen);
            if (take)
            {
                File.Move(received, approved, overwrite: true);
                output.Out.WriteLine("  accepted");
            }
        }

        if (!take)
        {
            output.Out.WriteLine("""
                Take it with --yes when today's behaviour is meant to be this. When only some kernels behave so, it is another behaviour, not a new
                one: add the change to suites/changes.tsv and give Snapshot.Verify the variant "before-CHANGE" on kernels that lack it.
                """);
        }

        return ExitCode.Clean;
    }
}

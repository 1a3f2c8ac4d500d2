// SPDX-License-Identifier: MIT
namespace Conformance.Kernels;

/// <summary>How ssh is asked: without a terminal, so that nobody is asked in turn.</summary>
internal static class Ssh
{
    public const string Package = "openssh-client";

    public static IReadOnlyList<string> Options { get; } = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15"];

    public static IReadOnlyList<string> Arguments(string destination, string command) => [.. Options, "--", destination, command];
}

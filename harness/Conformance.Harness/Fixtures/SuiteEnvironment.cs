// SPDX-License-Identifier: MIT
namespace Conformance.Fixtures;

/// <summary>What <c>conformance run</c> tells a suite's process, by environment variables.</summary>
public static class SuiteEnvironment
{
    /// <summary>Names a JSON file with the prepared kernel.</summary>
    public const string PreparedVariable = "CONFORMANCE_PREPARED";

    /// <summary>Names a JSON file with the machine options.</summary>
    public const string MachineVariable = "CONFORMANCE_MACHINE";

    /// <summary>Names the folder of this kernel's results.</summary>
    public const string OutputVariable = "CONFORMANCE_OUTPUT";

    /// <summary>Names the cache folder.</summary>
    public const string CacheVariable = "CONFORMANCE_CACHE";

    /// <summary>Names the folder with the agent and the guests.</summary>
    public const string BuildVariable = "CONFORMANCE_BUILD";

    /// <summary>Names a JSON file with the tests to run; only then does the process run as a part of <c>conformance run</c>.</summary>
    public const string SelectionVariable = "CONFORMANCE_SELECTION";

    /// <summary>The folder of this kernel's results; null when the suite was started by hand.</summary>
    public static string? Output => Get(OutputVariable);

    /// <summary>The file with the prepared kernel; null when the suite was started by hand.</summary>
    public static string? Prepared => Get(PreparedVariable);

    /// <summary>The file with the machine options; null when the suite was started by hand.</summary>
    public static string? Machine => Get(MachineVariable);

    /// <summary>The cache folder; null when the suite was started by hand.</summary>
    public static string? Cache => Get(CacheVariable);

    /// <summary>The folder with the agent and the guests; null when the suite was started by hand.</summary>
    public static string? Build => Get(BuildVariable);

    /// <summary>The file with the tests to run; null when the suite was started by hand.</summary>
    public static string? Selection => Get(SelectionVariable);

    private static string? Get(string name) =>
        Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;
}

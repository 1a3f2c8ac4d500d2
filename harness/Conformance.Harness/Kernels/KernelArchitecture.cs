// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using System.Text.Json.Serialization;

namespace Conformance.Kernels;

/// <summary>An architecture the suites and the agent exist for.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<KernelArchitecture>))]
public enum KernelArchitecture
{
    /// <summary>64-bit x86.</summary>
    [JsonStringEnumMemberName("x86_64")]
    X86_64,

    /// <summary>64-bit Arm.</summary>
    [JsonStringEnumMemberName("arm64")]
    Arm64,
}

/// <summary>The names one architecture has in different places.</summary>
public static class KernelArchitectures
{
    /// <summary>The architecture of the processor this program runs on, or null when it is neither.</summary>
    public static KernelArchitecture? OfThisMachine => RuntimeInformation.OSArchitecture switch
    {
        Architecture.X64 => KernelArchitecture.X86_64,
        Architecture.Arm64 => KernelArchitecture.Arm64,
        _ => null,
    };

    /// <summary>The name in reports and on the command line: <c>x86_64</c>, <c>arm64</c>.</summary>
    public static string Name(this KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64 ? "x86_64" : "arm64";

    /// <summary>Debian's name: <c>amd64</c>, <c>arm64</c>.</summary>
    public static string DebianName(this KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64 ? "amd64" : "arm64";

    /// <summary>What uname prints: <c>x86_64</c>, <c>aarch64</c>.</summary>
    public static string MachineName(this KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64 ? "x86_64" : "aarch64";

    /// <summary>EM_X86_64 or EM_AARCH64 (elf.h).</summary>
    public static ushort ElfMachine(this KernelArchitecture architecture) =>
        architecture == KernelArchitecture.X86_64 ? (ushort)62 : (ushort)183;

    /// <summary>Reads any of the names above.</summary>
    public static bool TryParse(string text, out KernelArchitecture architecture)
    {
        switch (text.ToLowerInvariant())
        {
            case "x86_64" or "amd64" or "x86-64" or "x64":
                architecture = KernelArchitecture.X86_64;
                return true;
            case "arm64" or "aarch64":
                architecture = KernelArchitecture.Arm64;
                return true;
            default:
                architecture = default;
                return false;
        }
    }
}

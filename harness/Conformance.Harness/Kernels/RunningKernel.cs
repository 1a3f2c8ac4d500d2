// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>Kernels that run already: nothing is prepared but a description.</summary>
internal static class RunningKernel
{
    public static PreparedKernel OfThisMachine(KernelSpec spec, PrepareOptions options)
    {
        KernelArchitecture architecture = KernelArchitectures.OfThisMachine
            ?? throw new UsageException("host: this machine is neither x86_64 nor arm64. Name an emulated kernel, such as debian:6.12.");
        return Describe(spec, "host", File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), architecture, options);
    }

    public static async Task<PreparedKernel> OfBoardAsync(KernelSpec.Ssh spec, PrepareOptions options, CancellationToken cancellation)
    {
        ToolResult result = await Tool.RunAsync("ssh", Ssh.Arguments(spec.Destination, "uname -r -m"), Ssh.Package, cancellation).ConfigureAwait(false);
        if (result.ExitCode != 0)
        {
            throw new MachineFaultException($"{spec}: {result.Complaint}. Check that 'ssh {spec.Destination} uname' works without asking for a password.");
        }

        string[] words = result.Output.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        if (words.Length != 2 || !KernelArchitectures.TryParse(words[1], out KernelArchitecture architecture))
        {
            throw new UsageException($"{spec}: the machine says '{result.Output.Trim()}', which is not Linux on x86_64 or arm64.");
        }

        return Describe(spec, spec.Destination[(spec.Destination.IndexOf('@') + 1)..], words[0], architecture, options);
    }

    private static PreparedKernel Describe(KernelSpec spec, string name, string release, KernelArchitecture architecture, PrepareOptions options)
    {
        if (options.Architecture is { } wanted && wanted != architecture)
        {
            throw new UsageException($"{spec} runs an {architecture.Name()} kernel, but {wanted.Name()} is asked for.");
        }

        if (options.ModuleOverrides.Count > 0)
        {
            throw new UsageException($"{spec}: --module works only with a kernel that is booted for the test. Load the module there yourself, or name an image or debian:VERSION.");
        }

        return new PreparedKernel
        {
            Id = $"{string.Concat(name.Select(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.' or '_' ? c : '-'))}-{release}",
            Release = release,
            Architecture = architecture,
            Source = spec.Text,

            // What is loaded there, and what can be, only that machine knows.
            Closures = WantedModules.For(architecture).ToDictionary(root => root, _ => (IReadOnlyList<string>)[]),
        };
    }
}

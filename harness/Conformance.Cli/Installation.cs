// SPDX-License-Identifier: MIT
using Conformance.Kernels;

namespace Conformance.Cli;

/// <summary>The folders of the repository this command was built in.</summary>
/// <param name="Root">The repository.</param>
/// <param name="Output">Where a project's build lies below its folder, for example <c>bin/Release/net10.0</c>.</param>
internal sealed record Installation(string Root, string Output)
{
    private const string Marker = "Conformance.sln";

    /// <summary>Folder with the agent, tether and guests.</summary>
    public string Build => Path.Combine(Root, "build");

    public string Guests => Path.Combine(Build, "guests");

    public string Tether => Path.Combine(Build, "tether");

    public string Suites => Path.Combine(Root, "suites");

    public string Clauses => Path.Combine(Suites, "clauses");

    public string Harness => Path.Combine(Root, "harness");

    /// <summary>Finds the repository above a folder of its build.</summary>
    /// <param name="directory">Usually where this program lies.</param>
    /// <exception cref="MachineFaultException">The program was moved away from its repository.</exception>
    public static Installation Find(string directory)
    {
        for (DirectoryInfo? root = new(directory); root is not null; root = root.Parent)
        {
            if (File.Exists(Path.Combine(root.FullName, Marker)))
            {
                DirectoryInfo framework = new(directory);
                return new Installation(root.FullName, Path.Combine("bin", framework.Parent!.Name, framework.Name));
            }
        }

        throw new MachineFaultException($"{directory} is not inside a checkout of the project; run ./conformance from one.");
    }

    public string Agent(KernelArchitecture architecture) => Path.Combine(Build, $"agent-{architecture.MachineName()}");

    /// <summary>The built executable of a project, whether it is there or not.</summary>
    /// <param name="project">The project's folder.</param>
    /// <param name="assembly">Its assembly's name.</param>
    public string Executable(string project, string assembly) => Path.Combine(project, Output, assembly);
}

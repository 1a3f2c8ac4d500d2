// SPDX-License-Identifier: MIT
using System.Reflection;
using Conformance.Cli;
using Conformance.Harness.Tests.Results;
using Conformance.Kernels;

namespace Conformance.Harness.Tests.Cli;

/// <summary>A repository with one suite, the specimen, and a kernel that needs no preparing.</summary>
internal sealed class SampleInstallation : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public SampleInstallation()
    {
        string root = typeof(SampleInstallation).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!;
        string tether = Path.Combine(root, "build", "tether");
        if (!File.Exists(tether))
        {
            throw new FileNotFoundException("The tether is not built. Run: make -C harness/Agent OUT=../../build, or ./conformance test.", tether);
        }

        Installation = new Installation(_folder.Path, "bin");
        Directory.CreateDirectory(Installation.Build);
        File.CreateSymbolicLink(Installation.Tether, tether);
        File.WriteAllText(Installation.Agent(KernelArchitecture.X86_64), string.Empty);
        string suite = _folder["suites/Specimen"];
        Directory.CreateDirectory(suite);
        File.WriteAllText(Path.Combine(suite, "Specimen.csproj"), string.Empty);
        Directory.CreateSymbolicLink(Path.Combine(suite, "bin"), Path.GetDirectoryName(SpecimenRun.Executable)!);
    }

    public Installation Installation { get; }

    public string Results => _folder["results"];

    public string Kernel(string id) => Path.Combine(Results, id);

    public StringWriter Out { get; } = new();

    public StringWriter Error { get; } = new();

    public RunRequest Request { get => field ??= new RunRequest { Output = Results }; set; }

    /// <summary>Runs the command with kernels named by the text they are asked for with.</summary>
    public async Task<int> RunAsync(RunRequest request, CancellationToken cancellation = default)
    {
        CommandOutput output = new(TextWriter.Synchronized(Out), TextWriter.Synchronized(Error), Interactive: false, Width: 100, Colour: false);
        try
        {
            return await new RunCommand(Installation, PrepareAsync, output).RunAsync(request, cancellation);
        }
        finally
        {
            TestContextOutput.Write(Out + "\n" + Error);
        }
    }

    public void Dispose() => _folder.Dispose();

    private static Task<PreparedKernel> PrepareAsync(KernelSpec spec, PrepareOptions options, IProgress<string> progress, CancellationToken cancellation) =>
        Task.FromResult(new PreparedKernel
        {
            Id = spec.Text.Replace(':', '-'),
            Release = "6.12.117+deb13-amd64",
            Architecture = KernelArchitecture.X86_64,
            Source = spec.Text,
            // A specimen starts no machine; that it would be an emulated one decides what may run at once.
            ImagePath = "vmlinuz",
        });
}

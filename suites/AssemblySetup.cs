// SPDX-License-Identifier: MIT

// Compiled into every suite: what makes an xunit assembly a suite.
using System.Runtime.CompilerServices;
using Conformance.Fixtures;
using Xunit;
using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;
using Xunit.Sdk;

// One kernel, one test at a time: what the kernel prints belongs to the test that is running.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
[assembly: EvidencePerTest]
[assembly: RegisterXunitSerializer(typeof(RowSerializer), typeof(ValueType))]

namespace Conformance;

internal static class AssemblySetup
{
    // A suite run by `conformance` reports verdicts; the same executable serves an IDE and xunit's own command line.
    public static async Task<int> Main(string[] args) =>
        SuiteRunner.IsWanted(args) ? await SuiteRunner.RunAsync(typeof(AssemblySetup).Assembly, args)
        : args.Any(a => a is "--server" or "--internal-msbuild-node") ? await TestPlatformTestFramework.RunAsync(args, (_, _) => { })
        : await ConsoleRunner.Run(args);

    [ModuleInitializer]
    internal static void Initialize() => AssertionSetup.Apply();
}

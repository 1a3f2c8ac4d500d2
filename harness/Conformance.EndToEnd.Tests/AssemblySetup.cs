// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using Conformance.EndToEnd.Tests.Targets;
using Conformance.Fixtures;
using Xunit;
using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;

// Two processors are all there is, and each test boots a kernel on them.
[assembly: CollectionBehavior(DisableTestParallelization = true)]

namespace Conformance.EndToEnd.Tests;

internal static class AssemblySetup
{
    public static async Task<int> Main(string[] args) =>
        args is [Holder.Argument, .. string[] held] ? await Holder.RunAsync(held)
        : args.Any(a => a is "--server" or "--internal-msbuild-node") ? await TestPlatformTestFramework.RunAsync(args, (_, _) => { })
        : await ConsoleRunner.Run(args);

    [ModuleInitializer]
    internal static void Initialize() => AssertionSetup.Apply();
}

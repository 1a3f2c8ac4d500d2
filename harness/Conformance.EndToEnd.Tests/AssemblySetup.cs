// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using Conformance.Fixtures;
using Xunit;

// Two processors are all there is, and each test boots a kernel on them.
[assembly: CollectionBehavior(DisableTestParallelization = true)]

namespace Conformance.EndToEnd.Tests;

internal static class AssemblySetup
{
    [ModuleInitializer]
    internal static void Initialize() => AssertionSetup.Apply();
}

// SPDX-License-Identifier: MIT
using System.Runtime.CompilerServices;
using Conformance.Fixtures;

namespace Conformance.Harness.Tests;

internal static class AssemblySetup
{
    [ModuleInitializer]
    internal static void Initialize() => AssertionSetup.Apply();
}

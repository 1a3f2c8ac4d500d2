// SPDX-License-Identifier: MIT

// Compiled into every suite: its kernel, booted once and given to the tests.
using System.Runtime.CompilerServices;
using Conformance.Fixtures;
using Xunit;

[assembly: AssemblyFixture(typeof(KernelUnderTest))]

namespace Conformance;

internal static class KernelSetup
{
    // The kernel boots while xunit is still looking for tests.
    [ModuleInitializer]
    internal static void Initialize()
    {
        if (SuiteEnvironment.Selection is not null)
        {
            KernelUnderTest.BootEarly();
        }
    }
}

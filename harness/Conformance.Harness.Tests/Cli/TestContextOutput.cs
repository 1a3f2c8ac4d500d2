// SPDX-License-Identifier: MIT
using Xunit;

namespace Conformance.Harness.Tests.Cli;

/// <summary>What a command printed, beside the failure of the test that ran it.</summary>
internal static class TestContextOutput
{
    public static void Write(string text) => TestContext.Current.TestOutputHelper?.WriteLine(text);
}

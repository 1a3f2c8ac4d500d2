// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using FluentAssertions;
using Xunit;

[assembly: MachineNeeds(Architectures = ["x86_64"])]

namespace Conformance.Specimen;

/// <summary>Ways in which the process itself misbehaves, each asked for by name, and the control that must fail.</summary>
public sealed partial class ProcessTests
{
    [Fact]
    public void ABeforeTheMisbehaviour() => true.Should().BeTrue();

    [Fact]
    public async Task MisbehavesWhenAsked()
    {
        // Asked for as a kernel argument, which is all a run passes on unread.
        string machine = SuiteEnvironment.Machine is { } file ? await File.ReadAllTextAsync(file) : string.Empty;
        if (machine.Contains("specimen=die", StringComparison.Ordinal))
        {
            await Console.Error.WriteLineAsync("last words");
            Kill(Environment.ProcessId, 9).Should().Be(0);
        }

        if (machine.Contains("specimen=stall", StringComparison.Ordinal))
        {
            await new TaskCompletionSource().Task;
        }
    }

    [Fact]
    public void ZAfterTheMisbehaviour() => true.Should().BeTrue();

    [Fact]
    [NegativeControl]
    public void WrongRouteIsNoticed() => 0x31.Should().Be(0x41);

    [Fact]
    [NegativeControl]
    public void NothingIsNoticed() => 0x41.Should().Be(0x41);

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);
}

// SPDX-License-Identifier: MIT
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

public sealed class ScratchFolderTests
{
    [Fact]
    public void SweepRemovesWhatNobodyHoldsAndNothingElse()
    {
        using var parent = new TemporaryFolder();
        using var held = new ScratchFolder(parent.Path);
        string left = Directory.CreateDirectory(parent["cfm-left"]).FullName;
        File.WriteAllText(Path.Combine(left, "lock"), "");
        File.WriteAllText(Path.Combine(left, "console.log"), "it was killed");
        string young = Directory.CreateDirectory(parent["cfm-young"]).FullName;
        string other = Directory.CreateDirectory(parent["other"]).FullName;
        File.WriteAllText(Path.Combine(other, "lock"), "");

        ScratchFolder.Sweep(parent.Path);

        Directory.GetDirectories(parent.Path).Should().BeEquivalentTo(held.Path, young, other);
    }

    [Fact]
    public void DisposedFolderIsGone()
    {
        using var parent = new TemporaryFolder();
        var folder = new ScratchFolder(parent.Path);
        File.WriteAllText(Path.Combine(folder.Path, "a"), "");

        folder.Dispose();

        Directory.Exists(folder.Path).Should().BeFalse();
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class KernelRangeTests
{
    private static readonly ChangeTable s_changes = ChangeTable.Parse("name\tcommit\tmainline\tstable\tsummary\nirq-fix\tabc\t6.15\t6.12.39\tx\n");

    [Theory]
    [InlineData("*", "x86_64", "5.10.1", true)]
    [InlineData("6.12", "x86_64", "6.12.117", true)]
    [InlineData("6.12", "x86_64", "6.13.0", false)]
    [InlineData("6.12.117", "x86_64", "6.12.117", true)]
    [InlineData("6.12.117", "x86_64", "6.12.116", false)]
    [InlineData("6.1..6.12", "x86_64", "6.12.117", true)]
    [InlineData("6.1..6.12.40", "x86_64", "6.12.117", false)]
    [InlineData("6.1..6.12.40", "x86_64", "6.0.9", false)]
    [InlineData("7.2..", "arm64", "7.3.0", true)]
    [InlineData("..6.1", "arm64", "6.1.192", true)]
    [InlineData("..6.1", "arm64", "6.2.0", false)]
    [InlineData("arm64 7.2..", "arm64", "7.2.13", true)]
    [InlineData("arm64 7.2..", "x86_64", "7.2.13", false)]
    [InlineData("arm64", "x86_64", "7.2.13", false)]
    [InlineData("lacks:irq-fix", "x86_64", "6.12.38", true)]
    [InlineData("lacks:irq-fix", "x86_64", "6.12.39", false)]
    [InlineData("6.12 has:irq-fix", "x86_64", "6.12.39", true)]
    [InlineData("6.12 has:irq-fix", "x86_64", "6.18.0", false)]
    public void EveryWordMustHold(string range, string architecture, string release, bool covered) =>
        KernelRange.Parse(range, s_changes).Covers(architecture, Version.Parse(release)).Should().Be(covered);

    [Theory]
    [InlineData("", "no kernels*")]
    [InlineData("..", "*range without ends*")]
    [InlineData("6", "'6' is no architecture*")]
    [InlineData("6.x", "'6.x' is no architecture*")]
    [InlineData("mips", "'mips' is no architecture*")]
    [InlineData("6.1..x", "'6.1..x' is no architecture*")]
    [InlineData("has:nothing", "suites/changes.tsv has no change named 'nothing'")]
    public void WrongWordIsSaid(string range, string message)
    {
        Action read = () => KernelRange.Parse(range, s_changes);

        read.Should().Throw<FormatException>().WithMessage(message);
    }
}

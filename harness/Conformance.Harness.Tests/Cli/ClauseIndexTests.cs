// SPDX-License-Identifier: MIT
using Conformance.Cli;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class ClauseIndexTests
{
    [Theory]
    [InlineData("- `kvm-irqfd/deassign/drains` After deassign nothing more arrives. [code virt/kvm/eventfd.c kvm_irqfd_deassign]", "code virt/kvm/eventfd.c kvm_irqfd_deassign")]
    [InlineData("- `kvm-irqfd/deassign/drains` After deassign nothing more arrives. [observed]", "observed")]
    [InlineData("* `kvm-irqfd/deassign/drains` After deassign nothing more arrives.", null)]
    public void ListItemWithAnIdIsARule(string line, string? source)
    {
        Clause clause = ClauseIndex.Parse([line]).Single();

        clause.Id.Should().Be("kvm-irqfd/deassign/drains");
        clause.Text.Should().Be("After deassign nothing more arrives.");
        clause.Source.Should().Be(source);
    }

    [Theory]
    [InlineData("# kvm-irqfd")]
    [InlineData("The rules of `KVM_IRQFD`.")]
    [InlineData("- an item without an id")]
    public void OtherLinesAreText(string line) => ClauseIndex.Parse([line]).Should().BeEmpty();
}

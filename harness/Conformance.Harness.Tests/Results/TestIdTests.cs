// SPDX-License-Identifier: MIT
using System.Text.RegularExpressions;
using Conformance.Fixtures;
using FluentAssertions;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed partial class TestIdTests
{
    [Theory]
    [InlineData("Conformance.KvmXen", "KvmXen")]
    [InlineData("KvmXen", "KvmXen")]
    [InlineData("Conformance.Specimen", "Specimen")]
    public void SuiteIsTheAssemblyWithoutTheProject(string assembly, string suite) => TestId.SuiteOf(assembly).Should().Be(suite);

    [Theory]
    [InlineData("EventChannelTests", "KvmXen.EventChannel.Masks")]
    [InlineData("EventChannel", "KvmXen.EventChannel.Masks")]
    [InlineData("Tests", "KvmXen.Tests.Masks")]
    [InlineData("Outer+InnerTests", "KvmXen.Outer-Inner.Masks")]
    public void ClassLosesItsSuffix(string className, string id) => TestId.OfMethod("KvmXen", className, "Masks").Should().Be(id);

    [Theory]
    [InlineData("0x41_True", "0x41", true)]
    [InlineData("-1", -1)]
    [InlineData("1-5", 1.5)]
    [InlineData("null_empty", null, "")]
    [InlineData("a-b", "a / b")]
    [InlineData("1-2-3", new[] { 1, 2, 3 })]
    public void RowIsNamedByItsArguments(string segment, params object?[] arguments) =>
        TestId.Row(null, arguments).Should().Be(segment);

    [Fact]
    public void LabelNamesTheRow() => TestId.Row("x2apic, 4 vCPUs", [1, 2]).Should().Be("x2apic-4-vCPUs");

    [Fact]
    public void LongRowKeepsADistinctEnd()
    {
        string a = TestId.Row(null, [new string('x', 300) + "a"]);
        string b = TestId.Row(null, [new string('x', 300) + "b"]);

        a.Should().HaveLength(64).And.NotBe(b);
    }

    [Fact]
    public void LookalikesAreTold() => TestId.DistinctRow(null, ["a b"]).Should().NotBe(TestId.DistinctRow(null, ["a/b"]));

    [Fact]
    public void EveryIdFitsEveryFormat() =>
        Prop.ForAll<string, string>((text, label) => Wellformed().IsMatch(
            $"{TestId.OfMethod("KvmXen", text ?? "x", "M")}.{TestId.Row(label, [text])}.{TestId.DistinctRow(label, [text])}"))
            .Check(Config.QuickThrowOnFailure.WithQuietOnSuccess(true));

    [GeneratedRegex(@"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\z")]
    private static partial Regex Wellformed();
}

// SPDX-License-Identifier: MIT
using Xunit;

namespace Conformance.Specimen;

/// <summary>Theories: every row is a test with an id of its own.</summary>
public sealed class RowTests
{
    public static TheoryData<SampleVector, bool> Vectors => new() { { new(0x41), true }, { new(0x31), false } };

    public static IEnumerable<TheoryDataRow<int>> Labelled => [new TheoryDataRow<int>(1) { Label = "edge, rising" }];

    [Theory]
    [MemberData(nameof(Vectors))]
    public void ValueTypesNameRows(SampleVector vector, bool level) => Assert.True(vector.Value > 0 || level);

    [Theory]
    [MemberData(nameof(Labelled))]
    public void LabelsNameRows(int value) => Assert.Equal(1, value);

    [Theory]
    [InlineData("a b")]
    [InlineData("a/b")]
    [InlineData("-1")]
    public void RowsThatLookAlikeAreTold(string text) => Assert.NotNull(text);

    [Theory]
    [InlineData(-1)]
    [InlineData(1)]
    public void NumbersKeepTheirSign(int value) => Assert.NotEqual(0, value);
}

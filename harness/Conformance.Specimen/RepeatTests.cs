// SPDX-License-Identifier: MIT
using System.Text.Json;
using Conformance.Fixtures;
using FluentAssertions;
using Xunit;

namespace Conformance.Specimen;

/// <summary>A claim that does not hold every time.</summary>
public sealed class RepeatTests
{
    private const string Asked = "specimen=mark:";

    [Fact]
    public async Task LeavesAMarkAndFailsTheSecondTime()
    {
        if (SuiteEnvironment.Machine is not { } machine)
        {
            return;
        }

        using JsonDocument options = JsonDocument.Parse(await File.ReadAllTextAsync(machine));
        string? mark = options.RootElement.TryGetProperty("extraKernelArguments", out JsonElement arguments)
            ? arguments.EnumerateArray().Select(a => a.GetString()!).FirstOrDefault(a => a.StartsWith(Asked, StringComparison.Ordinal))?[Asked.Length..]
            : null;
        if (mark is not null)
        {
            await File.AppendAllTextAsync(mark, "x");
            (await File.ReadAllTextAsync(mark)).Should().NotBe("xx");
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using Conformance.Guests;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Guests;

/// <summary>The numbers the harness uses for the arm64 guest are those of guests/arm64/layout.h.</summary>
public sealed partial class Arm64LayoutTests
{
    private static readonly Dictionary<string, ulong> s_header = Define()
        .Matches(File.ReadAllText(Path.GetFullPath(Path.Combine(Path.GetDirectoryName(ThisFile())!, "../../../guests/arm64/layout.h"))))
        .ToDictionary(m => m.Groups[1].Value, m => Number(m.Groups[2].Value));

    [Fact]
    public void EveryAddressIsTheHeaders()
    {
        foreach (FieldInfo field in typeof(Arm64Layout).GetFields(BindingFlags.Public | BindingFlags.Static).Where(f => f is { IsLiteral: true } && f.FieldType == typeof(ulong)))
        {
            string macro = "LAYOUT_" + Hump().Replace(field.Name, "_$1").ToUpperInvariant();
            s_header.Should().ContainKey(macro).WhoseValue.Should().Be((ulong)field.GetRawConstantValue()!, macro);
        }
    }

    [Theory]
    [InlineData(5, "own")]
    [InlineData(127, "own")]
    [InlineData(128, "spi")]
    [InlineData(1019, "spi")]
    [InlineData(1020, "spurious")]
    [InlineData(1023, "spurious")]
    [InlineData(8192, "lpi")]
    [InlineData(8192 + 97, "lpi")]
    public void SlotsAreTheGuests(uint intid, string kind)
    {
        ulong slot = kind switch
        {
            "own" => intid,
            "spi" => s_header["SLOT_SPI"] + (intid % 31),
            "spurious" => s_header["SLOT_SPURIOUS"],
            _ => s_header["SLOT_LPI"] + ((intid - 8192) % s_header["SLOT_LPIS"]),
        };
        new IntId(intid).Slot.Should().Be((byte)slot);
    }

    private static ulong Number(string text) => text.StartsWith("0x", StringComparison.Ordinal)
        ? ulong.Parse(text.AsSpan(2), NumberStyles.HexNumber, CultureInfo.InvariantCulture)
        : ulong.Parse(text, CultureInfo.InvariantCulture);

    private static string ThisFile([CallerFilePath] string path = "") => path;

    [GeneratedRegex(@"^#define\s+(\w+)\s+(0x[0-9a-f]+|\d+)", RegexOptions.Multiline)]
    private static partial Regex Define();

    [GeneratedRegex(@"(?<=[a-z0-9])([A-Z])")]
    private static partial Regex Hump();
}

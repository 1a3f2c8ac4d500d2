// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Conformance.Results;

/// <summary>A part of the tests. Which part a test is in depends on its id and the number of parts, and on nothing else.</summary>
/// <param name="Number">From 1.</param>
/// <param name="Count">Of how many.</param>
public sealed record Shard(int Number, int Count)
{
    private const int Most = 1000;

    /// <summary>Reads <c>2/3</c>.</summary>
    /// <returns>Null when the text is nothing like it.</returns>
    public static Shard? Parse(string text) =>
        text.Split('/') is [var number, var count]
        && int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && int.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out int of)
        && n >= 1 && n <= of && of <= Most ? new Shard(n, of) : null;

    /// <summary>Whether a test is in it.</summary>
    /// <param name="id">The test's whole id, with its row.</param>
    public bool Has(string id) => BitConverter.ToUInt32(SHA256.HashData(Encoding.UTF8.GetBytes(id))) % (uint)Count == (uint)(Number - 1);

    /// <summary>A part of this part.</summary>
    /// <param name="number">From 1.</param>
    /// <param name="count">Of how many.</param>
    public Shard Part(int number, int count) => new(Number + (Count * (number - 1)), Count * count);

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Number}/{Count}");
}

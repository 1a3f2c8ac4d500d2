// SPDX-License-Identifier: MIT
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using Xunit.Sdk;

namespace Conformance.Fixtures;

/// <summary>
/// Lets our value types be theory data. xunit tells rows apart, and so can give each its id before it runs, only when it can
/// serialise them.
/// </summary>
public sealed class RowSerializer : IXunitSerializer
{
    /// <inheritdoc/>
    public object Deserialize(Type type, string serializedValue) =>
        JsonSerializer.Deserialize(serializedValue, type)
        ?? throw new JsonException($"A row's {type.Name} was written as null.");

    /// <inheritdoc/>
    public bool IsSerializable(Type type, object? value, [NotNullWhen(false)] out string? failureReason)
    {
        try
        {
            failureReason = value is null || Deserialize(value.GetType(), Serialize(value)).Equals(value)
                ? null
                : $"{value.GetType().Name} does not come back equal from JSON";
        }
        catch (Exception failure) when (failure is JsonException or NotSupportedException or InvalidOperationException)
        {
            failureReason = failure.Message;
        }

        return failureReason is null;
    }

    /// <inheritdoc/>
    public string Serialize(object value) => JsonSerializer.Serialize(value, value.GetType());
}

// SPDX-License-Identifier: MIT
using FluentAssertions.Common;
using FluentAssertions.Formatting;
using Xunit.Sdk;

namespace Conformance.Fixtures;

/// <summary>Makes FluentAssertions speak to xunit v3, which it predates. Called once, from a module initializer.</summary>
public static class AssertionSetup
{
    /// <summary>A broken assertion throws <see cref="XunitException"/>, and our value types print as their own text.</summary>
    public static void Apply()
    {
        Services.ThrowException = static message => throw new XunitException(message);
        Formatter.AddFormatter(new ValueFormatter());
    }

    // FluentAssertions would print a vector member by member; 0x41 is what the reader looks for.
    private sealed class ValueFormatter : IValueFormatter
    {
        // The library asks about null as well, whatever its signature says.
        public bool CanHandle(object? value) =>
            value?.GetType() is { IsValueType: true, IsEnum: false } type
            && type.Namespace?.StartsWith("Conformance", StringComparison.Ordinal) == true;

        public void Format(object value, FormattedObjectGraph formattedGraph, FormattingContext context, FormatChild formatChild) =>
            formattedGraph.AddFragment(value.ToString() ?? string.Empty);
    }
}

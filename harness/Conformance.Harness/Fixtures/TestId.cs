// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using Conformance.Results;
using Xunit.v3;

namespace Conformance.Fixtures;

/// <summary>
/// Test ids: <c>Suite.Class.Method</c> without the class's <c>Tests</c> suffix, and for a theory row a fourth segment from the
/// row's label or its arguments. Every segment is of <c>[A-Za-z0-9_-]+</c>, which every result format takes as it is.
/// </summary>
public static class TestId
{
    private const string AssemblyPrefix = "Conformance.";
    private const int LongestRow = 64;
    private const int HashDigits = 6;

    /// <summary>The suite's name: its assembly's, without the project's.</summary>
    /// <param name="assembly">The suite's assembly.</param>
    public static string SuiteOf(Assembly assembly) => SuiteOf(assembly.GetName().Name ?? throw new ArgumentException("An assembly without a name."));

    /// <summary>The suite's name: its assembly's, without the project's.</summary>
    /// <param name="assemblyName">The simple name of the suite's assembly.</param>
    public static string SuiteOf(string assemblyName) => Segment(assemblyName.StartsWith(AssemblyPrefix, StringComparison.Ordinal)
        ? assemblyName[AssemblyPrefix.Length..]
        : assemblyName);

    /// <summary>The id of a method, which is the id of its only test unless it is a theory.</summary>
    /// <param name="suite">The suite's name.</param>
    /// <param name="className">The class's name without its namespace; of nested classes all names, joined by <c>+</c>.</param>
    /// <param name="methodName">The method's name.</param>
    public static string OfMethod(string suite, string className, string methodName)
    {
        string noun = className.Length > TestPattern.ClassSuffix.Length && className.EndsWith(TestPattern.ClassSuffix, StringComparison.Ordinal)
            ? className[..^TestPattern.ClassSuffix.Length]
            : className;
        return $"{suite}.{Segment(noun)}.{Segment(methodName)}";
    }

    /// <summary>The segment of a theory row.</summary>
    /// <param name="label">The row's label; null when it has none.</param>
    /// <param name="arguments">The row's arguments.</param>
    public static string Row(string? label, IEnumerable<object?> arguments) =>
        Short(Segment(string.IsNullOrEmpty(label) ? string.Join('_', arguments.Select(Text)) : label));

    /// <summary>
    /// The segment of a theory row whose plain segment another row of the same theory has too: with a hash of the exact arguments.
    /// </summary>
    /// <param name="label">The row's label; null when it has none.</param>
    /// <param name="arguments">The row's arguments.</param>
    public static string DistinctRow(string? label, IReadOnlyList<object?> arguments)
    {
        string exact = string.Join('\n', arguments.Select(a => $"{a?.GetType().Name}:{Text(a)}"));
        return $"{Row(label, arguments)}-{Hash(exact)}";
    }

    internal static string Of(IXunitTest test) => TestCatalogue.IdOf(test.TestCase)
        ?? OfMethod(
            SuiteOf(test.TestMethod.TestClass.Class.Assembly),
            ClassNameOf(test.TestMethod.TestClass.Class),
            test.TestMethod.MethodName);

    internal static string ClassNameOf(Type type) =>
        type.DeclaringType is { } outer ? $"{ClassNameOf(outer)}+{type.Name}" : type.Name;

    // An id is also a file name, of a record's journal.
    private static string Short(string segment) =>
        segment.Length <= LongestRow ? segment : $"{segment[..(LongestRow - HashDigits - 1)]}-{Hash(segment)}";

    private static string Hash(string text) =>
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)).AsSpan(0, HashDigits / 2));

    private static string Text(object? value) => value switch
    {
        null => "null",
        string text => text.Length == 0 ? "empty" : text,
        IFormattable formattable => formattable.ToString(null, CultureInfo.InvariantCulture),
        System.Collections.IEnumerable many => string.Join('-', many.Cast<object?>().Select(Text)),
        _ => value.ToString() ?? "null",
    };

    private static string Segment(string text)
    {
        StringBuilder segment = new(text.Length);
        bool gap = false;
        foreach (char c in text)
        {
            if (char.IsAsciiLetterOrDigit(c) || c is '_' or '-')
            {
                segment.Append(c);
                gap = false;
            }
            else if (!gap)
            {
                segment.Append('-');
                gap = true;
            }
        }

        return segment.Length == 0 ? "empty" : segment.ToString();
    }
}

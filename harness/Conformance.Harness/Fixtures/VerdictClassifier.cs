// SPDX-License-Identifier: MIT
using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using Conformance.Results;
using Xunit.Sdk;

namespace Conformance.Fixtures;

/// <summary>
/// Turns what a test threw into a verdict: a broken assertion is Fail (xunit's convention: an exception with an interface named
/// <c>IAssertionException</c>), <see cref="KernelCrashException"/> is Crash, <see cref="HangException"/> and xunit's own timeout
/// are Hang, and everything else is Broken. A crash anywhere in the chain outranks a hang, that an assertion, that the rest.
/// </summary>
internal static partial class VerdictClassifier
{
    private static readonly ConcurrentDictionary<string, Type?> Types = new();

    public static Outcome Classify(IErrorMetadata errors)
    {
        List<Thrown> all = [.. Enumerable.Range(0, errors.ExceptionTypes.Length).Select(i => new Thrown(
            errors.ExceptionTypes[i] ?? "an exception",
            errors.Messages[i],
            errors.StackTraces[i],
            errors.ExceptionParentIndices[i]))];

        if (all.Find(t => t.Is(typeof(KernelCrashException))) is { } crash)
        {
            string report = crash.Message[crash.Message.Split('\n', 2)[0].Length..].Trim('\n');
            return new Outcome(
                Verdict.Crash,
                FirstLine(crash.Message),
                report.Length == 0 ? [] : [new Explanation("console", report)],
                crash.Stack);
        }

        if (all.Find(t => t.Is(typeof(HangException)) || t.Has("ITestTimeoutException")) is { } hang)
        {
            return new Outcome(Verdict.Hang, FirstLine(hang.Message), [], hang.Stack);
        }

        // Only what the test itself threw decides: an assertion wrapped by other code broke in the harness.
        List<Thrown> own = [.. all.Where((_, i) => IsOwn(all, i))];
        if (own.Find(t => t.Has("IAssertionException")) is { } assertion)
        {
            return new Outcome(Verdict.Fail, FirstLine(assertion.Message), AssertionText.Explain(assertion.Message), assertion.Stack);
        }

        Thrown rest = own.Count > 0 ? own[0] : all[0];
        string chain = string.Join('\n', all.Where(t => !t.IsWrapper).Select(t => $"{t.Type}: {t.Message}\n{t.Stack}".TrimEnd()));
        return new Outcome(
            Verdict.Broken,
            $"{rest.Type[(rest.Type.LastIndexOf('.') + 1)..]}: {FirstLine(rest.Message)}",
            [new Explanation("stack", chain)],
            rest.Stack);
    }

    /// <summary>The line of the test that threw, or of what it called; null when the stack does not say.</summary>
    /// <param name="stack">The stack.</param>
    /// <param name="source">The test's own source, <c>file:line</c>.</param>
    public static string? Where(string? stack, string? source)
    {
        if (stack is null)
        {
            return null;
        }

        string own = source is null ? "suites/" : source[..(source.LastIndexOf(':') + 1)];
        return Frame().Matches(stack)
            .Select(m => $"{SourcePath.Relative(m.Groups["file"].Value)}:{m.Groups["line"].Value}")
            .FirstOrDefault(frame => frame.StartsWith(own, StringComparison.Ordinal));
    }

    private static bool IsOwn(List<Thrown> all, int index)
    {
        for (int parent = all[index].Parent; parent >= 0; parent = all[parent].Parent)
        {
            if (!all[parent].IsWrapper)
            {
                return false;
            }
        }

        return !all[index].IsWrapper;
    }

    private static string FirstLine(string text)
    {
        string trimmed = text.Trim();
        int end = trimmed.AsSpan().IndexOfAny('\r', '\n');
        return Spaces().Replace(end < 0 ? trimmed : trimmed[..end].TrimEnd(), " ");
    }

    [GeneratedRegex(@"^\s*at .* in (?<file>.+):line (?<line>\d+)\s*$", RegexOptions.Multiline)]
    private static partial Regex Frame();

    [GeneratedRegex(@"\s+")]
    private static partial Regex Spaces();

    internal sealed record Outcome(Verdict Verdict, string Reason, IReadOnlyList<Explanation> Explained, string? Stack);

    private sealed record Thrown(string Type, string Message, string? Stack, int Parent)
    {
        // These only carry others: several exceptions of one test, and a fixture's failure told to each test.
        public bool IsWrapper => Type is "System.AggregateException" or "Xunit.Sdk.TestPipelineException";

        public bool Is(Type type) => Resolve() is { } thrown && type.IsAssignableFrom(thrown);

        public bool Has(string interfaceName) => Resolve()?.GetInterfaces().Any(i => i.Name == interfaceName) == true;

        private Type? Resolve() => Types.GetOrAdd(Type, static name =>
            AppDomain.CurrentDomain.GetAssemblies().Select(a => a.GetType(name)).FirstOrDefault(t => t is not null));
    }
}

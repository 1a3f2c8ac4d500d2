// SPDX-License-Identifier: MIT
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Json.Serialization;
using Conformance.Results;
using Xunit;
using Xunit.Runner.Common;
using Xunit.Sdk;
using Xunit.v3;

namespace Conformance.Fixtures;

/// <summary>
/// Runs a suite's own assembly as a part of <c>conformance run</c>: the selected tests, one after the other, with the events of
/// <see cref="JournalLine"/> on standard output and in the suite's journal.
/// </summary>
public static class SuiteRunner
{
    /// <summary>The argument that lists the suite's claims instead of running them.</summary>
    public const string ListArgument = "--claims";

    private static readonly Lock OutputLock = new();
    private static Session? s_session;

    /// <summary>Whether this process was started by <c>conformance</c>, and so belongs to this runner and not to xunit's own.</summary>
    /// <param name="args">The process's arguments.</param>
    public static bool IsWanted(IReadOnlyList<string> args) => args.Contains(ListArgument) || SuiteEnvironment.Selection is not null;

    /// <summary>Tells that a kernel is being started.</summary>
    public static void ReportBoot() => s_session?.Write(JournalLine.Now(JournalEvent.Boot));

    /// <summary>Tells where the kernel runs, as soon as that is known.</summary>
    /// <param name="target">Where.</param>
    /// <param name="notes">What the reader should know of how it was started.</param>
    public static void ReportTarget(TargetIdentity target, IReadOnlyList<string> notes) =>
        s_session?.Write(JournalLine.Now(JournalEvent.Target) with { Target = target, Text = notes.Count > 0 ? string.Join(' ', notes) : null });

    /// <summary>Runs or lists the suite.</summary>
    /// <param name="suite">The suite's assembly.</param>
    /// <param name="args">The process's arguments.</param>
    /// <returns>0 when every selected test got its verdict, whatever it was; another value when the process could not go on.</returns>
    public static async Task<int> RunAsync(Assembly suite, IReadOnlyList<string> args)
    {
        // Standard output carries the events; what tests print goes beside it.
        await using Stream events = Console.OpenStandardOutput();
        Console.SetOut(Console.Error);
        string name = TestId.SuiteOf(suite);
        try
        {
            return args.Contains(ListArgument)
                ? await ListAsync(suite, name, events).ConfigureAwait(false)
                : await RunAsync(suite, name, events).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or JsonException or InvalidOperationException or NotSupportedException)
        {
            await Console.Error.WriteLineAsync($"{name}: {failure.Message}").ConfigureAwait(false);
            return ExitCode.MachineFault;
        }
    }

    private static async Task<int> ListAsync(Assembly suite, string name, Stream events)
    {
        using CancellationTokenSource cancellation = new();
        await using TestFrameworkScope scope = new(suite);
        foreach (CataloguedTest test in await DiscoverAsync(scope, name, cancellation).ConfigureAwait(false))
        {
            ListedTest listed = new(test.Id, name, test.Clauses, test.NegativeControl, test.Source) { FixedBy = test.FixedBy };
            events.Write(JsonSerializer.SerializeToUtf8Bytes(listed, ListedTestContext.Default.ListedTest));
            events.WriteByte((byte)'\n');
        }

        return ExitCode.Clean;
    }

    private static async Task<int> RunAsync(Assembly suite, string name, Stream events)
    {
        string folder = SuiteEnvironment.Output
            ?? throw new InvalidOperationException($"{SuiteEnvironment.SelectionVariable} is set and {SuiteEnvironment.OutputVariable} is not.");
        TestSelection selection = TestSelection.Read(SuiteEnvironment.Selection!);
        using ResultsJournal journal = ResultsJournal.Open(folder, selection.Journal ?? name);
        using CancellationTokenSource cancellation = new();
        using Session session = new(journal, events);
        s_session = session;

        // The terminal sends an interrupt to everyone; only the command itself decides what it means.
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, context => context.Cancel = true);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            cancellation.Cancel();
        });

        await using TestFrameworkScope scope = new(suite);
        List<CataloguedTest> selected =
            [.. (await DiscoverAsync(scope, name, cancellation).ConfigureAwait(false)).Where(selection.ToFilter())];
        session.Write(JournalLine.Now(JournalEvent.Plan) with { Tests = [.. selected.Select(t => t.Id)] });
        VerdictReporter reporter = new(name, folder, selected, session.Write, selection.Round);
        foreach (CataloguedTest test in selected.Where(t => t.Unusable is not null))
        {
            reporter.Refuse(test, test.Unusable!);
        }

        List<IXunitTestCase> runnable = [.. selected.Where(t => t.Unusable is null).Select(t => t.TestCase)];
        if (runnable.Count > 0)
        {
            ITestFrameworkExecutionOptions options = TestFrameworkOptions.ForExecution(Configuration());

            // A verdict is on disk before the next test begins.
            options.SetSynchronousMessageReporting(true);
            await scope.Controller.Run(reporter, options, runnable, cancellation).ConfigureAwait(false);
        }

        if (!cancellation.IsCancellationRequested)
        {
            session.Write(JournalLine.Now(JournalEvent.Close) with { Suite = name });
        }

        s_session = null;
        return ExitCode.Clean;
    }

    private static async Task<IReadOnlyList<CataloguedTest>> DiscoverAsync(
        TestFrameworkScope scope, string suite, CancellationTokenSource cancellation)
    {
        ITestFrameworkDiscoveryOptions options = TestFrameworkOptions.ForDiscovery(Configuration());
        TestCatalogue catalogue = new(suite);
        await scope.Controller.Find(null, options, _ => true, cancellation, null, (testCase, _) =>
        {
            catalogue.Add(testCase);
            return ValueTask.FromResult(true);
        }).ConfigureAwait(false);
        return catalogue.Build();
    }

    private static TestAssemblyConfiguration Configuration() => new()
    {
        PreEnumerateTheories = true,
        ParallelizeTestCollections = false,
        IncludeSourceInformation = false,
    };

    private sealed class TestFrameworkScope : IAsyncDisposable
    {
        private readonly ITestFramework _framework;

        public TestFrameworkScope(Assembly suite)
        {
            TestContext.SetForInitialization(null, diagnosticMessages: false, internalDiagnosticMessages: false);
            List<string> warnings = [];
            SerializationHelper.Instance.AddRegisteredSerializers(suite, warnings);
            if (warnings.Count > 0)
            {
                throw new InvalidOperationException(string.Join("; ", warnings));
            }

            _framework = ExtensibilityPointFactory.GetTestFramework(suite);
            Controller = new InProcessFrontController(_framework, suite, null);
        }

        public InProcessFrontController Controller { get; }

        public ValueTask DisposeAsync() => _framework is IAsyncDisposable disposable ? disposable.DisposeAsync() : ValueTask.CompletedTask;
    }

    private sealed class Session(ResultsJournal journal, Stream events) : IDisposable
    {
        private bool _faultTold;

        public void Write(JournalLine line)
        {
            bool stored = journal.Append(line);
            lock (OutputLock)
            {
                events.Write(line.ToBytes());
                if (!stored && !_faultTold)
                {
                    _faultTold = true;
                    events.Write((JournalLine.Now(JournalEvent.Fault) with { Text = journal.Fault, ResultsLost = true }).ToBytes());
                }

                events.Flush();
            }
        }

        public void Dispose() => events.Flush();
    }
}

/// <summary>A claim as a suite lists it.</summary>
/// <param name="Id">The test's id.</param>
/// <param name="Suite">The suite's name.</param>
/// <param name="Clauses">Ids of its clauses.</param>
/// <param name="NegativeControl">Whether it must fail.</param>
/// <param name="Source">Where it is written, <c>file:line</c>.</param>
public sealed record ListedTest(string Id, string Suite, IReadOnlyList<string> Clauses, bool NegativeControl, string? Source)
{
    /// <summary>Commits that mended the kernel where the claim did not hold.</summary>
    public IReadOnlyList<Fix> FixedBy { get; init; } = [];
}

/// <summary>JSON of <see cref="ListedTest"/>, a line each.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(ListedTest))]
public sealed partial class ListedTestContext : JsonSerializerContext;

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Conformance.Kernels;

namespace Conformance.Cli;

/// <summary>What a project's tests came to.</summary>
/// <param name="Passed">Tests that passed.</param>
/// <param name="Failed">Tests that failed, fixtures that did not end, and tests that were running when nothing more came.</param>
/// <param name="Skipped">Tests that were skipped.</param>
/// <param name="Whole">Whether every test that was planned has an answer.</param>
internal sealed record TestTally(long Passed, long Failed, long Skipped, bool Whole)
{
    public static TestTally operator +(TestTally a, TestTally b) =>
        new(a.Passed + b.Passed, a.Failed + b.Failed, a.Skipped + b.Skipped, a.Whole && b.Whole);
}

/// <summary>
/// Runs one test project and shows what it says (xunit's json reporter, a message per line). A test that never ends would hold up
/// whoever waits for it until they give up without a name: when nothing begins and nothing ends for <paramref name="patience"/>, what is
/// running is named and killed.
/// </summary>
internal sealed class TestProcess(CommandOutput output, string tether, TimeSpan patience)
{
    private readonly Dictionary<string, string> _classes = [];
    private readonly Dictionary<string, string> _tests = [];
    private long _passed;
    private long _failed;
    private long _skipped;
    private bool _finished;

    /// <summary>Runs the tests to their end.</summary>
    /// <param name="executable">The test project's program.</param>
    /// <param name="arguments">What selects the tests; empty for all.</param>
    /// <param name="cancellation">Ends the tests and all they started.</param>
    public async Task<TestTally> RunAsync(string executable, IEnumerable<string> arguments, CancellationToken cancellation)
    {
        ProcessStartInfo start = new(tether, [executable, "-noLogo", "-noColor", "-reporter", "json", .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        using Process process = Process.Start(start) ?? throw new MachineFaultException($"{tether} did not start.");
        bool stalled;
        try
        {
            stalled = !await ReadAsync(process.StandardOutput, cancellation).ConfigureAwait(false);
        }
        finally
        {
            // Whatever the tests started is tethered to them, as they are to this process.
            process.StandardInput.Close();
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        }

        string name = Path.GetFileName(executable);
        if (stalled)
        {
            foreach (string running in Running())
            {
                _failed++;
                output.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"hang   {running}   nothing began or ended for {patience.TotalSeconds:0} s"));
            }
        }
        else if (!_finished)
        {
            output.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"conformance: {name} ended with exit code {process.ExitCode} and without results."));
        }

        return new TestTally(_passed, _failed, _skipped, _finished && (process.ExitCode == 0 || _failed > 0));
    }

    /// <summary>Takes one line of the reporter.</summary>
    internal void Take(string line)
    {
        JsonNode? message = Message(line);
        switch ((string?)message?["$type"])
        {
            case null:
                output.Out.WriteLine(line);
                break;
            case "test-class-starting":
                _classes[Id(message, "TestClass")] = (string)message["TestClassName"]!;
                break;
            case "test-class-finished":
                _classes.Remove(Id(message, "TestClass"), out string? ended);
                output.Out.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"{((int)message["TestsFailed"]! == 0 ? "pass" : "fail"),-6} {ended}   {(int)message["TestsTotal"]!} in {(double)message["ExecutionTime"]!:0.0} s"));
                break;
            case "test-starting":
                _tests[Id(message, "Test")] = (string)message["TestDisplayName"]!;
                break;
            case "test-finished":
                _tests.Remove(Id(message, "Test"));
                break;
            case "test-passed":
                _passed++;
                break;
            case "test-skipped":
                _skipped++;
                output.Out.WriteLine($"skip   {_tests.GetValueOrDefault(Id(message, "Test"))}   {(string?)message["Reason"]}");
                break;
            case "test-failed":
                Failed(_tests.GetValueOrDefault(Id(message, "Test")), message);
                break;
            case "error-message":
            case { } type when type.EndsWith("-cleanup-failure", StringComparison.Ordinal):
                Failed(_classes.GetValueOrDefault(Id(message, "TestClass")), message);
                break;
            case "test-assembly-finished":
                _finished = true;
                break;
        }
    }

    /// <summary>What has begun and not ended; of a class that runs a test, the test.</summary>
    internal IEnumerable<string> Running() =>
        _tests.Values.Concat(_classes.Values.Where(c => !_tests.Values.Any(t => t.StartsWith(c + ".", StringComparison.Ordinal))).Select(c => c + " (a fixture)")).Order(StringComparer.Ordinal);

    /// <returns>False when nothing came for too long.</returns>
    private async Task<bool> ReadAsync(StreamReader lines, CancellationToken cancellation)
    {
        try
        {
            while (await lines.ReadLineAsync(CancellationToken.None).AsTask().WaitAsync(patience, cancellation).ConfigureAwait(false) is { } line)
            {
                Take(line);
            }

            return true;
        }
        catch (TimeoutException)
        {
            return false;
        }
    }

    private void Failed(string? test, JsonNode message)
    {
        _failed++;
        output.Out.WriteLine($"fail   {test ?? "outside any test"}");
        Indented(string.Join('\n', Texts("Messages")));
        Indented(string.Join('\n', Texts("StackTraces")));
        Indented((string?)message["Output"]);

        IEnumerable<string?> Texts(string property) => message[property]?.AsArray().Select(t => (string?)t) ?? [];

        void Indented(string? text)
        {
            foreach (string line in (text ?? string.Empty).Split('\n').Where(l => l.Trim().Length > 0))
            {
                output.Out.WriteLine($"  {line}");
            }
        }
    }

    private static string Id(JsonNode message, string of) => (string?)message[of + "UniqueID"] ?? string.Empty;

    private static JsonNode? Message(string line)
    {
        if (!line.StartsWith('{'))
        {
            return null;
        }

        try
        {
            return JsonNode.Parse(line);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Globalization;
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary><c>conformance run --dry-run</c>: what would be started, and nothing started.</summary>
internal sealed class DryRun(Installation installation, CommandOutput output)
{
    /// <returns>0 when something would run, 2 when nothing is left.</returns>
    public async Task<int> WriteAsync(
        IReadOnlyList<PreparedKernel> kernels, IReadOnlyList<SelectedSuite> suites, RunRequest request, Shard? shard, CancellationToken cancellation)
    {
        IReadOnlyList<ListedTest> tests = await ListCommand.TestsAsync(suites.Select(s => s.Suite), cancellation).ConfigureAwait(false);
        int count = 0;
        foreach (SelectedSuite suite in suites)
        {
            Func<string, bool, bool> selects = new TestSelection { Patterns = suite.Patterns, NegativeControls = request.NegativeControls, Shard = shard }.ToIdFilter();
            List<string> ids = [.. tests.Where(t => t.Suite == suite.Suite.Name && selects(t.Id, t.NegativeControl)).Select(t => t.Id)];
            count += ids.Count;
            foreach (PreparedKernel kernel in kernels)
            {
                output.Out.WriteLine($"# {suite.Suite.Name} on {kernel.Id} ({kernel.Release}): {ids.Count.ToString(CultureInfo.InvariantCulture)} tests");
                output.Out.WriteLine(kernel.IsBooted
                    ? QemuLine.Of(kernel, suite.Suite.Needs with { ExtraKernelArguments = [.. suite.Suite.Needs.ExtraKernelArguments, .. request.Append] })
                    : $"{installation.Agent(kernel.Architecture)} on {kernel.Source}");
            }

            ids.ForEach(output.Out.WriteLine);
        }

        return count > 0 ? ExitCode.Clean : ExitCode.ResultsMissing;
    }
}

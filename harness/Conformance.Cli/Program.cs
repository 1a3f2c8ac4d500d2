// SPDX-License-Identifier: MIT
using Conformance.Cli;

return await CommandLine.RunAsync(args, CommandOutput.OfThisProcess());

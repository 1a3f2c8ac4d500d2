// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Cli;

/// <summary>What the command line says about the machine; the suite knows the rest.</summary>
/// <param name="FreshBoot">Boot instead of restoring a saved kernel.</param>
/// <param name="ExtraKernelArguments">Appended to the kernel command line.</param>
internal sealed record MachineRequest(bool FreshBoot, IReadOnlyList<string> ExtraKernelArguments);

[JsonSerializable(typeof(MachineRequest))]
internal sealed partial class MachineRequestContext : JsonSerializerContext;

// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Kernels;

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(PreparedKernel))]
internal sealed partial class KernelJson : JsonSerializerContext;

// SPDX-License-Identifier: MIT
using System.Text.Json.Serialization;

namespace Conformance.Kernels;

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(PreparedKernel))]
[JsonSerializable(typeof(List<DebianPackage>))]
[JsonSerializable(typeof(DebianEntry))]
internal sealed partial class KernelJson : JsonSerializerContext;

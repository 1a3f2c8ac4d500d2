// SPDX-License-Identifier: MIT

namespace Conformance.Targets;

/// <summary>QEMU refused a command.</summary>
/// <param name="command">Name of the command.</param>
/// <param name="errorClass">QEMU's class of error: <c>GenericError</c>, <c>CommandNotFound</c>…</param>
/// <param name="description">QEMU's own words.</param>
public sealed class QmpException(string command, string errorClass, string description)
    : Exception($"QEMU refused {command}: {description}")
{
    public string Command { get; } = command;

    public string ErrorClass { get; } = errorClass;

    public string Description { get; } = description;
}

// SPDX-License-Identifier: MIT
namespace Conformance.Uapi;

/// <summary>The C spelling of a field whose path in the header differs from its C# name (a member of an anonymous or named union).</summary>
[AttributeUsage(AttributeTargets.Field)]
internal sealed class CFieldAttribute(string path) : Attribute
{
    public string Path { get; } = path;

    /// <summary>Macro that headers with this field define; null: the field is as old as the structure.</summary>
    public string? Since { get; init; }
}

/// <summary>The header a structure or a group of constants comes from, as it is included.</summary>
[AttributeUsage(AttributeTargets.Struct | AttributeTargets.Class | AttributeTargets.Enum)]
internal sealed class CHeaderAttribute(string header) : Attribute
{
    public string Header { get; } = header;

    /// <summary>ELF machine the declaration exists on; null: every one.</summary>
    public string? Only { get; init; }
}

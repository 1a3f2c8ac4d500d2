// SPDX-License-Identifier: MIT
using System.Buffers.Binary;

namespace Conformance.Guests;

/// <summary>The exception that ended a command.</summary>
/// <param name="Address">Of a page fault; else 0.</param>
/// <param name="ProgramCounter">In the guest image.</param>
public readonly record struct CommandFault(X86Exception Exception, uint ErrorCode, ulong Address, ulong ProgramCounter)
{
    public override string ToString() =>
        $"{Exception.Mnemonic()} error 0x{ErrorCode:x}" + (Exception == X86Exception.PageFault ? $" at 0x{Address:x}" : "");
}

/// <summary>What became of one command; of several runs, the last.</summary>
/// <param name="Index">In its script.</param>
/// <param name="Runs">How often it ended.</param>
/// <param name="Fault">Only with <see cref="CommandStatus.Faulted"/>.</param>
/// <param name="Timestamp">TSC when it last ended.</param>
public sealed record CommandResult(int Index, GuestCommand Command, CommandStatus Status, uint Runs, ulong Result, ulong Result2, CommandFault? Fault, ulong Timestamp)
{
    /// <summary>The result of a command that was done.</summary>
    /// <exception cref="InvalidOperationException">It was not.</exception>
    public ulong Value => Status == CommandStatus.Done ? Result : throw new InvalidOperationException($"command {this}");

    /// <summary>The registers that <see cref="GuestCommand.Cpuid"/> read.</summary>
    public (uint Eax, uint Ebx, uint Ecx, uint Edx) Cpuid => ((uint)Value, (uint)(Value >> 32), (uint)Result2, (uint)(Result2 >> 32));

    public override string ToString() => $"{Index} {Command}: " + Status switch
    {
        CommandStatus.NotRun => "not run",
        CommandStatus.Done => $"0x{Result:x}",
        CommandStatus.Faulted => Fault.ToString(),
        CommandStatus.Unsupported => "not possible in this guest",
        _ => $"status {(uint)Status}",
    };

    internal static CommandResult Parse(int index, GuestCommand command, ReadOnlySpan<byte> bytes)
    {
        var status = (CommandStatus)BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        CommandFault? fault = status != CommandStatus.Faulted ? null : new CommandFault(
            (X86Exception)BinaryPrimitives.ReadUInt32LittleEndian(bytes[0x60..]),
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[0x64..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[0x68..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[0x70..]));
        return new CommandResult(
            index,
            command,
            status,
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[0xc..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[0x50..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[0x58..]),
            fault,
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[0x78..]));
    }
}

/// <summary>The results of a script, by the index of the command.</summary>
public sealed class ScriptResults(IReadOnlyList<CommandResult> results) : IReadOnlyList<CommandResult>
{
    public int Count => results.Count;

    public CommandResult this[int index] => results[index];

    public IEnumerator<CommandResult> GetEnumerator() => results.GetEnumerator();

    System.Collections.IEnumerator System.Collections.IEnumerable.GetEnumerator() => GetEnumerator();

    public override string ToString() => string.Concat(results.Select(r => $"  {r}\n"));
}

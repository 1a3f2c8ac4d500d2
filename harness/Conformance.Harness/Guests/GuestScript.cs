// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Collections;
using System.Globalization;
using System.Text;
using Conformance.Kvm;

namespace Conformance.Guests;

/// <summary>A list of commands for one vCPU.</summary>
public sealed class GuestScript : IEnumerable<GuestCommand>
{
    private readonly List<GuestCommand> _commands = [];
    private readonly Dictionary<string, int> _labels = [];
    private readonly Dictionary<int, string> _jumps = [];
    private int _actionSlot;

    /// <summary>First action slot that <see cref="Handle"/> uses; other slots keep what earlier scripts or a <see cref="HandlerTable"/> put there.</summary>
    public int FirstActionSlot
    {
        init => _actionSlot = value;
    }

    public int Count => _commands.Count;

    public GuestScript Add(GuestCommand command) => Add(command, out _);

    /// <param name="index">Where the command is, to find its result.</param>
    /// <exception cref="InvalidOperationException">The script is full: 512 commands.</exception>
    public GuestScript Add(GuestCommand command, out int index)
    {
        if (_commands.Count == GuestProtocol.ScriptCommands)
        {
            throw new InvalidOperationException($"a script has at most {GuestProtocol.ScriptCommands} commands");
        }

        index = _commands.Count;
        _commands.Add(command);
        return this;
    }

    public GuestScript AddRange(IEnumerable<GuestCommand> commands)
    {
        foreach (GuestCommand command in commands)
        {
            Add(command);
        }

        return this;
    }

    /// <summary>Names the place of the next command.</summary>
    public GuestScript Label(string name)
    {
        if (!_labels.TryAdd(name, _commands.Count))
        {
            throw new ArgumentException($"the label {name} is there already", nameof(name));
        }

        return this;
    }

    /// <summary>Goes back to the label, so that what lies between runs so many times in all.</summary>
    public GuestScript Repeat(string label, ulong times)
    {
        ArgumentOutOfRangeException.ThrowIfZero(times);
        return Jump(GuestCommand.Loop(label, times - 1, null), label);
    }

    /// <summary>Goes back to the label until the condition holds. Result 2 of the command: 1 when it held.</summary>
    /// <param name="mostJumps">The loop also ends after so many.</param>
    public GuestScript RepeatUntil(string label, GuestCondition condition, ulong mostJumps = ulong.MaxValue) =>
        Jump(GuestCommand.Loop(label, mostJumps, condition), label);

    /// <summary>Installs a handler from within the guest.</summary>
    /// <exception cref="InvalidOperationException">More than 24 actions.</exception>
    public GuestScript Handle(ApicVector vector, HandlerPolicy policy)
    {
        if (_actionSlot + policy.Actions.Count > GuestProtocol.Actions)
        {
            throw new InvalidOperationException($"a vCPU's handlers have at most {GuestProtocol.Actions} actions together");
        }

        ulong encoded = policy.Encode(_actionSlot);
        foreach (HandlerAction action in policy.Actions)
        {
            Add(GuestCommand.SetAction(_actionSlot++, action));
        }

        return Add(GuestCommand.Handler(vector.Value, encoded, policy.ToString()));
    }

    /// <summary>The commands as they lie in guest memory, nothing run yet.</summary>
    /// <exception cref="InvalidOperationException">A loop goes to a label that is not there.</exception>
    public byte[] Encode()
    {
        var bytes = new byte[_commands.Count * GuestProtocol.CommandSize];
        for (int n = 0; n < _commands.Count; n++)
        {
            GuestCommand command = _commands[n];
            if (_jumps.TryGetValue(n, out string? label))
            {
                command = _labels.TryGetValue(label, out int target)
                    ? command.JumpingTo(target)
                    : throw new InvalidOperationException($"command {n} goes to the label {label}, which is not there");
            }

            command.Encode(bytes.AsSpan(n * GuestProtocol.CommandSize, GuestProtocol.CommandSize));
        }

        return bytes;
    }

    /// <summary>What to write, while the vCPU waits for a script, before it is resumed.</summary>
    /// <param name="area">The vCPU's area (<see cref="GuestLayout.Area"/>).</param>
    public IReadOnlyList<GuestWrite> Writes(ulong area)
    {
        var count = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(count, _commands.Count);
        return [new(area + GuestProtocol.AreaScript, Encode()), new(area + 4, count)];
    }

    /// <summary>What became of the commands.</summary>
    /// <param name="script">The script as read back from guest memory; at least as many bytes as <see cref="Encode"/> gave.</param>
    public ScriptResults Decode(ReadOnlySpan<byte> script)
    {
        var results = new CommandResult[_commands.Count];
        for (int n = 0; n < results.Length; n++)
        {
            results[n] = CommandResult.Parse(n, _commands[n], script.Slice(n * GuestProtocol.CommandSize, GuestProtocol.CommandSize));
        }

        return new ScriptResults(results);
    }

    public IEnumerator<GuestCommand> GetEnumerator() => _commands.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    public override string ToString()
    {
        var text = new StringBuilder();
        for (int n = 0; n < _commands.Count; n++)
        {
            foreach (string label in _labels.Where(l => l.Value == n).Select(l => l.Key))
            {
                text.Append(label).Append(":\n");
            }

            text.Append(CultureInfo.InvariantCulture, $"  {n,3}  {_commands[n]}\n");
        }

        return text.ToString();
    }

    private GuestScript Jump(GuestCommand loop, string label)
    {
        Add(loop, out int index);
        _jumps.Add(index, label);
        return this;
    }
}

// SPDX-License-Identifier: MIT
namespace Conformance.Wire;

/// <summary>Threads of steps that a session runs at native speed: what is raced or counted never crosses the wire.</summary>
public sealed class AgentProgram(string description)
{
    private readonly List<ProgramThread> _threads = [];

    public string Description => description;

    /// <summary>All threads end when it passes; zero: never.</summary>
    public TimeSpan Deadline { get; init; } = TimeSpan.FromSeconds(20);

    public IReadOnlyList<ProgramThread> Threads => _threads;

    /// <summary>Adds a thread. All of them start together.</summary>
    /// <param name="processor">Of the kernel under test; null: any.</param>
    public ProgramThread Thread(uint? processor = null)
    {
        var thread = new ProgramThread(processor);
        _threads.Add(thread);
        return thread;
    }

    internal ReadOnlyMemory<byte> Encode()
    {
        PayloadWriter w = new PayloadWriter().U64((ulong)(Deadline.TotalMilliseconds * 1e6)).U32((uint)_threads.Count);
        foreach (ProgramThread thread in _threads)
        {
            thread.Encode(w);
        }

        return w.Written;
    }
}

/// <summary>One thread of a program; steps run in the order they were added.</summary>
public sealed class ProgramThread
{
    private readonly List<(ushort Op, ushort Flags, uint A, ulong[] Args)> _steps = [];
    private readonly uint _processor;

    internal ProgramThread(uint? processor) => _processor = processor ?? uint.MaxValue;

    /// <summary>Index of the step added next: a label for <see cref="Loop"/>.</summary>
    public int Here => _steps.Count;

    /// <param name="stopOnFailure">A failure ends the whole program.</param>
    /// <param name="resultAt">Address that gets the result, or -errno.</param>
    public ProgramThread Call(uint number, ReadOnlySpan<ulong> arguments, bool stopOnFailure = false, ulong? resultAt = null)
    {
        ulong[] args = new ulong[7];
        arguments.CopyTo(args);
        args[6] = resultAt ?? 0;
        return Add(1, (ushort)((stopOnFailure ? 1 : 0) | (resultAt is null ? 0 : 2)), number, args);
    }

    public ProgramThread Store(ulong address, int width, ulong value) => Add(2, 0, (uint)width, [address, value]);

    /// <summary>Atomic.</summary>
    public ProgramThread Add(ulong address, int width, ulong delta) => Add(3, 0, (uint)width, [address, delta]);

    public ProgramThread Await(ulong address, int width, MemoryCondition condition, ulong value, ulong mask = ulong.MaxValue) =>
        Add(4, 0, (uint)width, [address, (ulong)condition, mask, value]);

    /// <summary>Back to a step, that many times more; 0: until the program ends.</summary>
    public ProgramThread Loop(int to, ulong times) => Add(5, 0, (uint)to, [times]);

    public ProgramThread Barrier() => Add(6, 0, 0, []);

    /// <summary>Ends the whole program.</summary>
    public ProgramThread Stop() => Add(7, 0, 0, []);

    public ProgramThread Copy(ulong to, ulong from, ulong length) => Add(8, 0, 0, [to, from, length]);

    internal void Encode(PayloadWriter w)
    {
        w.U32((uint)_steps.Count).U32(_processor);
        foreach ((ushort op, ushort flags, uint a, ulong[] args) in _steps)
        {
            w.U16(op).U16(flags).U32(a);
            for (int i = 0; i < 7; i++)
            {
                w.U64(i < args.Length ? args[i] : 0);
            }
        }
    }

    private ProgramThread Add(ushort op, ushort flags, uint a, ulong[] args)
    {
        _steps.Add((op, flags, a, args));
        return this;
    }
}

/// <summary>Why a program ended.</summary>
public enum ProgramEnd : uint
{
    Finished = 0,
    Deadline = 1,
    Stopped = 2,
}

/// <summary>What one step did.</summary>
/// <param name="Errnos">How often each error came; other kinds than the first sixteen are under 0x7fffffff.</param>
public sealed record StepOutcome(ulong Runs, ulong Failures, ulong TotalNs, ulong MinNs, ulong MaxNs, IReadOnlyDictionary<int, ulong> Errnos);

/// <summary>What a program did: per thread, per step.</summary>
public sealed record ProgramOutcome(ProgramEnd End, TimeSpan Elapsed, IReadOnlyList<IReadOnlyList<StepOutcome>> Threads)
{
    internal static ProgramOutcome Parse(byte[] reply, AgentProgram program)
    {
        var r = new PayloadReader(reply);
        AgentConnection.Check(ref r, program.Description);
        var end = (ProgramEnd)r.U32();
        ulong nanoseconds = r.U64();
        var threads = new List<IReadOnlyList<StepOutcome>>();
        for (int t = 0; t < program.Threads.Count; t++)
        {
            var steps = new StepOutcome[r.U32()];
            for (int i = 0; i < steps.Length; i++)
            {
                ulong runs = r.U64(), failures = r.U64(), total = r.U64(), least = r.U64(), most = r.U64();
                var errnos = new Dictionary<int, ulong>();
                for (uint n = r.U32(); n > 0; n--)
                {
                    int errno = r.I32();
                    _ = r.U32();
                    errnos[errno] = r.U64();
                }

                steps[i] = new StepOutcome(runs, failures, total, least, most, errnos);
            }

            threads.Add(steps);
        }

        return new ProgramOutcome(end, TimeSpan.FromTicks((long)(nanoseconds / 100)), threads);
    }

    public override string ToString() => $"{End} after {Elapsed.TotalMilliseconds:0.0} ms; {string.Join(" | ", Threads.Select(t => string.Join(" ", t.Select(s => s.Failures == 0 ? $"{s.Runs}" : $"{s.Runs}-{s.Failures}"))))}";
}

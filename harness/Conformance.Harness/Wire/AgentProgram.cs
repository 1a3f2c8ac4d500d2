// SPDX-License-Identifier: MIT
using System.Globalization;

namespace Conformance.Wire;

/// <summary>Threads of steps that a session runs at native speed: what is raced or counted never crosses the wire.</summary>
/// <param name="description">What the journal prints.</param>
public sealed class AgentProgram(string description)
{
    private const int MaxThreads = 64;

    private readonly List<ProgramThread> _threads = [];

    public string Description => description;

    /// <summary>All threads end when it passes, also those that block in a system call; zero: never.</summary>
    public TimeSpan Deadline { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>In the order they were added.</summary>
    public IReadOnlyList<ProgramThread> Threads => _threads;

    /// <summary>Bytes of its steps.</summary>
    internal long Size => _threads.Sum(t => (long)t.Here * ProgramThread.StepSize);

    /// <summary>Adds a thread. All of them start together.</summary>
    /// <param name="processor">Of the kernel under test; null: any.</param>
    public ProgramThread Thread(uint? processor = null)
    {
        if (_threads.Count == MaxThreads)
        {
            throw new InvalidOperationException($"A program has at most {MaxThreads} threads.");
        }

        var thread = new ProgramThread(processor);
        _threads.Add(thread);
        return thread;
    }

    /// <inheritdoc/>
    public override string ToString() => description;

    internal void WriteTo(FrameWriter payload)
    {
        if (Deadline == TimeSpan.Zero)
        {
            payload.U64(0);
        }
        else
        {
            payload.Nanoseconds(Deadline);
        }

        payload.U32((uint)_threads.Count);
        foreach (ProgramThread thread in _threads)
        {
            thread.WriteTo(payload);
        }
    }
}

/// <summary>What a step does.</summary>
public enum ProgramOperation : ushort
{
    Call = 1,
    Store = 2,
    Add = 3,
    Await = 4,
    Loop = 5,
    Barrier = 6,
    Stop = 7,
    Copy = 8,
}

/// <summary>One step as it is sent; what the members mean depends on the operation (protocol.md).</summary>
public readonly record struct ProgramStep(ProgramOperation Operation, ushort Flags, uint A, IReadOnlyList<ulong> Arguments);

/// <summary>One thread of a program; steps run in the order they were added.</summary>
public sealed class ProgramThread
{
    internal const int StepSize = 64;
    private const int Arguments = 7;
    private const ushort StopOnFailure = 1;
    private const ushort KeepResult = 2;

    private readonly List<ProgramStep> _steps = [];

    internal ProgramThread(uint? processor) => Processor = processor;

    /// <summary>Of the kernel under test; null: any.</summary>
    public uint? Processor { get; }

    public IReadOnlyList<ProgramStep> Steps => _steps;

    /// <summary>Index of the step added next: a label for <see cref="Loop"/>, and its place in the outcome.</summary>
    public int Here => _steps.Count;

    /// <summary>A system call.</summary>
    /// <param name="number">Of the architecture of the kernel under test.</param>
    /// <param name="arguments">At most six, as they are: memory they point to must be mapped before.</param>
    /// <param name="stopOnFailure">A failure ends the whole program.</param>
    /// <param name="resultAt">Aligned address that gets the result, or -errno, in 8 bytes.</param>
    public ProgramThread Call(uint number, ReadOnlySpan<ulong> arguments, bool stopOnFailure = false, ulong? resultAt = null)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(arguments.Length, Arguments - 1);
        ulong[] all = new ulong[Arguments];
        arguments.CopyTo(all);
        all[^1] = resultAt ?? 0;
        return Add(ProgramOperation.Call, number, all, (ushort)((stopOnFailure ? StopOnFailure : 0) | (resultAt is null ? 0 : KeepResult)));
    }

    /// <param name="address">Aligned to the width.</param>
    /// <param name="width">In bytes: 1, 2, 4 or 8.</param>
    /// <param name="value">What is stored.</param>
    public ProgramThread Store(ulong address, int width, ulong value) => Add(ProgramOperation.Store, Width(width), [address, value]);

    /// <summary>Adds to memory, atomically.</summary>
    /// <param name="address">Aligned to the width.</param>
    /// <param name="width">In bytes: 1, 2, 4 or 8.</param>
    /// <param name="delta">What is added.</param>
    public ProgramThread Add(ulong address, int width, ulong delta) => Add(ProgramOperation.Add, Width(width), [address, delta]);

    /// <summary>Waits until memory meets a condition, or the program ends.</summary>
    /// <param name="address">Aligned to the width.</param>
    /// <param name="width">In bytes: 1, 2, 4 or 8.</param>
    /// <param name="condition">Applied after masking, unsigned.</param>
    /// <param name="value">What it is compared with.</param>
    /// <param name="mask">Applied to what is read.</param>
    public ProgramThread Await(ulong address, int width, MemoryCondition condition, ulong value, ulong mask = ulong.MaxValue) =>
        Add(ProgramOperation.Await, Width(width), [address, (ulong)condition, mask, value]);

    /// <summary>Back to a step.</summary>
    /// <param name="to">An earlier step, or this one.</param>
    /// <param name="times">How many times more; 0: until the program ends.</param>
    public ProgramThread Loop(int to, ulong times)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(to);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(to, Here);
        return Add(ProgramOperation.Loop, (uint)to, [times]);
    }

    /// <summary>Waits for the other threads of the program that have not ended.</summary>
    public ProgramThread Barrier() => Add(ProgramOperation.Barrier, 0, []);

    /// <summary>Ends the whole program.</summary>
    public ProgramThread Stop() => Add(ProgramOperation.Stop, 0, []);

    /// <param name="to">Address.</param>
    /// <param name="from">Address; the two may overlap.</param>
    /// <param name="length">In bytes.</param>
    public ProgramThread Copy(ulong to, ulong from, ulong length) => Add(ProgramOperation.Copy, 0, [to, from, length]);

    internal void WriteTo(FrameWriter payload)
    {
        payload.U32((uint)_steps.Count).U32(Processor ?? uint.MaxValue);
        foreach (ProgramStep step in _steps)
        {
            payload.U16((ushort)step.Operation).U16(step.Flags).U32(step.A);
            for (int i = 0; i < Arguments; i++)
            {
                payload.U64(i < step.Arguments.Count ? step.Arguments[i] : 0);
            }
        }
    }

    private static uint Width(int width) => width is 1 or 2 or 4 or 8
        ? (uint)width
        : throw new ArgumentOutOfRangeException(nameof(width), width, "A width is 1, 2, 4 or 8 bytes.");

    private ProgramThread Add(ProgramOperation operation, uint a, ulong[] arguments, ushort flags = 0)
    {
        _steps.Add(new ProgramStep(operation, flags, a, arguments));
        return this;
    }
}

/// <summary>Why a program ended.</summary>
public enum ProgramEnd : uint
{
    /// <summary>Every thread came to its end.</summary>
    Finished = 0,

    /// <summary>Its deadline passed.</summary>
    Deadline = 1,

    /// <summary>A step stopped it, or failed and was to stop it.</summary>
    Stopped = 2,
}

/// <summary>What one step did.</summary>
/// <param name="Runs">How often it was completed; a loop counts how often it went back, and once when it did not.</param>
/// <param name="Failures">How often a system call failed. One that was interrupted because the program ended counts neither way.</param>
/// <param name="TotalNs">In the system call, in nanoseconds.</param>
/// <param name="MinNs">The shortest of them.</param>
/// <param name="MaxNs">The longest of them.</param>
/// <param name="Errnos">How often each error came; after fifteen kinds, all others are under 0x7fffffff.</param>
public sealed record StepOutcome(ulong Runs, ulong Failures, ulong TotalNs, ulong MinNs, ulong MaxNs, IReadOnlyDictionary<int, ulong> Errnos);

/// <summary>What a program did: per thread, per step.</summary>
/// <param name="End">Why it ended.</param>
/// <param name="Elapsed">In the kernel under test, with starting and ending its threads.</param>
/// <param name="Threads">As they were added; in each its steps, as they were added.</param>
public sealed record ProgramOutcome(ProgramEnd End, TimeSpan Elapsed, IReadOnlyList<IReadOnlyList<StepOutcome>> Threads)
{
    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{End} after {Elapsed.TotalMilliseconds:0.0} ms; ")
        + string.Join(" | ", Threads.Select(t => string.Join(' ', t.Select(s => s.Failures == 0 ? $"{s.Runs}" : $"{s.Runs}-{s.Failures}"))));

    internal static ProgramOutcome Parse(ref PayloadReader reply)
    {
        var end = (ProgramEnd)reply.U32();
        TimeSpan elapsed = reply.Nanoseconds();
        var threads = new List<IReadOnlyList<StepOutcome>>();
        while (reply.Remaining > 0)
        {
            const int SmallestOutcome = 44;
            var steps = new StepOutcome[reply.Count(SmallestOutcome)];
            for (int i = 0; i < steps.Length; i++)
            {
                ulong runs = reply.U64(), failures = reply.U64(), total = reply.U64(), least = reply.U64(), most = reply.U64();
                var errnos = new Dictionary<int, ulong>();
                for (uint n = reply.U32(); n > 0; n--)
                {
                    int errno = reply.I32();
                    _ = reply.U32();
                    errnos[errno] = reply.U64();
                }

                steps[i] = new StepOutcome(runs, failures, total, least, most, errnos);
            }

            threads.Add(steps);
        }

        return new ProgramOutcome(end, elapsed, threads);
    }
}

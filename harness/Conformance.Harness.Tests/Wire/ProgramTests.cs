// SPDX-License-Identifier: MIT
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>Programs at native speed: what they count, and that nothing keeps one from ending.</summary>
public sealed class ProgramTests : IAsyncLifetime
{
    private static readonly TimeSpan s_soon = TimeSpan.FromMilliseconds(50);

    private LocalAgent _agent = null!;
    private AgentSession _session = null!;
    private ulong _page;

    public async ValueTask InitializeAsync()
    {
        _agent = await LocalAgent.StartAsync();
        _session = await _agent.OpenAsync();
        _page = await _session.MapAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _session.DisposeAsync();
        await _agent.DisposeAsync();
    }

    [Fact]
    public async Task LoopsCallsAndFailuresAreCounted()
    {
        var program = new AgentProgram("count");
        for (int i = 0; i < 2; i++)
        {
            ProgramThread thread = program.Thread();
            int inner = thread.Here;
            thread.Add(_page, 8, 1).Loop(inner, 4).Call(LocalAgent.Calls.Close, [9999]).Barrier().Loop(inner, 9);
        }

        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Finished);
        (await _session.Read64Async(_page)).Should().Be(2 * 10 * 5);
        foreach (IReadOnlyList<StepOutcome> thread in outcome.Threads)
        {
            thread.Select(s => s.Runs).Should().Equal(50, 50, 10, 10, 10);
            thread[2].Failures.Should().Be(10);
            thread[2].Errnos.Should().Equal(new Dictionary<int, ulong> { [(int)Errno.EBADF] = 10 });
            thread[2].MinNs.Should().BePositive().And.BeLessThanOrEqualTo(thread[2].MaxNs);
            thread[2].TotalNs.Should().BeGreaterThanOrEqualTo(thread[2].MaxNs + (9 * thread[2].MinNs));
        }
    }

    [Fact]
    public async Task ResultIsKeptWhereItIsWanted()
    {
        var program = new AgentProgram("results");
        program.Thread().Call(LocalAgent.Calls.Getpid, [], resultAt: _page).Call(LocalAgent.Calls.Close, [9999], resultAt: _page + 8);
        await _session.RunProgramAsync(program);
        (await _session.Read64Async(_page)).Should().Be((ulong)_session.Pid);
        ((long)await _session.Read64Async(_page + 8)).Should().Be(-(long)Errno.EBADF);
    }

    [Fact]
    public async Task MemoryIsStoredCopiedAndAwaited()
    {
        var program = new AgentProgram("memory");
        program.Thread().Await(_page + 24, 4, MemoryCondition.Equal, 7).Store(_page + 32, 2, 0x12345);
        program.Thread().Store(_page, 8, 7).Copy(_page + 24, _page, 8).Await(_page + 32, 8, MemoryCondition.AtLeast, 1);
        (await _session.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);
        (await _session.Read64Async(_page + 32)).Should().Be(0x2345);
    }

    [Fact]
    public async Task ThreadsMeetAtEveryBarrier()
    {
        // Between two barriers every thread adds one, so after the n-th all of them see n times their number.
        const int Threads = 4;
        const uint Turns = 200;
        var program = new AgentProgram("meet");
        for (int i = 0; i < Threads; i++)
        {
            ProgramThread thread = program.Thread();
            thread.Add(_page, 8, 1).Barrier().Copy(_page + 64 + ((ulong)i * 8), _page, 8).Barrier().Loop(0, Turns - 1);
        }

        (await _session.RunProgramAsync(program)).End.Should().Be(ProgramEnd.Finished);
        for (int i = 0; i < Threads; i++)
        {
            (await _session.Read64Async(_page + 64 + ((ulong)i * 8))).Should().Be(Threads * Turns);
        }
    }

    [Fact]
    public async Task BarrierDoesNotWaitForAThreadThatHasEnded()
    {
        var program = new AgentProgram("one leaves");
        program.Thread().Barrier().Barrier().Barrier();
        program.Thread().Barrier();
        program.Thread();
        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Finished);
        outcome.Threads[0].Select(s => s.Runs).Should().Equal(1, 1, 1);
    }

    [Fact]
    public async Task StopEndsEveryThreadWhereverItWaits()
    {
        int fd = await _session.EventFdAsync();
        var program = new AgentProgram("stop");
        program.Thread().Await(_page, 4, MemoryCondition.Equal, 1);
        program.Thread().Barrier();
        program.Thread().Call(LocalAgent.Calls.Read, [(ulong)fd, _page + 8, 8]);
        program.Thread().Add(_page + 16, 8, 1).Loop(0, 0);
        program.Thread().Await(_page + 16, 8, MemoryCondition.AtLeast, 100).Stop();
        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Stopped);
        outcome.Threads.Take(3).Select(t => t[0]).Should().OnlyContain(s => s.Runs == 0 && s.Failures == 0, "they were cut short");
        outcome.Threads[4][1].Runs.Should().Be(1);
    }

    [Fact]
    public async Task FailureStopsTheProgramWhereThatIsWanted()
    {
        var program = new AgentProgram("stop on failure");
        program.Thread().Call(LocalAgent.Calls.Close, [9999], stopOnFailure: true).Store(_page, 8, 1);
        program.Thread().Add(_page + 8, 8, 1).Loop(0, 0);
        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Stopped);
        outcome.Threads[0].Select(s => (s.Runs, s.Failures)).Should().Equal((1, 1), (0, 0));
        (await _session.Read64Async(_page)).Should().Be(0);
    }

    [Fact]
    public async Task ProgramThatBlocksEndsAtItsDeadline()
    {
        var program = new AgentProgram("block") { Deadline = s_soon };
        program.Thread().Await(_page, 4, MemoryCondition.Equal, 1);
        program.Thread().Barrier();
        program.Thread().Call(LocalAgent.Calls.Ppoll, [0, 0, 0, 0]);
        program.Thread().Loop(0, 0);
        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        outcome.End.Should().Be(ProgramEnd.Deadline);
        outcome.Elapsed.Should().BeGreaterThanOrEqualTo(s_soon);
    }

    [Fact]
    public async Task EveryKindOfErrorIsCounted()
    {
        int eventfd = await _session.EventFdAsync();
        var program = new AgentProgram("errors");
        program.Thread()
            .Call(LocalAgent.Calls.Ppoll, [16, 1, _page, 0])
            .Call(LocalAgent.Calls.Write, [(ulong)eventfd, _page, 4])
            .Call(LocalAgent.Calls.Close, [9999])
            .Loop(0, 99);
        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        outcome.Threads[0].Select(s => s.Errnos.SingleOrDefault()).Should().Equal(
            new((int)Errno.EFAULT, 100), new((int)Errno.EINVAL, 100), new((int)Errno.EBADF, 100), default);
        outcome.ToString().Should().StartWith("Finished after").And.EndWith(" ms; 100-100 100-100 100-100 100");
    }

    [Fact]
    public async Task ThreadRunsOnItsProcessor()
    {
        uint number = LocalAgent.Calls == SystemCalls.Arm64 ? 168u : 309u;
        uint last = _agent.Connection.Hello.Processors - 1;
        var program = new AgentProgram("getcpu");
        program.Thread(last).Call(number, [_page, 0, 0]);
        await _session.RunProgramAsync(program);
        ((uint)await _session.Read64Async(_page)).Should().Be(last);
    }

    [Fact]
    public async Task ProcessorThatIsNotThereIsRefused()
    {
        var program = new AgentProgram("nowhere");
        program.Thread().Add(_page, 8, 1).Loop(0, 0);
        program.Thread(1000).Store(_page, 8, 1);
        Func<Task> run = () => _session.RunProgramAsync(program);
        (await run.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EINVAL);
        (await _session.GetpidAsync()).Result.Should().Be(_session.Pid);
    }

    [Fact]
    public async Task ProgramsRunBesideEachOther()
    {
        var wait = new AgentProgram("wait");
        wait.Thread().Await(_page, 8, MemoryCondition.Equal, 1);
        Task<ProgramOutcome> waiting = _session.RunProgramAsync(wait);
        var set = new AgentProgram("set");
        set.Thread().Store(_page, 8, 1);
        await _session.RunProgramAsync(set);
        (await waiting).End.Should().Be(ProgramEnd.Finished);
    }

    [Fact]
    public async Task EmptyProgramEnds() => (await _session.RunProgramAsync(new AgentProgram("nothing"))).End.Should().Be(ProgramEnd.Finished);

    [Fact]
    public async Task StepsRunAtNativeSpeed()
    {
        const ulong Count = 1_000_000;
        var program = new AgentProgram("a million additions");
        program.Thread().Add(_page, 8, 1).Loop(0, Count - 1);
        ProgramOutcome outcome = await _session.RunProgramAsync(program);
        (await _session.Read64Async(_page)).Should().Be(Count);
        // A microsecond each would be a round trip's work, not a step's; a step takes a few nanoseconds.
        outcome.Elapsed.Should().BeLessThan(TimeSpan.FromSeconds(1));
    }

    [Fact]
    public void ImpossibleStepsAreRefusedWhereTheyAreMade()
    {
        ProgramThread thread = new AgentProgram("").Thread();
        thread.Invoking(t => t.Store(0, 3, 0)).Should().Throw<ArgumentOutOfRangeException>();
        thread.Invoking(t => t.Loop(1, 0)).Should().Throw<ArgumentOutOfRangeException>();
        thread.Invoking(t => t.Call(0, new ulong[7])).Should().Throw<ArgumentOutOfRangeException>();
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>The journal says what was asked and what came of it, also when nothing did, and never grows beyond its bounds.</summary>
public sealed class JournalTests
{
    [Fact]
    public async Task JournalIsThePlainStoryOfASession()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        int fd = await session.EventFdAsync();
        await session.CallAsync(new SystemCall(LocalAgent.Calls.Close, "close(9999)").Arg(9999));
        session.Journal.Note("the eventfd is read by two threads");
        Func<Task> refused = () => session.ReadAsync(16, 8);
        await refused.Should().ThrowAsync<AgentRefusedException>();
        Task<CallResult> pending = session.ReadEventFdAsync(fd, offload: true);
        string[] lines = session.Journal.ToText().Split('\n');
        lines[..4].Should().Equal(
            $"    0 eventfd() = {fd}",
            "    1 close(9999) = -1 EBADF",
            "    2 the eventfd is read by two threads",
            "    3 read 0x10+8 = read 0x10+8: the agent refused: 8 bytes at 0x10 cannot be read (EFAULT)");
        lines[4].Should().StartWith($"    4 read({fd}) = no answer after 0.");
        await session.SignalAsync(fd);
        await pending;
        session.Journal.ToText().Should().Contain($"    4 read({fd}) = 8\n");
    }

    [Fact]
    public async Task EntriesKeepRequestAndAnswer()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using AgentSession session = await agent.OpenAsync();
        ulong page = await session.MapAsync();
        byte[] data = [1, 2, 3];
        await session.WriteAsync(page, data);
        data[0] = 9;
        IReadOnlyList<JournalEntry> entries = session.Journal.Entries;
        entries[0].Request.Should().BeOfType<SystemCall>().Which.Arguments.Select(a => a.Value).Should().Equal(0, 4096, 3, 0x22, ulong.MaxValue, 0);
        entries[0].Answer.Should().BeOfType<CallResult>().Which.Result.Should().Be((long)page);
        MemoryWrite write = entries[1].Request.Should().BeOfType<MemoryWrite>().Subject;
        write.Data.ToArray().Should().Equal([1, 2, 3], "the journal keeps what was written, whatever becomes of the caller's memory");
    }

    [Fact]
    public void LongRunKeepsItsBeginningAndItsEnd()
    {
        Journal journal = new();
        for (int i = 0; i < 100_000; i++)
        {
            journal.Note($"step {i}");
        }

        journal.Count.Should().Be(100_000);
        journal.Entries.Should().HaveCountLessThan(2000);
        string[] lines = journal.ToText().Split('\n');
        lines[0].Should().Be("    0 step 0");
        lines[^2].Should().Be("99999 step 99999");
        lines.Should().ContainSingle(l => l.Contains("operations …", StringComparison.Ordinal)).Which.Should().Be($"      … {100_000 - journal.Entries.Count} operations …");
    }

    [Fact]
    public void RequestsThatAreTooBigTogetherAreNotKept()
    {
        Journal journal = new();
        for (int i = 0; i < 40; i++)
        {
            journal.Begin("big", new object(), 1 << 20);
        }

        journal.Entries.Count(e => e.Request is not null).Should().Be(16);
    }
}

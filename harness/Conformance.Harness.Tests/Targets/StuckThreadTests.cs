// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

public sealed class StuckThreadTests
{
    private const string Stack = "[<0>] __mutex_lock+0x2d4/0x9a0\n[<0>] kvm_vcpu_ioctl+0x108/0xa70\n";

    [Theory]
    [InlineData('D', 0u, 0u, 0u, "it sleeps uninterruptibly in __mutex_lock+0x2d4/0x9a0 and was not woken for 15 s")]
    [InlineData('D', 0u, 0u, 1u, null)]
    [InlineData('D', 0u, 1u, 0u, null)]
    [InlineData('S', 0u, 0u, 0u, null)]
    [InlineData('Z', 0u, 0u, 0u, null)]
    [InlineData('R', 0u, 700u, 40u, "it runs in the kernel in __mutex_lock+0x2d4/0x9a0, for 7 s of a processor's time")]
    [InlineData('R', 0u, 499u, 40u, null)]
    [InlineData('R', 1u, 700u, 40u, null)]
    public void ThreadIsStuckWhenItProvesIt(char state, uint user, uint system, uint switches, string? why)
    {
        ThreadSample then = ThreadSample.Parse(Stat(state, 5, 7), Status(100, 3), Stack);
        ThreadSample now = ThreadSample.Parse(Stat(state, 5 + user, 7 + system), Status(100, 3 + switches), Stack);
        StuckThread.Compare([then], [now])?.Reason.Should().Be(why is null ? null : $"killed, thread 43 does not end: {why}");
        (StuckThread.Compare([then], [now]) is null).Should().Be(why is null);
    }

    [Fact]
    public void ThreadThatIsGoneOrCameToSleepLaterIsNot()
    {
        ThreadSample asleep = ThreadSample.Parse(Stat('D', 5, 7), Status(1, 1), Stack);
        StuckThread.Compare([asleep], []).Should().BeNull();
        StuckThread.Compare([asleep with { State = 'R' }], [asleep]).Should().BeNull();
        StuckThread.Compare([asleep with { Thread = 44 }], [asleep]).Should().BeNull();
    }

    [Fact]
    public void KernelNeedNotTellTheStack()
    {
        ThreadSample asleep = ThreadSample.Parse(Stat('D', 5, 7), Status(1, 1), "");
        StuckThread.Compare([asleep], [asleep])!.Reason.Should().Contain("it sleeps uninterruptibly and was not woken");
    }

    // As a 6.12 kernel prints them, shortened.
    private static string Stat(char state, uint user, uint system) => $"43 (a (b) c) {state} 1 43 43 0 -1 4194624 96 0 0 0 {user} {system} 0 0 20 0 2 0 150 0 0";

    private static string Status(uint voluntary, uint other) =>
        $"Name:\ta (b) c\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{other}\n";
}

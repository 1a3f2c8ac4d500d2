// SPDX-License-Identifier: MIT
using System.Text;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Wire;

/// <summary>System calls and memory of a session, on this machine's kernel.</summary>
public sealed class SessionTests : IAsyncLifetime
{
    private LocalAgent _agent = null!;
    private AgentSession _session = null!;

    public async ValueTask InitializeAsync()
    {
        _agent = await LocalAgent.StartAsync();
        _session = await _agent.OpenAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _session.DisposeAsync();
        await _agent.DisposeAsync();
    }

    [Fact]
    public async Task EventFdCountsWhatWasWritten()
    {
        int fd = await _session.EventFdAsync(3);
        await _session.SignalAsync(fd, 4);
        CallResult read = await _session.ReadEventFdAsync(fd);
        read.Result.Should().Be(8);
        BitConverter.ToInt64(read.Buffers[0]).Should().Be(7);
    }

    [Fact]
    public async Task FailureIsAnAnswer()
    {
        CallResult close = await _session.CallAsync(new SystemCall(LocalAgent.Calls.Close, "close(9999)").Arg(9999));
        close.Should().Match<CallResult>(c => c.Result == -1 && c.Errno == (int)Errno.EBADF);
        close.ToString().Should().Be("-1 EBADF");
    }

    [Fact]
    public async Task PointersInsideBuffersLeadToTheirBuffers()
    {
        int fd = (int)(await _session.CallAsync(new SystemCall(LocalAgent.Calls.MemfdCreate, "memfd()").In("x\0"u8).Arg(0))).Result;
        uint number = LocalAgent.Calls == SystemCalls.Arm64 ? 66u : 20u;
        var writev = new SystemCall(number, "writev()").Arg(fd).In([.. new byte[8], 3, 0, 0, 0, 0, 0, 0, 0, .. new byte[8], 2, 0, 0, 0, 0, 0, 0, 0]).Arg(2);
        writev.Pointer(0, 0, writev.Attach("abc"u8, 3, returned: false)).Pointer(0, 16, writev.Attach("xde"u8, 3, returned: false), addend: 1);
        (await _session.CallAsync(writev)).Result.Should().Be(5);
        CallResult read = await _session.CallAsync(new SystemCall(LocalAgent.Calls.Pread64, "pread()").Arg(fd).Out(5).Arg(5).Arg(0));
        Encoding.ASCII.GetString(read.Buffers[0]).Should().Be("abcde");
    }

    [Fact]
    public async Task CallsThatBuildOnEachOtherAreSentAtOnce()
    {
        KeptResult memfd = _session.Keep(), memory = _session.Keep();
        Task<CallResult> opened = _session.CallAsync(new SystemCall(LocalAgent.Calls.MemfdCreate, "memfd()").In("x\0"u8).Arg(0).KeepAs(memfd));
        Task<CallResult> written = _session.CallAsync(new SystemCall(LocalAgent.Calls.Pwrite64, "pwrite()").Arg(memfd).In("abc"u8).Arg(3).Arg(0));
        Task<CallResult> mapped = _session.CallAsync(new SystemCall(LocalAgent.Calls.Mmap, "mmap()").Arg(0).Arg(4096).Arg(3).Arg(0x22).Arg(-1).Arg(0).KeepAs(memory));
        Task<CallResult> read = _session.CallAsync(new SystemCall(LocalAgent.Calls.Pread64, "pread()").Arg(memfd).Arg(memory, 16).Arg(3).Arg(0));
        await Task.WhenAll(opened, written, mapped, read);

        Encoding.ASCII.GetString(await _session.ReadAsync((ulong)(await mapped).Result + 16, 3)).Should().Be("abc");
    }

    [Fact]
    public async Task KeptAddressGoesIntoAStructure()
    {
        KeptResult memory = _session.Keep();
        Task<CallResult> mapped = _session.CallAsync(new SystemCall(LocalAgent.Calls.Mmap, "mmap()").Arg(0).Arg(4096).Arg(3).Arg(0x22).Arg(-1).Arg(0).KeepAs(memory));
        Task<CallResult> called = _session.CallAsync(new SystemCall(LocalAgent.Calls.Getpid, "getpid()").InOut(new byte[16], 16).Pointer(0, 8, memory));

        BitConverter.ToInt64((await called).Buffers[0], 8).Should().Be((await mapped).Result);
    }

    [Fact]
    public async Task CallMadeWithTheResultOfAFailedCallIsRefused()
    {
        KeptResult fd = _session.Keep();
        Task<CallResult> failed = _session.CallAsync(new SystemCall(LocalAgent.Calls.Dup, "dup(9999)").Arg(9999).KeepAs(fd));
        Func<Task> asked = () => _session.CallAsync(new SystemCall(LocalAgent.Calls.Close, "close()").Arg(fd));

        (await asked.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.ECANCELED);
        (await failed).Errno.Should().Be((int)Errno.EBADF);
    }

    [Fact]
    public async Task OffloadedCallThatKeepsItsResultEndsItsSession()
    {
        await using AgentSession session = await _agent.OpenAsync();
        Func<Task> asked = () => session.CallAsync(new SystemCall(LocalAgent.Calls.Getpid, "getpid()").KeepAs(session.Keep()), offload: true);

        (await asked.Should().ThrowAsync<SessionEndedException>()).Which.End.Reason.Should().Be("CALL: 64 results can be kept, and none of an offloaded call");
    }

    [Fact]
    public async Task AttachedBufferComesBackFilled()
    {
        await using AgentSession session = await _agent.OpenAsync();
        int fd = await session.EventFdAsync(5);
        uint number = LocalAgent.Calls == SystemCalls.Arm64 ? 65u : 19u;
        var readv = new SystemCall(number, "readv()").Arg(fd).In([.. new byte[8], 8, 0, 0, 0, 0, 0, 0, 0]).Arg(1);
        CallResult result = await session.CallAsync(readv.Pointer(0, 0, readv.Attach([], 8, returned: true)));
        BitConverter.ToInt64(result.Buffers.Should().ContainSingle().Subject).Should().Be(5);
    }

    [Fact]
    public async Task BufferIsZeroBehindItsContentWhateverWasThereBefore()
    {
        // The kernel writes 32 bytes into a buffer that claims 16: none of them may be seen by a later call.
        int fd = (int)(await _session.CallAsync(new SystemCall(LocalAgent.Calls.MemfdCreate, "memfd()").In("x\0"u8).Arg(0))).Result;
        byte[] ones = [.. Enumerable.Repeat((byte)0xff, 64)];
        await _session.CallAsync(new SystemCall(LocalAgent.Calls.Pwrite64, "pwrite()").Arg(fd).In(ones).Arg(64).Arg(0));
        await _session.CallAsync(new SystemCall(LocalAgent.Calls.Pread64, "pread()").Arg(fd).Out(16).Arg(32).Arg(0));
        CallResult next = await _session.CallAsync(new SystemCall(LocalAgent.Calls.Getpid, "getpid()").InOut([1, 2], 64));
        next.Buffers[0].Should().Equal([1, 2, .. new byte[62]]);
    }

    [Fact]
    public async Task AccessBehindALargeBufferFaults()
    {
        int fd = (int)(await _session.CallAsync(new SystemCall(LocalAgent.Calls.MemfdCreate, "memfd()").In("x\0"u8).Arg(0))).Result;
        const int Size = 64 << 10;
        CallResult write = await _session.CallAsync(new SystemCall(LocalAgent.Calls.Write, "write()").Arg(fd).In(new byte[Size]).Arg(Size + 1));
        write.Should().Match<CallResult>(w => w.Errno == (int)Errno.EFAULT || w.Result == Size);
        CallResult beyond = await _session.CallAsync(new SystemCall(LocalAgent.Calls.Pread64, "pread()").Arg(fd).In(new byte[Size * 2]).Arg(Size).Arg(0));
        beyond.Result.Should().Be(Size);
    }

    [Fact]
    public async Task MegabytesGoBothWays()
    {
        byte[] data = new byte[20 << 20];
        new Random(1).NextBytes(data);
        ulong address = await _session.MapAsync((ulong)data.Length);
        await _session.WriteAsync(address, data);
        (await _session.ReadAsync(address, data.Length)).AsSpan().SequenceEqual(data).Should().BeTrue();
    }

    [Fact]
    public async Task RequestsInFlightAreAnsweredInOrder()
    {
        ulong address = await _session.MapAsync();
        Task[] writes = [.. Enumerable.Range(1, 500).Select(i => _session.WriteAsync(address, BitConverter.GetBytes((ulong)i)))];
        (await _session.Read64Async(address)).Should().Be(500);
        await Task.WhenAll(writes);
    }

    [Fact]
    public async Task MemoryThatIsNotMappedIsRefusedAndTheSessionLives()
    {
        ulong page = await _session.MapAsync(2 * Syscalls.PageSize);
        await _session.CallAsync(new SystemCall(LocalAgent.Calls.Munmap, "munmap()").Arg(page + Syscalls.PageSize).Arg(Syscalls.PageSize));
        Func<Task>[] accesses =
        [
            () => _session.ReadAsync(16, 8),
            () => _session.WriteAsync(16, new byte[3]),
            () => _session.ReadAsync(page, Syscalls.PageSize + 1),
            () => _session.WriteAsync(page + Syscalls.PageSize - 4, new byte[8]),
            () => _session.AwaitAsync(16, 8, MemoryCondition.Equal, 0, TimeSpan.Zero),
        ];
        foreach (Func<Task> access in accesses)
        {
            (await access.Should().ThrowAsync<AgentRefusedException>()).Which.Error.Should().Be(-(int)Errno.EFAULT);
        }

        (await _session.GetpidAsync()).Result.Should().Be(_session.Pid);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(8)]
    [InlineData(9)]
    public async Task EveryWidthIsReadAndWritten(int width)
    {
        ulong address = await _session.MapAsync();
        byte[] value = [.. Enumerable.Range(1, width).Select(i => (byte)i)];
        foreach (ulong at in new[] { address, address + 101 })
        {
            await _session.WriteAsync(at, value);
            (await _session.ReadAsync(at, width + 1)).Should().Equal([.. value, 0]);
        }
    }

    [Fact]
    public async Task OffloadedCallDoesNotBlockTheSession()
    {
        int fd = await _session.EventFdAsync();
        Task<CallResult> blocked = _session.ReadEventFdAsync(fd, offload: true);
        await _session.SignalAsync(fd);
        (await blocked).Result.Should().Be(8);
    }

    [Fact]
    public async Task MemoryIsAwaited()
    {
        ulong page = await _session.MapAsync();
        Task<(bool Met, ulong Value)> awaited = _session.AwaitAsync(page, 4, MemoryCondition.AtLeast, 5, TimeSpan.FromSeconds(30));
        await _session.WriteAsync(page, BitConverter.GetBytes(6));
        (await awaited).Should().Be((true, 6ul));
        (await _session.AwaitAsync(page, 4, MemoryCondition.Equal, 7, TimeSpan.FromMilliseconds(1))).Should().Be((false, 6ul));
        (await _session.AwaitAsync(page, 1, MemoryCondition.Equal, 2, TimeSpan.Zero, mask: 0xfb)).Should().Be((true, 2ul));
        (await _session.AwaitAsync(page, 2, MemoryCondition.Less, 7, TimeSpan.Zero)).Should().Be((true, 6ul));
        (await _session.AwaitAsync(page, 8, MemoryCondition.NotEqual, 0, TimeSpan.Zero)).Should().Be((true, 6ul));
    }

    [Fact]
    public async Task DeadlineNamesTheOperationAndTheSessionIsStillClosed()
    {
        await using AgentSession session = await _agent.OpenAsync();
        int fd = await session.EventFdAsync();
        using var deadline = new CancellationTokenSource(TimeSpan.FromMilliseconds(30));
        session.Deadline = deadline.Token;
        Func<Task> read = () => session.CallAsync(new SystemCall(LocalAgent.Calls.Read, "read(eventfd A)").Arg(fd).Out(8).Arg(8));
        SessionDeadlineException expired = (await read.Should().ThrowAsync<SessionDeadlineException>()).Which;
        expired.Operation.Should().Be("read(eventfd A)");
        expired.Waited.Should().BeGreaterThan(TimeSpan.FromMilliseconds(20));
        session.Journal.ToText().Should().Contain("read(eventfd A) = no answer within 0.0 s");
        Func<Task> late = () => session.GetpidAsync();
        await late.Should().ThrowAsync<SessionDeadlineException>();
    }

    [Theory]
    [InlineData("00", "CALL: its head is cut short")]
    [InlineData("{head:0,0}00", "CALL: something follows its end")]
    [InlineData("{head:65,0}", "CALL: more than 64 buffers or 256 relocations")]
    [InlineData("{head:1,0}", "CALL: its buffers are cut short")]
    [InlineData("{head:1,0}04000000 00000000 05000000 0000000000", "CALL: a buffer's content is longer than its capacity")]
    [InlineData("{head:1,0}04000000 02000000 00000000", "CALL: a buffer has unknown flags")]
    [InlineData("{head:1,0}01000001 00000000 00000000", "CALL: a buffer is longer than 16 MiB")]
    [InlineData("{head:2,0}00008000 01000000 00000000 00008000 01000000 00000000", "CALL: what it wants back does not fit into a reply")]
    [InlineData("{head:0,1}", "CALL: its relocations are cut short")]
    [InlineData("{head:0,1}00000000 00000000 00000000 00000000", "CALL: a relocation names a buffer or a result that is not there")]
    [InlineData("{head:1,1}08000000 00000000 00000000 00000000 01000000 00000000 00000000", "CALL: a relocation lies outside its buffer")]
    [InlineData("{head:1,1}04000000 00000000 00000000 00000000 fcffffff 00000000 00000000", "CALL: a relocation lies outside its buffer")]
    public async Task MalformedCallEndsItsSessionAndSaysWhy(string payload, string reason)
    {
        await using AgentSession session = await _agent.OpenAsync();
        byte[] bytes = Encode(payload);
        Func<Task> malformed = () => session.AskAsync(FrameKind.Call, "malformed", null, false, bytes, static (w, b) => w.Raw(b));
        await malformed.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Reason.Should().Be(reason);
        (await _session.GetpidAsync()).Result.Should().Be(_session.Pid);
    }

    [Theory]
    [InlineData(FrameKind.Read, 11, "READ: 12 bytes are wanted")]
    [InlineData(FrameKind.Read, 13, "READ: 12 bytes are wanted")]
    [InlineData(FrameKind.Write, 13, "WRITE: its length is not that of its data")]
    [InlineData(FrameKind.Await, 39, "AWAIT: 40 bytes are wanted")]
    [InlineData(FrameKind.Await, 40, "AWAIT: there is no such width or condition")]
    [InlineData(FrameKind.VcpuKick, 3, "a request to a vCPU thread is cut short or too long")]
    [InlineData(FrameKind.VcpuKick, 5, "a request to a vCPU thread is cut short or too long")]
    [InlineData(FrameKind.VcpuStart, 20, "VCPU_START: more than 64 ranges")]
    [InlineData(FrameKind.Program, 8, "PROGRAM: more than 64 threads")]
    [InlineData(FrameKind.Program, 13, "PROGRAM: something follows its end")]
    public async Task RequestOfTheWrongLengthEndsItsSessionAndSaysWhy(FrameKind kind, int length, string reason)
    {
        await using AgentSession session = await _agent.OpenAsync();
        Func<Task> malformed = () => session.AskAsync(kind, "malformed", null, false, length, static (w, n) => w.Raw(new byte[n]));
        await malformed.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Reason.Should().Be(reason);
    }

    [Fact]
    public async Task FaultOfTheSessionsOwnThreadsNamesTheAddress()
    {
        await using AgentSession session = await _agent.OpenAsync();
        var program = new AgentProgram("store to nowhere");
        program.Thread().Store(await session.MapAsync(), 8, 1).Store(0x1000, 8, 1);
        Func<Task> run = () => session.RunProgramAsync(program);
        await run.Should().ThrowAsync<SessionEndedException>();
        (await session.Ended).Reason.Should().StartWith("program thread 0, step 1, touched 0x1000: signal 11 (Segmentation fault, code 1 at 0x");
    }

    [Fact]
    public async Task RequestThatIsTooLongIsNotSent()
    {
        var call = new SystemCall(LocalAgent.Calls.Getpid, "getpid()").In(new byte[12 << 20]).In(new byte[5 << 20]);
        Func<Task> ask = () => _session.CallAsync(call);
        await ask.Should().ThrowAsync<ArgumentException>();
        (await _session.GetpidAsync()).Result.Should().Be(_session.Pid);
    }

    private static byte[] Encode(string text)
    {
        if (text.StartsWith('{'))
        {
            string[] counts = text[(text.IndexOf(':', StringComparison.Ordinal) + 1)..text.IndexOf('}', StringComparison.Ordinal)].Split(',');
            byte[] head = [.. BitConverter.GetBytes(LocalAgent.Calls.Getpid), byte.Parse(counts[0]), 0, byte.Parse(counts[1]), 0, .. new byte[48], .. Enumerable.Repeat((byte)0xff, 6), 0, 0];
            return [.. head, .. Hex(text[(text.IndexOf('}', StringComparison.Ordinal) + 1)..])];
        }

        return Hex(text);
    }

    private static byte[] Hex(string text) => Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal));
}

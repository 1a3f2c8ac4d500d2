// SPDX-License-Identifier: MIT
using System.Buffers;
using System.IO.Pipelines;
using System.Text;
using System.Text.Json;
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

public sealed class QmpClientTests
{
    private const string Greeting = """{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}""";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task OpenReadsTheVersionAndEntersCommandMode()
    {
        await using Monitor monitor = new();
        await using QmpClient client = await monitor.OpenAsync();
        client.Version.Should().Be("7.2.22");
    }

    [Fact]
    public async Task AnswersReachTheirCommandsInAnyOrder()
    {
        await using Monitor monitor = new();
        await using QmpClient client = await monitor.OpenAsync();
        Task<JsonElement> first = client.ExecuteAsync("query-a", null, Cancellation);
        Task<JsonElement> second = client.ExecuteAsync("query-b", json => json.WriteBoolean("x", true), Cancellation);
        JsonElement a = await monitor.ReadAsync(), b = await monitor.ReadAsync();
        b.GetProperty("arguments").GetProperty("x").GetBoolean().Should().BeTrue();
        monitor.Write($$"""{"return": "b", "id": {{b.GetProperty("id")}}}""" + "\r\n" + $$"""{"return": "a", "id": {{a.GetProperty("id")}}}""");
        (await first).GetString().Should().Be("a");
        (await second).GetString().Should().Be("b");
    }

    [Fact]
    public async Task RefusalNamesTheCommandAndTheReason()
    {
        await using Monitor monitor = new();
        await using QmpClient client = await monitor.OpenAsync();
        Task<JsonElement> answer = client.ExecuteAsync("migrate", null, Cancellation);
        JsonElement asked = await monitor.ReadAsync();
        monitor.Write($$"""{"error": {"class": "GenericError", "desc": "State blocked"}, "id": {{asked.GetProperty("id")}}}""");
        (await answer.Invoking(async a => await a).Should().ThrowAsync<QmpException>()).WithMessage("QEMU refused migrate: State blocked");
    }

    [Fact]
    public async Task EventsReachWhoeverWaitsForThem()
    {
        await using Monitor monitor = new();
        await using QmpClient client = await monitor.OpenAsync();
        Task<QmpEvent> done = client.NextEventAsync("MIGRATION", data => data.GetProperty("status").GetString() == "completed");
        monitor.Write("""{"event": "MIGRATION", "data": {"status": "active"}, "timestamp": {"seconds": 1, "microseconds": 2}}""");
        monitor.Write("""{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}""");
        monitor.Write("""{"event": "MIGRATION", "data": {"status": "completed"}, "timestamp": {"seconds": 1, "microseconds": 2}}""");
        (await done).Data.GetProperty("status").GetString().Should().Be("completed");
    }

    [Fact]
    public async Task EverythingPendingFailsWhenQemuHangsUp()
    {
        await using Monitor monitor = new();
        await using QmpClient client = await monitor.OpenAsync();
        Task<JsonElement> answer = client.ExecuteAsync("query-a", null, Cancellation);
        Task<QmpEvent> happens = client.NextEventAsync("SHUTDOWN");
        monitor.HangUp();
        await answer.Invoking(async a => await a).Should().ThrowAsync<EndOfStreamException>();
        await happens.Invoking(async h => await h).Should().ThrowAsync<EndOfStreamException>();
        await client.Completion;
        await client.Invoking(c => c.ExecuteAsync("query-a", null, Cancellation)).Should().ThrowAsync<EndOfStreamException>();
    }

    [Fact]
    public async Task NonsenseEndsTheConnectionWithItsText()
    {
        await using Monitor monitor = new();
        await using QmpClient client = await monitor.OpenAsync();
        Task<JsonElement> answer = client.ExecuteAsync("query-a", null, Cancellation);
        monitor.Write("qemu-system-x86_64: Speicherzugriffsfehler");
        (await answer.Invoking(async a => await a).Should().ThrowAsync<EndOfStreamException>())
            .WithInnerException<InvalidDataException>().WithMessage("*Speicherzugriffsfehler*");
    }

    private sealed class Monitor : IAsyncDisposable
    {
        private readonly Pipe _toClient = new();
        private readonly Pipe _fromClient = new();
        private readonly StreamReader _commands;

        public Monitor() => _commands = new StreamReader(_fromClient.Reader.AsStream());

        public async Task<QmpClient> OpenAsync()
        {
            Task<QmpClient> opening = QmpClient.OpenAsync(new Both(_toClient.Reader.AsStream(), _fromClient.Writer.AsStream(), HangUp), Cancellation);
            Write(Greeting);
            JsonElement asked = await ReadAsync();
            asked.GetProperty("execute").GetString().Should().Be("qmp_capabilities");
            Write($$"""{"return": {}, "id": {{asked.GetProperty("id")}}}""");
            return await opening;
        }

        public async Task<JsonElement> ReadAsync() => JsonDocument.Parse((await _commands.ReadLineAsync(Cancellation))!).RootElement;

        public void Write(string line)
        {
            _toClient.Writer.Write(Encoding.UTF8.GetBytes(line + "\r\n"));
            _toClient.Writer.FlushAsync(Cancellation).AsTask().GetAwaiter().GetResult();
        }

        public void HangUp() => _toClient.Writer.Complete();

        public ValueTask DisposeAsync()
        {
            _toClient.Writer.Complete();
            _commands.Dispose();
            return ValueTask.CompletedTask;
        }
    }

    private sealed class Both(Stream read, Stream write, Action closed) : Stream
    {
        public override bool CanRead => true;

        public override bool CanWrite => true;

        public override bool CanSeek => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override void Flush() => write.Flush();

        public override int Read(byte[] buffer, int offset, int count) => read.Read(buffer, offset, count);

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) => read.ReadAsync(buffer, cancellationToken);

        public override void Write(byte[] buffer, int offset, int count) => write.Write(buffer, offset, count);

        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            await write.WriteAsync(buffer, cancellationToken);
            await write.FlushAsync(cancellationToken);
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            // A reader waiting on a pipe is only woken by its other end; a socket wakes by itself.
            closed();
            write.Dispose();
            base.Dispose(disposing);
        }
    }
}

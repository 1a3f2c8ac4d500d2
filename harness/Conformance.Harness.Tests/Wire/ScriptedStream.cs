// SPDX-License-Identifier: MIT
using System.Threading.Channels;

namespace Conformance.Harness.Tests.Wire;

/// <summary>The other end of a connection: each write is answered with the next of the given frames; after the last the stream ends.</summary>
internal sealed class ScriptedStream(IReadOnlyList<byte[]> answers, bool ends = false) : Stream
{
    private readonly Channel<byte[]> _answers = Channel.CreateUnbounded<byte[]>();
    private readonly List<byte[]> _written = [];
    private ReadOnlyMemory<byte> _rest;

    public IReadOnlyList<byte[]> Written => _written;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (_rest.IsEmpty)
        {
            if (!await _answers.Reader.WaitToReadAsync(cancellationToken))
            {
                return 0;
            }

            _rest = await _answers.Reader.ReadAsync(cancellationToken);
        }

        int count = Math.Min(buffer.Length, _rest.Length);
        _rest[..count].CopyTo(buffer);
        _rest = _rest[count..];
        return count;
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (_written.Count < answers.Count)
        {
            _answers.Writer.TryWrite(answers[_written.Count]);
        }

        _written.Add(buffer.ToArray());
        if (ends && _written.Count >= answers.Count)
        {
            _answers.Writer.TryComplete();
        }

        return ValueTask.CompletedTask;
    }

    public override void Flush()
    {
    }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}

// SPDX-License-Identifier: MIT
using System.Buffers;
using System.Text;
using System.Text.Json;

namespace Conformance.Targets;

/// <summary>An event QEMU announced.</summary>
/// <param name="Name">Such as <c>SHUTDOWN</c>.</param>
/// <param name="Data">Its data; undefined when it has none.</param>
public sealed record QmpEvent(string Name, JsonElement Data);

/// <summary>
/// A QEMU monitor connection (docs/interop/qmp-spec). Commands may be issued from several callers at once; each gets its own answer.
/// When the connection ends, every pending command and wait fails with <see cref="EndOfStreamException"/>.
/// </summary>
public sealed class QmpClient : IAsyncDisposable
{
    private readonly Stream _stream;
    private readonly SemaphoreSlim _writing = new(1, 1);
    private readonly Lock _lock = new();
    private readonly Dictionary<long, (string Command, TaskCompletionSource<JsonElement> Answer)> _pending = [];
    private readonly List<(string Name, Func<JsonElement, bool>? Filter, TaskCompletionSource<QmpEvent> Seen)> _waits = [];
    private readonly TaskCompletionSource<string> _greeting = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _reading;
    private long _lastId;
    private Exception? _ended;

    private QmpClient(Stream stream)
    {
        _stream = stream;
        _reading = ReadAsync();
    }

    /// <summary>QEMU's version: <c>7.2.22</c>.</summary>
    public string Version { get; private set; } = "";

    /// <summary>Ends when QEMU closed the connection.</summary>
    public Task Completion => _reading;

    /// <summary>Takes the greeting and enters command mode. The client owns <paramref name="stream"/>.</summary>
    /// <exception cref="EndOfStreamException">QEMU hung up.</exception>
    public static async Task<QmpClient> OpenAsync(Stream stream, CancellationToken cancellation)
    {
        QmpClient client = new(stream);
        try
        {
            client.Version = await client._greeting.Task.WaitAsync(cancellation).ConfigureAwait(false);
            await client.ExecuteAsync("qmp_capabilities", null, cancellation).ConfigureAwait(false);
            return client;
        }
        catch
        {
            await client.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Runs a command and gives what it returned.</summary>
    /// <param name="command">Name of the command.</param>
    /// <param name="arguments">Writes the members of the arguments object; null for none.</param>
    /// <exception cref="QmpException">QEMU refused it.</exception>
    /// <exception cref="EndOfStreamException">QEMU went away.</exception>
    public async Task<JsonElement> ExecuteAsync(string command, Action<Utf8JsonWriter>? arguments, CancellationToken cancellation)
    {
        TaskCompletionSource<JsonElement> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        long id;
        lock (_lock)
        {
            if (_ended is not null)
            {
                throw Gone();
            }

            id = ++_lastId;
            _pending.Add(id, (command, answer));
        }

        ArrayBufferWriter<byte> line = new(128);
        using (Utf8JsonWriter json = new(line))
        {
            json.WriteStartObject();
            json.WriteString("execute", command);
            if (arguments is not null)
            {
                json.WriteStartObject("arguments");
                arguments(json);
                json.WriteEndObject();
            }

            json.WriteNumber("id", id);
            json.WriteEndObject();
        }

        line.Write("\n"u8);
        await _writing.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            await _stream.WriteAsync(line.WrittenMemory, cancellation).ConfigureAwait(false);
        }
        catch (IOException)
        {
            // The reader sees the same hang-up and fails the answer with it; that one message is enough.
            await _reading.WaitAsync(cancellation).ConfigureAwait(false);
        }
        finally
        {
            _writing.Release();
        }

        return await answer.Task.WaitAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Runs a command of the human monitor and gives its text.</summary>
    public async Task<string> HumanAsync(string commandLine, CancellationToken cancellation)
    {
        JsonElement text = await ExecuteAsync("human-monitor-command", json => json.WriteString("command-line", commandLine), cancellation)
            .ConfigureAwait(false);
        return (text.GetString() ?? "").Replace("\r", "", StringComparison.Ordinal);
    }

    /// <summary>The next event of this name after the call. Ask before sending what causes it.</summary>
    /// <param name="filter">Which of them; null for any.</param>
    public Task<QmpEvent> NextEventAsync(string name, Func<JsonElement, bool>? filter = null)
    {
        TaskCompletionSource<QmpEvent> seen = new(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            if (_ended is not null)
            {
                return Task.FromException<QmpEvent>(Gone());
            }

            _waits.Add((name, filter, seen));
        }

        return seen.Task;
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _stream.DisposeAsync().ConfigureAwait(false);
        await _reading.ConfigureAwait(false);
    }

    private EndOfStreamException Gone() => new("QEMU closed its monitor.", _ended);

    private async Task ReadAsync()
    {
        Exception ended = new EndOfStreamException("The monitor's stream ended.");
        byte[] buffer = new byte[8192];
        int filled = 0;
        try
        {
            while (true)
            {
                if (filled == buffer.Length)
                {
                    Array.Resize(ref buffer, buffer.Length * 2);
                }

                int read = await _stream.ReadAsync(buffer.AsMemory(filled)).ConfigureAwait(false);
                if (read == 0)
                {
                    break;
                }

                int searched = filled;
                filled += read;
                int start = 0;
                while (buffer.AsSpan(searched, filled - searched).IndexOf((byte)'\n') is >= 0 and int at)
                {
                    Take(buffer.AsMemory(start, searched + at - start));
                    start = searched = searched + at + 1;
                }

                buffer.AsSpan(start, filled - start).CopyTo(buffer);
                filled -= start;
            }
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            ended = new InvalidDataException($"QEMU's monitor said something else than its protocol: {Encoding.UTF8.GetString(buffer, 0, Math.Min(filled, 200))}", e);
        }
        catch (Exception e)
        {
            ended = e;
        }

        End(ended);
    }

    private void Take(ReadOnlyMemory<byte> line)
    {
        if (line.Span.Trim(" \r\t"u8).IsEmpty)
        {
            return;
        }

        using JsonDocument document = JsonDocument.Parse(line);
        JsonElement message = document.RootElement;
        if (message.TryGetProperty("event", out JsonElement name))
        {
            Announce(new QmpEvent(name.GetString()!, message.TryGetProperty("data", out JsonElement data) ? data.Clone() : default));
        }
        else if (message.TryGetProperty("QMP", out JsonElement greeting))
        {
            JsonElement version = greeting.GetProperty("version").GetProperty("qemu");
            _greeting.TrySetResult(string.Create(null, stackalloc char[32],
                $"{version.GetProperty("major").GetInt32()}.{version.GetProperty("minor").GetInt32()}.{version.GetProperty("micro").GetInt32()}"));
        }
        else if (message.TryGetProperty("id", out JsonElement id))
        {
            Answer(id.GetInt64(), message);
        }
    }

    private void Answer(long id, JsonElement message)
    {
        (string Command, TaskCompletionSource<JsonElement> Answer) asked;
        lock (_lock)
        {
            if (!_pending.Remove(id, out asked))
            {
                return;
            }
        }

        if (message.TryGetProperty("error", out JsonElement error))
        {
            asked.Answer.SetException(new QmpException(asked.Command,
                error.GetProperty("class").GetString() ?? "", error.GetProperty("desc").GetString() ?? ""));
        }
        else
        {
            asked.Answer.SetResult(message.GetProperty("return").Clone());
        }
    }

    private void Announce(QmpEvent happened)
    {
        List<TaskCompletionSource<QmpEvent>> seen = [];
        lock (_lock)
        {
            _waits.RemoveAll(wait =>
            {
                bool matches = wait.Name == happened.Name && (wait.Filter is null || wait.Filter(happened.Data));
                if (matches)
                {
                    seen.Add(wait.Seen);
                }

                return matches;
            });
        }

        foreach (TaskCompletionSource<QmpEvent> one in seen)
        {
            one.SetResult(happened);
        }
    }

    private void End(Exception ended)
    {
        List<Action<Exception>> fail = [];
        lock (_lock)
        {
            _ended = ended;
            foreach ((_, TaskCompletionSource<JsonElement> answer) in _pending.Values)
            {
                fail.Add(e => answer.TrySetException(e));
            }

            foreach ((_, _, TaskCompletionSource<QmpEvent> seen) in _waits)
            {
                fail.Add(e => seen.TrySetException(e));
            }

            _pending.Clear();
            _waits.Clear();
        }

        fail.Add(e => _greeting.TrySetException(e));
        foreach (Action<Exception> one in fail)
        {
            one(Gone());
        }
    }
}

// SPDX-License-Identifier: MIT
namespace Conformance.Results;

/// <summary>
/// The append-only record of one suite on one kernel. Every line reaches the kernel in one write before <see cref="Append"/>
/// returns, so killing the process loses nothing. A line that does not fit on the disk is taken back whole, and the next is tried again.
/// </summary>
public sealed class ResultsJournal : IDisposable
{
    private const string Start = "verdicts-";
    private const string End = ".jsonl";

    private readonly Lock _lock = new();
    private readonly FileStream _file;

    private ResultsJournal(FileStream file) => _file = file;

    /// <summary>Why a line could not be written, once that has happened.</summary>
    public string? Fault { get; private set; }

    /// <summary>The journal's path for a suite.</summary>
    /// <param name="folder">The kernel's folder.</param>
    /// <param name="suite">The suite's name.</param>
    public static string PathFor(string folder, string suite) => Path.Combine(folder, Start + suite + End);

    /// <summary>The journals in a kernel's folder, ordered by suite.</summary>
    /// <param name="folder">The kernel's folder.</param>
    public static IReadOnlyList<string> In(string folder) =>
        [.. Directory.EnumerateFiles(folder, Start + "*" + End).Order(StringComparer.Ordinal)];

    /// <summary>Opens a suite's journal, keeping what is in it.</summary>
    /// <param name="folder">The kernel's folder; created when it is not there.</param>
    /// <param name="suite">The suite's name.</param>
    /// <exception cref="IOException">The folder or file cannot be created.</exception>
    public static ResultsJournal Open(string folder, string suite)
    {
        Directory.CreateDirectory(folder);
        FileStream file = new(PathFor(folder, suite), new FileStreamOptions
        {
            Mode = FileMode.OpenOrCreate,
            Access = FileAccess.ReadWrite,
            Share = FileShare.ReadWrite,
            BufferSize = 0,
        });
        ResultsJournal journal = new(file);
        journal.DropTornEnd();
        return journal;
    }

    /// <summary>Reads a journal, whole lines only.</summary>
    /// <param name="path">The file.</param>
    public static IReadOnlyList<JournalLine> Read(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using StreamReader reader = new(file);
        List<JournalLine> lines = [];
        while (reader.ReadLine() is { } text)
        {
            if (JournalLine.Parse(text) is { } line)
            {
                lines.Add(line);
            }
        }

        return lines;
    }

    /// <summary>Appends a line.</summary>
    /// <param name="line">The line.</param>
    /// <returns>False when it could not be stored; <see cref="Fault"/> then says why.</returns>
    public bool Append(JournalLine line)
    {
        byte[] bytes = line.ToBytes();
        lock (_lock)
        {
            long start = 0;
            try
            {
                start = _file.CanSeek ? _file.Position : 0;
                _file.Write(bytes);
                return true;
            }
            catch (IOException failure)
            {
                Fault ??= $"cannot write {_file.Name}: {failure.Message}";
                TakeBack(start);
                return false;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private void TakeBack(long length)
    {
        try
        {
            if (_file.CanSeek)
            {
                _file.SetLength(length);
                _file.Position = length;
            }
        }
        catch (IOException failure)
        {
            Fault = $"{Fault}; and its torn end stays: {failure.Message}";
        }
    }

    private void DropTornEnd()
    {
        if (!_file.CanSeek || _file.Length == 0)
        {
            return;
        }

        long end = _file.Length;
        Span<byte> last = stackalloc byte[1];
        while (end > 0)
        {
            _file.Position = end - 1;
            _file.ReadExactly(last);
            if (last[0] == (byte)'\n')
            {
                break;
            }

            end--;
        }

        if (end != _file.Length)
        {
            _file.SetLength(end);
        }

        _file.Position = end;
    }
}

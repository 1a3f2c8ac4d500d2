// SPDX-License-Identifier: MIT
using System.Security.Cryptography;
using System.Text;

namespace Conformance.Kernels;

/// <summary>
/// Collects files and writes them as the newc cpio archive that Linux unpacks as its first root file system
/// (Documentation/driver-api/early-userspace/buffer-format.rst). The same content gives the same bytes: entries are sorted,
/// owner and time are zero. The archive is not compressed: under emulation, unpacking costs more than copying.
/// </summary>
internal sealed class InitramfsWriter
{
    private const uint DirectoryMode = 0x4000 | 0x1ED;        // S_IFDIR, 0755
    private const uint FileMode = 0x8000 | 0x1A4;             // S_IFREG, 0644
    private const uint ProgramMode = 0x8000 | 0x1ED;          // S_IFREG, 0755
    private const uint CharacterDeviceMode = 0x2000 | 0x180;  // S_IFCHR, 0600

    private readonly SortedDictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    /// <summary>Adds a directory and those above it; one that is there already is left as it is.</summary>
    public void AddDirectory(string path)
    {
        string name = Relative(path);
        for (int slash = name.IndexOf('/'); slash >= 0; slash = name.IndexOf('/', slash + 1))
        {
            _entries.TryAdd(name[..slash], new Entry(DirectoryMode, default));
        }

        _entries.TryAdd(name, new Entry(DirectoryMode, default));
    }

    /// <summary>Adds a file.</summary>
    public void AddFile(string path, ReadOnlyMemory<byte> content, bool executable = false) =>
        Add(path, new Entry(executable ? ProgramMode : FileMode, content));

    /// <summary>Adds a character device, such as the console the kernel opens before anything has made device nodes.</summary>
    public void AddCharacterDevice(string path, uint major, uint minor) =>
        Add(path, new Entry(CharacterDeviceMode, default, major, minor));

    /// <summary>Writes the archive.</summary>
    /// <returns>The lower-case hex SHA-256 of what was written.</returns>
    public async Task<string> WriteAsync(Stream stream, CancellationToken cancellation)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        long position = 0;
        uint inode = 1;

        async ValueTask PutAsync(ReadOnlyMemory<byte> bytes)
        {
            hash.AppendData(bytes.Span);
            await stream.WriteAsync(bytes, cancellation).ConfigureAwait(false);
            position += bytes.Length;
        }

        async ValueTask PadAsync(int alignment)
        {
            int excess = (int)(position % alignment);
            if (excess != 0)
            {
                await PutAsync(new byte[alignment - excess]).ConfigureAwait(false);
            }
        }

        foreach ((string name, Entry entry) in _entries)
        {
            await PutAsync(Header(name, entry, inode++)).ConfigureAwait(false);
            await PadAsync(4).ConfigureAwait(false);
            await PutAsync(entry.Content).ConfigureAwait(false);
            await PadAsync(4).ConfigureAwait(false);
        }

        await PutAsync(Header("TRAILER!!!", new Entry(0, default), 0)).ConfigureAwait(false);
        await PadAsync(512).ConfigureAwait(false);
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    private static byte[] Header(string name, Entry entry, uint inode)
    {
        uint nameSize = (uint)Encoding.UTF8.GetByteCount(name) + 1;
        uint links = (entry.Mode & 0xF000) == 0x4000 ? 2u : 1u;
        uint[] fields =
        [
            inode, entry.Mode, 0, 0, links, 0, (uint)entry.Content.Length,
            0, 0, entry.Major, entry.Minor, nameSize, 0,
        ];
        StringBuilder text = new("070701", 110 + name.Length + 1);
        foreach (uint field in fields)
        {
            text.Append(field.ToString("X8"));
        }

        text.Append(name).Append('\0');
        return Encoding.UTF8.GetBytes(text.ToString());
    }

    private static string Relative(string path)
    {
        string name = path.Trim('/');
        return name.Length > 0 && !name.Contains("//", StringComparison.Ordinal)
            ? name
            : throw new ArgumentException($"'{path}' is not a path inside an initramfs.", nameof(path));
    }

    private void Add(string path, Entry entry)
    {
        string name = Relative(path);
        int slash = name.LastIndexOf('/');
        if (slash > 0)
        {
            AddDirectory(name[..slash]);
        }

        if (!_entries.TryAdd(name, entry))
        {
            throw new ArgumentException($"'{path}' is in the initramfs already.", nameof(path));
        }
    }

    private readonly record struct Entry(uint Mode, ReadOnlyMemory<byte> Content, uint Major = 0, uint Minor = 0);
}

// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Conformance.Kernels;

namespace Conformance.Targets;

/// <summary>
/// Booted kernels kept in a folder to be restored: per kernel image, initramfs, QEMU and machine, the memory of the machine as a file and
/// the state of everything else. A restored machine maps the memory privately, so that nothing is copied until it is written to and any
/// number of machines share one file.
/// <para>
/// Any number of runs may use one folder. An entry is made under an exclusive lock in a folder of its own and renamed when it is complete;
/// it is restored under a shared lock. A run that dies leaves no lock, and its unfinished folder is removed by the next.
/// </para>
/// </summary>
public sealed class InstantKernels
{
    /// <summary>Kind of the entries in <see cref="List"/>.</summary>
    public const string Kind = "instant";

    /// <summary>Name of their folder in the cache.</summary>
    public const string Folder = "machines";

    /// <summary>What may be kept when nobody says otherwise, in bytes of disk.</summary>
    public const long DefaultLimit = 4L << 30;

    // Changes with the meaning of the files, not with their content.
    private const string Format = "instant kernel 1";
    private const string EntryFile = "entry.json";
    private const string StateFile = "state";
    private const string MemoryFileName = "memory";
    private const string ConsoleFile = "console.txt";
    private const string UnfinishedPrefix = "unfinished-";

    private readonly string _directory;

    /// <param name="directory">Made when it is needed; on a local file system.</param>
    public InstantKernels(string directory) => _directory = Path.GetFullPath(directory);

    /// <summary>In bytes of disk; what was used longest ago goes when a new entry passes it.</summary>
    public long Limit { get; init; } = DefaultLimit;

    /// <summary>Everything that is kept, least recently used first.</summary>
    public IReadOnlyList<CacheEntry> List()
    {
        if (!Directory.Exists(_directory))
        {
            return [];
        }

        List<CacheEntry> entries = [];
        foreach (string folder in Directory.GetDirectories(_directory))
        {
            string name = Path.GetFileName(folder);
            if (!name.StartsWith(UnfinishedPrefix, StringComparison.Ordinal) && ReadEntry(folder) is { } entry)
            {
                using FileLock? free = FileLock.TryAcquire(LockOf(name), exclusive: true);
                entries.Add(new CacheEntry(Kind, $"{entry.Kernel}-{name[..8]}", folder, SizeOf(folder, entry), LastUsed(folder), free is null));
            }
        }

        return [.. entries.OrderBy(e => e.LastUsed)];
    }

    /// <summary>Removes what was used longest ago until no more than <paramref name="maximumBytes"/> remain; what is just being restored stays.</summary>
    public PruneResult Prune(long maximumBytes)
    {
        IReadOnlyList<CacheEntry> entries = List();
        List<CacheEntry> removed = [];
        long kept = entries.Sum(e => e.Bytes);
        int inUse = 0;
        foreach (CacheEntry entry in entries)
        {
            if (kept <= maximumBytes)
            {
                break;
            }

            using FileLock? free = FileLock.TryAcquire(LockOf(Path.GetFileName(entry.Path)), exclusive: true);
            if (free is null)
            {
                inUse++;
                continue;
            }

            Remove(entry.Path);
            removed.Add(entry);
            kept -= entry.Bytes;
        }

        return new PruneResult(removed, kept, inUse);
    }

    /// <summary>What decides whether a saved machine is the wanted one.</summary>
    internal static string KeyOf(PreparedKernel kernel, MachineLine line, MachineOptions options, IReadOnlyList<KernelModule> loaded)
    {
        string program = FindProgram(line.Program);
        FileInfo file = new(program);
        string text = string.Join('\n',
        [
            Format, kernel.ImageSha256, kernel.InitramfsSha256, program, file.Length.ToString(CultureInfo.InvariantCulture),
            file.LastWriteTimeUtc.Ticks.ToString(CultureInfo.InvariantCulture), line.CommandLine(options), .. line.Machine(options, null),
            "loaded", .. loaded.Select(m => $"{m.Name} {m.Sha256}"),
        ]);
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)).AsSpan(0, 16));
    }

    /// <summary>The entry, made if it is not there yet, and held until it is disposed of.</summary>
    /// <param name="make">Boots the kernel with its memory in the given file and gives back the rest of its state.</param>
    /// <param name="note">Told when an entry that was there had to be dropped.</param>
    internal async Task<InstantKernel> GetAsync(string key, Func<string, Task<SavedMachine>> make, Action<string> note, CancellationToken cancellation)
    {
        string folder = Path.Combine(_directory, key);
        while (true)
        {
            FileLock shared = await FileLock.AcquireAsync(LockOf(key), exclusive: false, null, cancellation).ConfigureAwait(false);
            try
            {
                if (Open(folder) is { } found)
                {
                    return new InstantKernel(folder, found, shared);
                }
            }
            catch (InvalidDataException)
            {
                // Seen again, told and dropped below, where nobody else can have it open.
                shared.Dispose();
            }
            catch
            {
                shared.Dispose();
                throw;
            }

            shared.Dispose();
            using FileLock exclusive = await FileLock.AcquireAsync(LockOf(key), exclusive: true, null, cancellation).ConfigureAwait(false);
            try
            {
                if (Open(folder) is not null)
                {
                    continue;
                }
            }
            catch (InvalidDataException e)
            {
                note($"A saved kernel was dropped: {e.Message} It is booted again.");
                Remove(folder);
            }

            await MakeAsync(key, make).ConfigureAwait(false);
        }
    }

    /// <summary>Removes an entry that turned out to be of no use, unless another run holds it: that run will find out by itself.</summary>
    internal void Drop(InstantKernel kernel)
    {
        kernel.Dispose();
        using FileLock? exclusive = FileLock.TryAcquire(LockOf(Path.GetFileName(kernel.Folder)), exclusive: true);
        if (exclusive is not null && Directory.Exists(kernel.Folder))
        {
            Remove(kernel.Folder);
        }
    }

    private static string MachineBoot => File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();

    private static string FindProgram(string name) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries).Select(f => Path.Combine(f, name)).FirstOrDefault(File.Exists)
        ?? throw new MachineFaultException($"{name} is not installed. Run: apt-get install --no-install-recommends {(name == "qemu-system-x86_64" ? "qemu-system-x86" : "qemu-system-arm")}");

    private static void Remove(string folder)
    {
        // Renamed first: nobody can find half an entry, whatever happens to this process.
        string doomed = Path.Combine(Path.GetDirectoryName(folder)!, $"{UnfinishedPrefix}{Path.GetFileName(folder)}-{Guid.NewGuid():N}");
        Directory.Move(folder, doomed);
        Directory.Delete(doomed, recursive: true);
    }

    private static InstantKernelEntry? ReadEntry(string folder)
    {
        try
        {
            using FileStream file = File.OpenRead(Path.Combine(folder, EntryFile));
            return JsonSerializer.Deserialize(file, InstantKernelJson.Default.InstantKernelEntry);
        }
        catch (Exception e) when (e is IOException or JsonException)
        {
            return null;
        }
    }

    private static void WriteEntry(string folder, InstantKernelEntry entry)
    {
        string temporary = Path.Combine(folder, $"{EntryFile}.{Guid.NewGuid():N}");
        File.WriteAllBytes(temporary, JsonSerializer.SerializeToUtf8Bytes(entry, InstantKernelJson.Default.InstantKernelEntry));
        File.Move(temporary, Path.Combine(folder, EntryFile), overwrite: true);
    }

    private static long SizeOf(string folder, InstantKernelEntry entry) =>
        entry.UsedBytes + new DirectoryInfo(folder).EnumerateFiles().Where(f => f.Name != MemoryFileName).Sum(f => f.Length);

    private static DateTime LastUsed(string folder) => File.GetLastWriteTimeUtc(Path.Combine(folder, StateFile));

    /// <summary>A complete entry's machine; null when there is none.</summary>
    /// <exception cref="InvalidDataException">There is one, and it is damaged.</exception>
    private static SavedMachine? Open(string folder)
    {
        if (!Directory.Exists(folder))
        {
            return null;
        }

        InstantKernelEntry entry = ReadEntry(folder) ?? throw new InvalidDataException("its description cannot be read.");
        string memory = Path.Combine(folder, MemoryFileName), state = Path.Combine(folder, StateFile);
        FileInfo file = new(memory);
        if (!file.Exists || file.Length != entry.MemoryBytes)
        {
            throw new InvalidDataException("its memory is not complete.");
        }

        byte[] bytes = File.Exists(state) ? File.ReadAllBytes(state) : [];
        if (Convert.ToHexStringLower(SHA256.HashData(bytes)) != entry.StateSha256)
        {
            throw new InvalidDataException("its state is not what was saved.");
        }

        string boot = MachineBoot;
        if (entry.MachineBoot != boot || entry.MemoryWritten != file.LastWriteTimeUtc)
        {
            if (MemoryPages.Sum(memory).Checksum != entry.MemoryChecksum)
            {
                throw new InvalidDataException("its memory is not what was saved.");
            }

            WriteEntry(folder, entry with { MachineBoot = boot, MemoryWritten = file.LastWriteTimeUtc });
        }

        string log = Path.Combine(folder, ConsoleFile);
        string console = File.Exists(log) ? File.ReadAllText(log) : "";
        if (DistrustsItsClock(console))
        {
            throw new InvalidDataException("its kernel distrusts its clock, which claims about clocks would miss.");
        }

        File.SetLastWriteTimeUtc(state, DateTime.UtcNow);
        return new SavedMachine(bytes, console, entry.Qemu, entry.Kernel);
    }

    // x86: the TSC counts this machine's time, the timers that it is compared with QEMU's; where QEMU has to wait they drift apart. Kept, it
    // would be the clock of every run to come.
    private static bool DistrustsItsClock(string console) => console.Contains("clocksource 'tsc' as unstable", StringComparison.Ordinal);

    private string LockOf(string key) => Path.Combine(_directory, "locks", key);

    private async Task MakeAsync(string key, Func<string, Task<SavedMachine>> make)
    {
        // The lock on the key is ours: whatever carries its name and is not finished was left by somebody who died.
        foreach (string left in Directory.GetDirectories(_directory, $"{UnfinishedPrefix}{key}-*"))
        {
            Directory.Delete(left, recursive: true);
        }

        string folder = Path.Combine(_directory, $"{UnfinishedPrefix}{key}-{Guid.NewGuid():N}");
        Directory.CreateDirectory(folder);
        try
        {
            string memory = Path.Combine(folder, MemoryFileName);
            SavedMachine machine = await make(memory).ConfigureAwait(false);
            if (DistrustsItsClock(machine.Console))
            {
                throw new IOException("while it was booted, this machine was so busy that it distrusts its clock.");
            }

            await File.WriteAllBytesAsync(Path.Combine(folder, StateFile), machine.State).ConfigureAwait(false);
            await File.WriteAllTextAsync(Path.Combine(folder, ConsoleFile), machine.Console).ConfigureAwait(false);
            (uint checksum, long used) = MemoryPages.Sum(memory);
            FileInfo file = new(memory);
            WriteEntry(folder, new InstantKernelEntry
            {
                Kernel = machine.Kernel,
                Qemu = machine.Qemu,
                Made = DateTimeOffset.UtcNow,
                MemoryBytes = file.Length,
                UsedBytes = used,
                StateSha256 = Convert.ToHexStringLower(SHA256.HashData(machine.State)),
                MemoryChecksum = checksum,
                MemoryWritten = file.LastWriteTimeUtc,
                MachineBoot = MachineBoot,
            });
            Prune(Math.Max(0, Limit - used));
            Directory.Move(folder, Path.Combine(_directory, key));
        }
        catch
        {
            Directory.Delete(folder, recursive: true);
            throw;
        }
    }
}

/// <summary>A machine's state without its memory.</summary>
/// <param name="State">QEMU's migration stream.</param>
/// <param name="Console">What the kernel had printed.</param>
/// <param name="Qemu">Version of the QEMU that wrote it.</param>
/// <param name="Kernel">Id of the kernel.</param>
internal sealed record SavedMachine(byte[] State, string Console, string Qemu, string Kernel);

/// <summary>An entry that is not removed until this is disposed of.</summary>
internal sealed class InstantKernel(string folder, SavedMachine machine, FileLock held) : IDisposable
{
    public string Folder { get; } = folder;

    public SavedMachine Machine { get; } = machine;

    public string Memory => Path.Combine(Folder, "memory");

    public void Dispose() => held.Dispose();
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Globalization;
using Conformance.Fixtures;
using Conformance.Uapi;
using Conformance.Wire;
using static Conformance.Uapi.PerfEventConst;

namespace Conformance.Kvm;

/// <summary>
/// Counts a module's own instructions that write a byte of a session's memory while it works for that session: a watchpoint of the processor on the
/// kernel's own mapping of the page. What is written and written over again within one call, guest and session never see.
/// </summary>
public sealed class WriteCounter : IAsyncDisposable
{
    private const ulong PageSize = 4096;

    private readonly KernelFd _fd;
    private readonly Mapping _ring;
    private readonly (ulong Begin, ulong End) _module;

    private WriteCounter(KernelFd fd, Mapping ring, (ulong Begin, ulong End) module)
    {
        _fd = fd;
        _ring = ring;
        _module = module;
    }

    /// <summary>A test that needs one is skipped on a kernel without watchpoints, or that does not say where its memory is.</summary>
    /// <param name="memory">Private memory of the session that stays where it is.</param>
    /// <param name="offset">Of the byte, in the mapping.</param>
    /// <param name="module">Whose instructions count.</param>
    public static async Task<WriteCounter> CreateAsync(Mapping memory, ulong offset, string module)
    {
        KernelSession session = memory.Session;
        string? line = (await session.ReadFileAsync("/proc/modules"))?.Split('\n').FirstOrDefault(l => l.StartsWith($"{module} ", StringComparison.Ordinal));
        Skipping.UnlessHardware(line is not null, $"{module} as a module", "it is not in /proc/modules");
        string[] fields = line!.Split(' ');
        ulong begin = Convert.ToUInt64(fields[5], 16);
        // A page that was never written has no place of its own.
        await memory.WriteByteAsync(offset, await memory.ReadByteAsync(offset));
        ulong address = memory.Address + offset;
        ulong page = BinaryPrimitives.ReadUInt64LittleEndian(await ReadAtAsync(session, "/proc/self/pagemap", address / PageSize * 8, 8)) & ((1UL << 55) - 1);
        Skipping.UnlessCapability(page != 0, "pagemap", "/proc/self/pagemap names no page");
        ulong? kernels = await FindAsync(session, (page * PageSize) + (address % PageSize));
        Skipping.UnlessCapability(kernels is not null, "kcore", "/proc/kcore has no segment with the page");

        var attribute = new perf_event_attr
        {
            type = PERF_TYPE_BREAKPOINT, size = PERF_ATTR_SIZE_VER1, sample_period = 1, sample_type = PERF_SAMPLE_IP,
            bp_type = HW_BREAKPOINT_W, bp_addr = kernels!.Value, bp_len = 1,
        };
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.PerfEventOpen, $"perf_event_open(writes to {memory.Name}+0x{offset:x})")
            .In(KernelSession.Bytes(attribute)).Arg(0).Arg(-1).Arg(-1).Arg(PERF_FLAG_FD_CLOEXEC));
        Skipping.UnlessCapability(call.Errno == 0, "watchpoints", $"perf_event_open() = {(Errno)call.Errno}");
        var fd = new KernelFd(session, (int)call.Result, "writes");
        return new WriteCounter(fd, await session.MapAsync(fd, 2 * PageSize, 0, "samples of writes"), (begin, begin + ulong.Parse(fields[1], CultureInfo.InvariantCulture)));
    }

    /// <summary>
    /// Different instructions of the module that have written the byte since it was created. Those of a copying function that it calls do not count:
    /// how many write a byte depends on where it lies, and emulation reports their neighbours as well.
    /// </summary>
    public async Task<int> CountAsync()
    {
        var page = KernelSession.Read<perf_event_mmap_page>(await _ring.ReadAsync(0, (int)PageSize));
        byte[] records = await _ring.ReadAsync(page.data_offset, (int)page.data_head);
        var instructions = new HashSet<ulong>();
        for (int at = 0; at < records.Length; at += BinaryPrimitives.ReadUInt16LittleEndian(records.AsSpan(at + 6)))
        {
            ulong instruction = BinaryPrimitives.ReadUInt64LittleEndian(records.AsSpan(at + 8));
            if (BinaryPrimitives.ReadUInt32LittleEndian(records.AsSpan(at)) == PERF_RECORD_SAMPLE && instruction >= _module.Begin && instruction < _module.End)
            {
                instructions.Add(instruction);
            }
        }

        return instructions.Count;
    }

    public async ValueTask DisposeAsync()
    {
        await _ring.UnmapAsync();
        await _fd.DisposeAsync();
    }

    // The ELF header of kcore says where the kernel sees which physical memory.
    private static async Task<ulong?> FindAsync(KernelSession session, ulong physical)
    {
        const int Headers = 32, Count = 56, EntrySize = 56, Address = 16, Physical = 24, Size = 40;
        byte[] elf = await ReadAtAsync(session, "/proc/kcore", 0, (int)PageSize);
        int first = (int)BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(Headers));
        int count = BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(Count));
        ulong? lowest = null;
        for (int i = 0; i < count && first + ((i + 1) * EntrySize) <= elf.Length; i++)
        {
            ReadOnlySpan<byte> segment = elf.AsSpan(first + (i * EntrySize), EntrySize);
            ulong begin = BinaryPrimitives.ReadUInt64LittleEndian(segment[Physical..]);
            // Segments of no physical memory have all ones there.
            if (physical >= begin && physical - begin < BinaryPrimitives.ReadUInt64LittleEndian(segment[Size..]))
            {
                ulong address = BinaryPrimitives.ReadUInt64LittleEndian(segment[Address..]) + (physical - begin);
                lowest = lowest is { } other && other < address ? other : address;
            }
        }

        // Memory that the kernel's image gave back is in the image's segment as well, above the mapping of all memory.
        return lowest;
    }

    private static async Task<byte[]> ReadAtAsync(KernelSession session, string path, ulong offset, int length)
    {
        (Errno missing, KernelFd? file) = await session.TryOpenAsync(path, writable: false);
        Skipping.UnlessCapability(file is not null, path, $"open(\"{path}\") = {missing}");
        await using KernelFd fd = file!;
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Pread64, $"pread({path}, 0x{offset:x})")
            .Arg(fd.Number).Out(length).Arg(length).Arg(offset));
        Vm.Expect((Errno)call.Errno, $"pread({path})");
        return call.Buffers[0][..(int)call.Result];
    }
}

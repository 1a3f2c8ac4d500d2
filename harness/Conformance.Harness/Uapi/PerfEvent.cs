// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;

namespace Conformance.Uapi;

/// <summary>linux/perf_event.h and linux/hw_breakpoint.h, as far as writes to an address are to be counted.</summary>
[CHeader("linux/perf_event.h")]
public static class PerfEventConst
{
    public const uint PERF_TYPE_BREAKPOINT = 5;
    public const uint HW_BREAKPOINT_W = 2;
    public const uint PERF_ATTR_SIZE_VER1 = 72;
    public const ulong PERF_FLAG_FD_CLOEXEC = 8;
    public const ulong PERF_SAMPLE_IP = 1;
    public const uint PERF_RECORD_SAMPLE = 9;
}

/// <summary>The part that PERF_ATTR_SIZE_VER1 names.</summary>
[CHeader("linux/perf_event.h"), StructLayout(LayoutKind.Explicit, Size = 72)]
public struct perf_event_attr
{
    [FieldOffset(0)] public uint type;
    [FieldOffset(4)] public uint size;
    [FieldOffset(8)] public ulong config;
    [FieldOffset(16)] public ulong sample_period;
    [FieldOffset(24)] public ulong sample_type;
    [FieldOffset(32)] public ulong read_format;
    [FieldOffset(52)] public uint bp_type;
    [FieldOffset(56)] public ulong bp_addr;
    [FieldOffset(64)] public ulong bp_len;
}

/// <summary>The first page of the ring of samples.</summary>
[CHeader("linux/perf_event.h"), StructLayout(LayoutKind.Explicit, Size = 1088)]
public struct perf_event_mmap_page
{
    [FieldOffset(1024)] public ulong data_head;
    [FieldOffset(1040)] public ulong data_offset;
}

// SPDX-License-Identifier: MIT
namespace Conformance.Uapi;

/// <summary>System call numbers of one architecture (asm/unistd_64.h, asm-generic/unistd.h).</summary>
public sealed class SystemCalls
{
    public required uint Openat { get; init; }
    public required uint Close { get; init; }
    public required uint Read { get; init; }
    public required uint Write { get; init; }
    public required uint Pread64 { get; init; }
    public required uint Pwrite64 { get; init; }
    public required uint Lseek { get; init; }
    public required uint Ioctl { get; init; }
    public required uint Mmap { get; init; }
    public required uint Munmap { get; init; }
    public required uint Madvise { get; init; }
    public required uint Mprotect { get; init; }
    public required uint Eventfd2 { get; init; }
    public required uint Ppoll { get; init; }
    public required uint Dup { get; init; }
    public required uint Dup3 { get; init; }
    public required uint Socketpair { get; init; }
    public required uint Socket { get; init; }
    public required uint Bind { get; init; }
    public required uint Listen { get; init; }
    public required uint Accept4 { get; init; }
    public required uint Connect { get; init; }
    public required uint Sendmsg { get; init; }
    public required uint Recvmsg { get; init; }
    public required uint MemfdCreate { get; init; }
    public required uint Userfaultfd { get; init; }
    public required uint Ftruncate { get; init; }
    public required uint FinitModule { get; init; }
    public required uint InitModule { get; init; }
    public required uint DeleteModule { get; init; }
    public required uint SchedSetscheduler { get; init; }
    public required uint SchedSetaffinity { get; init; }
    public required uint SchedYield { get; init; }
    public required uint ClockSettime { get; init; }
    public required uint ClockGettime { get; init; }
    public required uint ClockNanosleep { get; init; }
    public required uint Kill { get; init; }
    public required uint Getpid { get; init; }
    public required uint Gettid { get; init; }
    public required uint Fcntl { get; init; }
    public required uint Getdents64 { get; init; }
    public required uint Readlinkat { get; init; }
    public required uint Mkdirat { get; init; }
    public required uint Mount { get; init; }
    public required uint Reboot { get; init; }
    public required uint PerfEventOpen { get; init; }

    public static SystemCalls X86_64 { get; } = new()
    {
        Read = 0, Write = 1, Close = 3, Lseek = 8, Mmap = 9, Mprotect = 10, Munmap = 11, Ioctl = 16, Pread64 = 17, Pwrite64 = 18, SchedYield = 24,
        Madvise = 28, Dup = 32, Dup3 = 292, Getpid = 39, Socket = 41, Connect = 42, Sendmsg = 46, Recvmsg = 47, Bind = 49, Listen = 50,
        Socketpair = 53, Kill = 62, Fcntl = 72, Ftruncate = 77, Mount = 165, Reboot = 169, InitModule = 175, DeleteModule = 176, Gettid = 186,
        SchedSetscheduler = 144, SchedSetaffinity = 203, Getdents64 = 217, ClockSettime = 227, ClockGettime = 228, ClockNanosleep = 230, Openat = 257, Mkdirat = 258,
        Readlinkat = 267, Ppoll = 271, Accept4 = 288, Eventfd2 = 290, PerfEventOpen = 298, FinitModule = 313, MemfdCreate = 319, Userfaultfd = 323,
    };

    public static SystemCalls Arm64 { get; } = new()
    {
        Eventfd2 = 19, Dup = 23, Dup3 = 24, Fcntl = 25, Ioctl = 29, Mkdirat = 34, Mount = 40, Ftruncate = 46, Openat = 56, Close = 57, Getdents64 = 61, Lseek = 62, Read = 63,
        Write = 64, Pread64 = 67, Pwrite64 = 68, Ppoll = 73, Readlinkat = 78, InitModule = 105, DeleteModule = 106, ClockSettime = 112, ClockGettime = 113, ClockNanosleep = 115,
        SchedSetscheduler = 119, SchedSetaffinity = 122, SchedYield = 124, Kill = 129, Reboot = 142, Getpid = 172, Gettid = 178, Socket = 198, Socketpair = 199,
        Bind = 200, Listen = 201, Connect = 203, Sendmsg = 211, Recvmsg = 212, Munmap = 215, Mmap = 222, Mprotect = 226, Madvise = 233,
        PerfEventOpen = 241, Accept4 = 242, FinitModule = 273, MemfdCreate = 279, Userfaultfd = 282,
    };
}

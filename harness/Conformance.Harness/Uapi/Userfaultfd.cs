// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;

namespace Conformance.Uapi;

/// <summary>linux/userfaultfd.h, as far as a fault is to be held.</summary>
[CHeader("linux/userfaultfd.h")]
public static class UserfaultfdConst
{
    public const ulong UFFD_API = 0xAA;
    public const ulong UFFDIO_REGISTER_MODE_MISSING = 1;

    public static readonly Ioctl UFFDIO_API = new(nameof(UFFDIO_API), 0xC018AA3F);
    public static readonly Ioctl UFFDIO_REGISTER = new(nameof(UFFDIO_REGISTER), 0xC020AA00);
}

[CHeader("linux/userfaultfd.h"), StructLayout(LayoutKind.Explicit, Size = 24)]
public struct uffdio_api
{
    [FieldOffset(0)] public ulong api;
    [FieldOffset(8)] public ulong features;
    [FieldOffset(16)] public ulong ioctls;
}

[CHeader("linux/userfaultfd.h"), StructLayout(LayoutKind.Explicit, Size = 32)]
public struct uffdio_register
{
    [FieldOffset(0), CField("range.start")] public ulong start;
    [FieldOffset(8), CField("range.len")] public ulong len;
    [FieldOffset(16)] public ulong mode;
    [FieldOffset(24)] public ulong ioctls;
}

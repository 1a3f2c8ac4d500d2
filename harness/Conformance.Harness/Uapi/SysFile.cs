// SPDX-License-Identifier: MIT
using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Conformance.Uapi;

// coverlet cannot read the bodiless local function that LibraryImport generates, and would leave out the whole assembly.
/// <summary>sys/file.h.</summary>
[ExcludeFromCodeCoverage]
internal static partial class SysFile
{
    internal const int LOCK_SH = 1;
    internal const int LOCK_EX = 2;
    internal const int LOCK_NB = 4;

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int flock(SafeFileHandle fd, int operation);
}

// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>One thing the cache keeps.</summary>
/// <param name="Kind"><c>debian</c> (a kernel out of packages), <c>images</c> (an unwrapped image), <c>initramfs</c>, <c>modules</c> (swapped ones), <c>prepared</c> (what these came to together) or <c>instant</c> (a booted kernel).</param>
/// <param name="Name">Unique within its kind: <c>6.12.117+deb13-amd64-1f2e3d4c5b6a</c>.</param>
/// <param name="Path">Its directory.</param>
/// <param name="Bytes">Size on disk, in bytes.</param>
/// <param name="LastUsed">When a run last asked for it, in UTC.</param>
/// <param name="InUse">Another run holds it now; pruning leaves it alone.</param>
public sealed record CacheEntry(string Kind, string Name, string Path, long Bytes, DateTime LastUsed, bool InUse);

/// <summary>What a pruning did.</summary>
/// <param name="Removed">The entries that are gone.</param>
/// <param name="BytesKept">Size of those that remain, in bytes.</param>
/// <param name="KeptInUse">How many stayed only because a run uses them.</param>
public sealed record PruneResult(IReadOnlyList<CacheEntry> Removed, long BytesKept, int KeptInUse);

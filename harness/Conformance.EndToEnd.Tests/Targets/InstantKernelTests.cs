// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Globalization;
using Conformance.Kernels;
using Conformance.Targets;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.EndToEnd.Tests.Targets;

public sealed class InstantKernelTests(TargetLab lab)
{
    private static readonly MachineOptions s_vfio = new() { Iommu = true, Devices = ["e1000e"], Modules = ["kvm-amd", "vfio-pci"] };

    [Fact]
    public async Task RestoredKernelEqualsABootedOne()
    {
        PreparedKernel kernel = await lab.X86Async();
        await CompareAsync(kernel, s_vfio, SystemCalls.X86_64);
    }

    [Fact]
    public async Task RestoredArm64KernelEqualsABootedOne()
    {
        PreparedKernel kernel = await lab.Arm64Async();
        await CompareAsync(kernel, s_vfio with { Modules = ["vfio-pci"] }, SystemCalls.Arm64);
    }

    [Fact]
    public async Task TwoRunsThatRaceMakeOneEntryAndBothRestoreIt()
    {
        PreparedKernel kernel = await lab.X86Async();
        string saved = Path.Combine(lab.Work, "raced");
        MachineOptions options = new() { SnapshotDirectory = saved };
        Task<EmulatedTarget> Run(string name) => EmulatedTarget.StartAsync(
            kernel, options, TargetLab.Build, Directory.CreateDirectory(Path.Combine(lab.Work, name)).FullName, TargetLab.Cancellation);
        EmulatedTarget[] both = await Task.WhenAll(Run("one"), Run("two"));
        both.Should().OnlyContain(t => t.Restored);
        both.SelectMany(t => t.Notes).Should().BeEmpty();
        new InstantKernels(saved).List().Should().ContainSingle().Which.InUse.Should().BeFalse("what runs has its memory mapped and needs no lock");

        // Each has its own copy of what it changes.
        await TargetLab.WriteAsync(both[0], "/proc/sys/kernel/hostname", "one");
        (await both[1].ReadFileAsync("/proc/sys/kernel/hostname")).Should().NotBe("one\n");
        foreach (EmulatedTarget one in both)
        {
            await one.DisposeAsync();
        }
    }

    [Fact]
    public async Task EntryThatDoesNotComeBackIsDroppedAndTheKernelBooted()
    {
        await (await lab.StartAsync()).DisposeAsync();
        string saved = Path.Combine(lab.Work, "spoiled");
        Directory.CreateDirectory(saved);
        CacheEntry entry = new InstantKernels(lab.Saved).List()[^1];
        string copy = Path.Combine(saved, Path.GetFileName(entry.Path));
        Directory.CreateDirectory(copy);
        foreach (string file in Directory.GetFiles(entry.Path))
        {
            File.Copy(file, Path.Combine(copy, Path.GetFileName(file)));
        }

        // As if the disk had returned nothing of what was written, and nobody could know.
        string memory = Path.Combine(copy, "memory");
        long size = new FileInfo(memory).Length;
        using (FileStream stream = File.Create(memory))
        {
            stream.SetLength(size);
        }

        File.SetLastWriteTimeUtc(memory, File.GetLastWriteTimeUtc(Path.Combine(entry.Path, "memory")));
        await using EmulatedTarget target = await lab.StartAsync(new MachineOptions { SnapshotDirectory = saved });
        target.Restored.Should().BeFalse();
        target.Notes.Should().ContainSingle().Which.Should().Contain("was dropped because it did not come back");
        new InstantKernels(saved).List().Should().BeEmpty();
    }

    [Fact]
    public async Task SwappedModuleIsLoadedIntoTheKernelThatAllBuildsShare()
    {
        await (await lab.StartAsync()).DisposeAsync();
        int kept = new InstantKernels(lab.Saved).List().Count;
        PreparedKernel kernel = await lab.X86WithAsync("kvm");

        await using EmulatedTarget target = await EmulatedTarget.StartAsync(
            kernel, new MachineOptions { SnapshotDirectory = lab.Saved, Modules = ["kvm-amd"] }, TargetLab.Build, lab.Work, TargetLab.Cancellation);

        target.Restored.Should().BeTrue();
        (await target.ReadFileAsync("/proc/modules")).Should().Contain("kvm_amd ");
        new InstantKernels(lab.Saved).List().Should().HaveCount(kept);
    }

    [Fact]
    public async Task MachineThatCannotBeSavedIsBooted()
    {
        await using EmulatedTarget target = await lab.StartAsync(new MachineOptions { SnapshotDirectory = lab.Saved, Devices = ["edu"] });
        target.Restored.Should().BeFalse();
        target.Notes.Should().BeEmpty("nothing is wrong with that");
    }

    private async Task CompareAsync(PreparedKernel kernel, MachineOptions options, SystemCalls calls)
    {
        Facts booted = await TakeAsync(kernel, options with { SnapshotDirectory = lab.Saved, FreshBoot = true }, calls, restored: false);
        Facts first = await TakeAsync(kernel, options with { SnapshotDirectory = lab.Saved }, calls, restored: true);
        Facts again = await TakeAsync(kernel, options with { SnapshotDirectory = lab.Saved }, calls, restored: true);
        foreach (Facts restored in new[] { first, again })
        {
            restored.Should().BeEquivalentTo(booted, o => o.Excluding(f => f.TotalMemoryKib));

            // Two boots of one kernel differ by a page or so, by where it randomized itself to.
            restored.TotalMemoryKib.Should().BeCloseTo(booted.TotalMemoryKib, 1024);
        }

        again.TotalMemoryKib.Should().Be(first.TotalMemoryKib);
    }

    private async Task<Facts> TakeAsync(PreparedKernel kernel, MachineOptions options, SystemCalls calls, bool restored)
    {
        await using EmulatedTarget target = await EmulatedTarget.StartAsync(kernel, options, TargetLab.Build, lab.Work, TargetLab.Cancellation);
        target.Restored.Should().Be(restored, string.Join(' ', target.Notes));
        target.Notes.Should().BeEmpty();
        await using AgentSession session = await target.Agent.OpenSessionAsync(TargetLab.Cancellation);

        // A kernel that slept in a file does not know for how long; its clocks must be right and run all the same.
        const int Realtime = 0, Monotonic = 1;
        TimeSpan before = await ClockAsync(session, calls, Monotonic);
        TimeSpan date = await ClockAsync(session, calls, Realtime);
        (DateTimeOffset.UnixEpoch + date).Should().BeCloseTo(DateTimeOffset.UtcNow, TimeSpan.FromSeconds(60));
        await target.Log.MarkAsync("between two looks at the clock", TargetLab.Cancellation);
        TimeSpan after = await ClockAsync(session, calls, Monotonic);
        (after - before).Should().BePositive().And.BeLessThan(TimeSpan.FromSeconds(30));

        // Where the kernel lies is chosen at random, and an adapter's ROM is whatever looks like one in memory that the firmware has used.
        string[] byChance = ["Kernel ", "Adapter ROM"];
        return new Facts(
            target.Agent.Hello with { Pid = 0 },
            await target.ReadFileAsync("/proc/cmdline"),
            [.. (await target.ReadFileAsync("/proc/modules")).Split('\n').Select(l => l.Split(' ')[0]).Order(StringComparer.Ordinal)],
            await target.ReadFileAsync("/proc/bus/pci/devices"),
            [.. (await target.ReadFileAsync("/proc/iomem")).Split('\n').Where(l => !byChance.Any(c => l.Contains(c, StringComparison.Ordinal)))],
            long.Parse((await target.ReadFileAsync("/proc/meminfo")).Split('\n')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture),
            [.. target.Log.ReportsSince(KernelLog.Start).Select(r => r.Title)]);
    }

    private static async Task<TimeSpan> ClockAsync(AgentSession session, SystemCalls calls, int clock)
    {
        CallResult result = await session.CallAsync(new SystemCall(calls.ClockGettime, $"clock_gettime({clock})").Arg(clock).Out(16));
        result.Errno.Should().Be(0);
        return TimeSpan.FromSeconds(BinaryPrimitives.ReadInt64LittleEndian(result.Buffers[0]))
            + TimeSpan.FromMicroseconds(BinaryPrimitives.ReadInt64LittleEndian(result.Buffers[0].AsSpan(8)) / 1000.0);
    }

    private sealed record Facts(
        AgentHello Hello, string CommandLine, string[] Modules, string PciDevices, string[] Memory, long TotalMemoryKib, string[] Reports);
}

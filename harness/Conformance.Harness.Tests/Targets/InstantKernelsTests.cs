// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Targets;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Targets;

/// <summary>The folder of saved kernels, with machines that never ran.</summary>
public sealed class InstantKernelsTests : IDisposable
{
    private const string Key = "0123456789abcdef0123456789abcdef";
    private const int Memory = 8 << 20;
    private const string Unstable = "[   29.9] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large:";
    private readonly TemporaryFolder _folder = new();
    private readonly List<string> _notes = [];
    private int _made;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private string Entry => _folder[Key];

    private InstantKernels Kernels => new(_folder.Path);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task EntryIsMadeOnceAndGivenBackAsItWas()
    {
        using (InstantKernel first = await GetAsync())
        {
            first.Machine.State.Should().Equal(1, 2, 3);
        }

        using InstantKernel second = await GetAsync();
        second.Machine.Should().BeEquivalentTo(new SavedMachine([1, 2, 3], "[    0.1] booted", "7.2.22", "debian-6.12-amd64"));
        new FileInfo(second.Memory).Length.Should().Be(Memory);
        _made.Should().Be(1);
        _notes.Should().BeEmpty();
    }

    [Fact]
    public async Task TwoThatWantTheSameMakeItOnce()
    {
        TaskCompletionSource go = new();
        Task<InstantKernel>[] racing = [.. Enumerable.Range(0, 4).Select(_ => Task.Run(() => GetAsync(async () => await go.Task)))];
        go.SetResult();
        foreach (InstantKernel one in await Task.WhenAll(racing))
        {
            one.Dispose();
        }

        _made.Should().Be(1);
    }

    [Fact]
    public async Task OneThatFailsToMakeItLeavesItToTheNext()
    {
        await this.Invoking(t => t.GetAsync(() => throw new MachineFaultException("does not boot"))).Should().ThrowAsync<MachineFaultException>();
        Directory.GetDirectories(_folder.Path).Select(Path.GetFileName).Should().Equal("locks");
        (await GetAsync()).Dispose();
    }

    [Fact]
    public async Task KernelThatDistrustsItsClockIsNotKept()
    {
        await this.Invoking(t => t.GetAsync(console: Unstable)).Should().ThrowAsync<IOException>().WithMessage("*distrusts its clock*");
        Directory.GetDirectories(_folder.Path).Select(Path.GetFileName).Should().Equal("locks");
    }

    [Fact]
    public async Task KeptKernelThatDistrustsItsClockIsMadeAgain()
    {
        (await GetAsync()).Dispose();
        await File.WriteAllTextAsync(Path.Combine(Entry, "console.txt"), Unstable, Cancellation);

        (await GetAsync()).Dispose();

        _made.Should().Be(2);
        _notes.Should().ContainSingle().Which.Should().Contain("distrusts its clock");
    }

    [Fact]
    public async Task WhatADeadRunLeftUnfinishedIsRemovedAndNeverUsed()
    {
        string left = _folder[$"unfinished-{Key}-0"];
        Directory.CreateDirectory(left);
        await File.WriteAllBytesAsync(Path.Combine(left, "memory"), new byte[4096], Cancellation);
        (await GetAsync()).Dispose();
        _made.Should().Be(1);
        Directory.Exists(left).Should().BeFalse();
    }

    [Theory]
    [InlineData("its state is not what was saved", "state", 1)]
    [InlineData("its state is not what was saved", "state", -1)]
    [InlineData("its memory is not complete", "memory", -1)]
    [InlineData("its memory is not what was saved", "memory", 1)]
    [InlineData("its description cannot be read", "entry.json", 1)]
    public async Task DamagedEntryIsDroppedWithANoteAndMadeAgain(string why, string file, int change)
    {
        (await GetAsync()).Dispose();
        string path = Path.Combine(Entry, file);
        byte[] bytes = await File.ReadAllBytesAsync(path, Cancellation);
        if (change < 0)
        {
            bytes = bytes[..^1];
        }
        else
        {
            bytes[0] ^= 0xff;
        }

        await File.WriteAllBytesAsync(path, bytes, Cancellation);
        (await GetAsync()).Dispose();
        _made.Should().Be(2);
        _notes.Should().ContainSingle().Which.Should().Contain(why).And.Contain("booted again");
    }

    [Fact]
    public async Task MemoryIsSummedAgainAfterTheMachineWasRestarted()
    {
        (await GetAsync()).Dispose();
        string entry = Path.Combine(Entry, "entry.json");
        string before = await File.ReadAllTextAsync(entry, Cancellation);
        string boot = (await File.ReadAllTextAsync("/proc/sys/kernel/random/boot_id", Cancellation)).Trim();
        before.Should().Contain(boot);
        await File.WriteAllTextAsync(entry, before.Replace(boot, "an-earlier-boot", StringComparison.Ordinal), Cancellation);
        (await GetAsync()).Dispose();
        (await File.ReadAllTextAsync(entry, Cancellation)).Should().Be(before);

        // The disk lost a page, and not even the time of the file shows it.
        await File.WriteAllTextAsync(entry, before.Replace(boot, "an-earlier-boot", StringComparison.Ordinal), Cancellation);
        string memory = Path.Combine(Entry, "memory");
        DateTime written = File.GetLastWriteTimeUtc(memory);
        await File.WriteAllBytesAsync(memory, new byte[Memory], Cancellation);
        File.SetLastWriteTimeUtc(memory, written);
        (await GetAsync()).Dispose();
        _notes.Should().ContainSingle().Which.Should().Contain("memory is not what was saved");
    }

    [Fact]
    public async Task PruningTakesWhatWasUsedLongestAgoAndLeavesWhatIsHeld()
    {
        (await GetAsync(key: "a" + Key[1..])).Dispose();
        (await GetAsync(key: "b" + Key[1..])).Dispose();
        (await GetAsync(key: "a" + Key[1..])).Dispose();
        using InstantKernel held = await GetAsync(key: "c" + Key[1..]);
        IReadOnlyList<CacheEntry> all = Kernels.List();
        all.Select(e => e.Name).Should().Equal($"debian-6.12-amd64-b{Key[1..8]}", $"debian-6.12-amd64-a{Key[1..8]}", $"debian-6.12-amd64-c{Key[1..8]}");
        all.Select(e => e.InUse).Should().Equal(false, false, true);
        all[0].Bytes.Should().BeGreaterThan(4096).And.BeLessThan(100_000, "zero pages take no room");

        PruneResult one = Kernels.Prune(all.Sum(e => e.Bytes) - 1);
        one.Removed.Select(e => e.Name).Should().Equal($"debian-6.12-amd64-b{Key[1..8]}");
        PruneResult rest = Kernels.Prune(0);
        rest.Removed.Should().ContainSingle();
        rest.KeptInUse.Should().Be(1);
        File.Exists(held.Memory).Should().BeTrue();
    }

    [Fact]
    public async Task NewEntryPushesOutOldOnesBeyondTheLimit()
    {
        (await GetAsync(key: "a" + Key[1..])).Dispose();
        (await GetAsync(key: "b" + Key[1..], limit: 6_000)).Dispose();
        Kernels.List().Should().ContainSingle().Which.Path.Should().EndWith("b" + Key[1..]);
    }

    [Fact]
    public async Task DroppedEntryIsGone()
    {
        InstantKernel held = await GetAsync();
        Kernels.Drop(held);
        Kernels.List().Should().BeEmpty();
        (await GetAsync()).Dispose();
        _made.Should().Be(2);
    }

    [Fact]
    public void KeyChangesWithWhateverMakesAnotherMachine()
    {
        Assert.SkipUnless((Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(f => File.Exists(Path.Combine(f, "qemu-system-x86_64"))), "qemu-system-x86_64 is not installed");
        PreparedKernel kernel = new() { Id = "k", Release = "6.12", Architecture = KernelArchitecture.X86_64, Source = "k", ImageSha256 = "1", InitramfsSha256 = "2", ImagePath = "/k" };
        MachineLine line = MachineLine.For(kernel.Architecture);
        MachineOptions options = new();
        string Of(PreparedKernel k, MachineOptions o, params KernelModule[] loaded) => InstantKernels.KeyOf(k, line, o, loaded);
        string[] keys =
        [
            Of(kernel, options), Of(kernel with { ImageSha256 = "3" }, options), Of(kernel with { InitramfsSha256 = "3" }, options),
            Of(kernel, options with { MemoryMiB = 1024 }), Of(kernel, options with { Processors = 1 }), Of(kernel, options with { Iommu = true }),
            Of(kernel, options with { Devices = ["e1000e"] }), Of(kernel, options with { ExtraKernelArguments = ["nokaslr"] }),
            Of(kernel, options, new KernelModule("kvm", "/modules/kvm.ko", "4", false)), Of(kernel, options, new KernelModule("kvm", "/modules/kvm.ko", "5", false)),
        ];
        keys.Should().OnlyHaveUniqueItems();
        Of(kernel with { ImagePath = "/elsewhere" }, options with { SnapshotDirectory = "/x", FreshBoot = true, Isolation = Isolation.Test }).Should().Be(keys[0]);
    }

    private Task<InstantKernel> GetAsync(Func<Task>? before = null, string key = Key, long limit = InstantKernels.DefaultLimit, string console = "[    0.1] booted") => new InstantKernels(_folder.Path) { Limit = limit }.GetAsync(
        key,
        async memory =>
        {
            if (before is not null)
            {
                await before();
            }

            Interlocked.Increment(ref _made);
            byte[] content = new byte[Memory];
            content[12345] = 1;
            await File.WriteAllBytesAsync(memory, content, Cancellation);
            return new SavedMachine([1, 2, 3], console, "7.2.22", "debian-6.12-amd64");
        },
        _notes.Add,
        Cancellation);
}

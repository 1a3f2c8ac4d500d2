// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class KernelCacheTests : IDisposable
{
    private const string Kind = KernelCache.ImageKind;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task EntryIsMadeOnce()
    {
        using KernelCache one = new(_folder.Path);
        using KernelCache other = new(_folder.Path);
        int made = 0;

        string[] paths = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => Task.Run(() =>
            (i % 2 == 0 ? one : other).GetOrCreateAsync(Kind, "a", directory => WriteAsync(directory, () => Interlocked.Increment(ref made)), null, CancellationToken.None))));

        made.Should().Be(1);
        paths.Distinct().Should().Equal(one.PathOf(Kind, "a"));
        File.ReadAllText(Path.Combine(paths[0], "content")).Should().Be("1");
    }

    [Fact]
    public async Task FailedEntryLeavesNothing()
    {
        using KernelCache cache = new(_folder.Path);
        Func<Task> create = () => cache.GetOrCreateAsync(
            Kind,
            "a",
            async directory =>
            {
                await WriteAsync(directory, () => 1);
                throw new IOException("interrupted");
            },
            null,
            CancellationToken.None);

        await create.Should().ThrowAsync<IOException>();
        cache.Keys(Kind).Should().BeEmpty();
        Directory.EnumerateFileSystemEntries(_folder[$"kernels/{Kind}"]).Should().BeEmpty();
    }

    [Fact]
    public async Task WaitingRunTakesWhatTheOtherMade()
    {
        using KernelCache one = new(_folder.Path);
        using KernelCache other = new(_folder.Path);
        TaskCompletionSource started = new();
        TaskCompletionSource finish = new();
        TaskCompletionSource<string> waiting = new();
        Task<string> first = one.GetOrCreateAsync(
            Kind,
            "a",
            async directory =>
            {
                started.SetResult();
                await finish.Task;
                await WriteAsync(directory, () => 1);
            },
            null,
            CancellationToken.None);
        await started.Task;

        Task<string> second = other.GetOrCreateAsync(
            Kind, "a", _ => throw new InvalidOperationException("made twice"), new Reports(waiting), CancellationToken.None);
        (await waiting.Task).Should().Be("waiting for another run that is preparing a");
        finish.SetResult();

        (await second).Should().Be(await first);
    }

    [Fact]
    public async Task UseByOneRunDoesNotHoldUpAnother()
    {
        await MakeAsync("a", 1, age: 0);
        using KernelCache one = new(_folder.Path);
        using KernelCache other = new(_folder.Path);
        await one.TryUseAsync(Kind, "a", CancellationToken.None);

        Task<string> second = other.GetOrCreateAsync(Kind, "a", _ => throw new InvalidOperationException("made twice"), null, CancellationToken.None);

        (await second.WaitAsync(TimeSpan.FromSeconds(30))).Should().Be(one.PathOf(Kind, "a"));
    }

    [Fact]
    public async Task WaitingCanBeGivenUp()
    {
        using KernelCache other = new(_folder.Path);
        using FileLock held = FileLock.TryAcquire(_folder[$"locks/{Kind}-a.make"], exclusive: true)!;
        using CancellationTokenSource cancellation = new();
        TaskCompletionSource<string> waiting = new();
        Task second = other.GetOrCreateAsync(Kind, "a", _ => Task.CompletedTask, new Reports(waiting), cancellation.Token);
        await waiting.Task;

        await cancellation.CancelAsync();

        await FluentActions.Awaiting(() => second).Should().ThrowAsync<OperationCanceledException>();
    }

    [Fact]
    public async Task LeastRecentlyUsedIsPrunedFirst()
    {
        await MakeAsync("old", 1000, age: 3);
        await MakeAsync("middle", 1000, age: 2);
        await MakeAsync("young", 1000, age: 1);
        using KernelCache cache = new(_folder.Path);

        PruneResult result = cache.Prune(1500, CancellationToken.None);

        result.Removed.Select(e => e.Name).Should().Equal("old", "middle");
        result.BytesKept.Should().Be(1000);
        cache.Keys(Kind).Should().Equal("young");
    }

    [Fact]
    public async Task UseMakesAnEntryYoung()
    {
        await MakeAsync("old", 1000, age: 3);
        await MakeAsync("young", 1000, age: 1);
        using (KernelCache user = new(_folder.Path))
        {
            (await user.TryUseAsync(Kind, "old", CancellationToken.None)).Should().NotBeNull();
        }

        using KernelCache cache = new(_folder.Path);

        cache.List().Select(e => $"{e.Name} {e.Bytes} {e.InUse}").Should().Equal("young 1000 False", "old 1000 False");
    }

    [Fact]
    public async Task EntryInUseIsNotPruned()
    {
        await MakeAsync("used", 1000, age: 2);
        await MakeAsync("free", 1000, age: 1);
        using KernelCache user = new(_folder.Path);
        await user.TryUseAsync(Kind, "used", CancellationToken.None);
        Directory.SetLastWriteTimeUtc(user.PathOf(Kind, "used"), DateTime.UtcNow.AddDays(-9));
        using KernelCache cache = new(_folder.Path);

        PruneResult result = cache.Prune(0, CancellationToken.None);

        result.Removed.Select(e => e.Name).Should().Equal("free");
        result.KeptInUse.Should().Be(1);
        cache.List().Single().InUse.Should().BeTrue();
    }

    [Fact]
    public async Task TrimmingKeepsTheRecentAndTheUsed()
    {
        await MakeAsync("used", 1, age: 4);
        await MakeAsync("old", 1, age: 3);
        await MakeAsync("recent", 1, age: 2);
        using KernelCache user = new(_folder.Path);
        await user.TryUseAsync(Kind, "used", CancellationToken.None);
        Directory.SetLastWriteTimeUtc(user.PathOf(Kind, "used"), DateTime.UtcNow.AddDays(-4));

        user.Trim(Kind, keep: 1);

        user.Keys(Kind).Should().Equal("recent", "used");
    }

    [Fact]
    public void LeftoversOfADeadRunGo()
    {
        Directory.CreateDirectory(_folder[$"kernels/{Kind}/.new-half"]);
        Directory.CreateDirectory(_folder[$"kernels/{Kind}/.old-half"]);
        using KernelCache cache = new(_folder.Path);

        cache.List().Should().BeEmpty();
        cache.Prune(long.MaxValue, CancellationToken.None);

        Directory.EnumerateFileSystemEntries(_folder[$"kernels/{Kind}"]).Should().BeEmpty();
    }

    private static Task WriteAsync(string directory, Func<int> number) => File.WriteAllTextAsync(Path.Combine(directory, "content"), number().ToString());

    private async Task MakeAsync(string key, int size, int age)
    {
        using KernelCache cache = new(_folder.Path);
        string path = await cache.GetOrCreateAsync(Kind, key, directory => File.WriteAllBytesAsync(Path.Combine(directory, "x"), new byte[size]), null, CancellationToken.None);
        Directory.SetLastWriteTimeUtc(path, DateTime.UtcNow.AddDays(-age));
    }

    private sealed class Reports(TaskCompletionSource<string> first) : IProgress<string>
    {
        public void Report(string value) => first.TrySetResult(value);
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Cli;
using Conformance.Kernels;
using Conformance.Harness.Tests.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Cli;

public sealed class CacheCommandTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly StringWriter _out = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("0", 0L)]
    [InlineData("123", 123L)]
    [InlineData("4k", 4096L)]
    [InlineData("500M", 500L << 20)]
    [InlineData("2GiB", 2L << 30)]
    [InlineData("", null)]
    [InlineData("2T", null)]
    [InlineData("-1", null)]
    [InlineData("1.5G", null)]
    [InlineData("99999999999G", null)]
    public void SizeIsANumberWithALetter(string text, long? bytes) => CacheCommand.ParseSize(text).Should().Be(bytes);

    [Fact]
    public async Task EmptyingLeavesNothingToList()
    {
        Directory.CreateDirectory(_folder["cache"]);
        File.WriteAllBytes(_folder["bzImage"], TinyImage.BzImage("6.12.1-test"));
        using (KernelStore store = new(_folder["cache"]))
        {
            await store.PrepareAsync(KernelSpec.Parse(_folder["bzImage"]), new PrepareOptions(), null, CancellationToken.None);
        }

        Command().List().Should().Be(0);
        Command().Prune(long.MaxValue, CancellationToken.None).Should().Be(0);
        Command().Prune(0, CancellationToken.None).Should().Be(0);
        Command().List().Should().Be(0);

        string[] lines = _out.ToString().Split('\n');
        lines[0].Should().Contain("initramfs");
        lines[2].Should().StartWith("0.0 MiB remain in");
        lines[3].Should().StartWith("removed initramfs");
        lines[5].Should().Be($"0.0 MiB in {_folder["cache"]}");
    }

    private CacheCommand Command() => new(_folder["cache"], new CommandOutput(_out, _out, Interactive: false, Width: 100, Colour: false));
}

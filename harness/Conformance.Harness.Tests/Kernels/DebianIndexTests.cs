// SPDX-License-Identifier: MIT
using System.Text;
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class DebianIndexTests
{
    private const string Kernel = """
        Package: linux-image-6.12.117+deb13-amd64
        Source: linux-signed-amd64 (6.12.117+1)
        Version: 6.12.117-1
        Architecture: amd64
        Description: Linux 6.12 for 64-bit PCs (signed)
         Version: not a field, only a continued line
        Filename: pool/main/l/linux-signed-amd64/linux-image-6.12.117+deb13-amd64_6.12.117-1_amd64.deb
        Size: 108488460
        SHA256: ca712d367901
        """;

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(100_000)]
    public async Task KernelIsFoundHoweverTheBytesArrive(int chunk)
    {
        string text = $"Package: linux-headers-6.12\nVersion: 1\n\n{Kernel}\n\nPackage: zsh\nVersion: 2\n";

        List<DebianPackage> packages = await ReadAsync(text, chunk);

        packages.Should().Equal(new DebianPackage(
            "linux-image-6.12.117+deb13-amd64",
            "6.12.117-1",
            "amd64",
            "trixie",
            "http://mirror/debian/",
            "pool/main/l/linux-signed-amd64/linux-image-6.12.117+deb13-amd64_6.12.117-1_amd64.deb",
            108488460,
            "ca712d367901"));
    }

    [Fact]
    public async Task LastParagraphNeedsNoEmptyLine() => (await ReadAsync(Kernel, 64)).Should().HaveCount(1);

    [Fact]
    public async Task ParagraphLongerThanTheBufferIsRead()
    {
        string text = $"Package: big\nDescription: {new string('x', 3 << 20)}\n\n{Kernel}\n";

        (await ReadAsync(text, 1 << 16)).Should().HaveCount(1);
    }

    [Fact]
    public async Task KernelWithoutADigestIsNotTrusted() =>
        (await ReadAsync(Kernel.Replace("SHA256", "MD5sum"), 64)).Should().BeEmpty();

    private static async Task<List<DebianPackage>> ReadAsync(string text, int chunk)
    {
        await using Stream stream = new ChunkedStream(Encoding.UTF8.GetBytes(text.ReplaceLineEndings("\n")), chunk);
        List<DebianPackage> packages = [];
        await foreach (DebianPackage package in DebianIndex.ReadAsync(stream, "trixie", "http://mirror/debian/", CancellationToken.None))
        {
            packages.Add(package);
        }

        return packages;
    }

    private sealed class ChunkedStream(byte[] content, int chunk) : MemoryStream(content)
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            base.ReadAsync(buffer[..Math.Min(chunk, buffer.Length)], cancellationToken);
    }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Conformance.Kernels;
using FluentAssertions;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class InitramfsWriterTests
{
    [Fact]
    public async Task ArchiveHoldsWhatWasAdded()
    {
        (byte[] archive, _) = await WriteAsync(Fill);

        CpioReader.Read(archive).Select(Describe).Should().Equal(
            "dev drwxr-xr-x",
            "dev/console crw------- 5:1",
            "init -rwxr-xr-x 3 bytes",
            "modules drwxr-xr-x",
            "modules/boot.list -rw-r--r-- 0 bytes",
            "modules/kvm.ko -rw-r--r-- 5 bytes");
    }

    [Fact]
    public async Task OrderOfAddingDoesNotMatter()
    {
        (byte[] one, string first) = await WriteAsync(Fill);
        (byte[] other, string second) = await WriteAsync(writer =>
        {
            writer.AddFile("/modules/kvm.ko", "abcde"u8.ToArray());
            writer.AddFile("/modules/boot.list", default);
            writer.AddDirectory("/modules");
            writer.AddFile("/init", "abc"u8.ToArray(), executable: true);
            writer.AddDirectory("/dev/");
            writer.AddCharacterDevice("/dev/console", 5, 1);
        });

        other.Should().Equal(one);
        second.Should().Be(first);
    }

    [Fact]
    public async Task DigestIsThatOfTheArchive()
    {
        (byte[] archive, string digest) = await WriteAsync(Fill);

        digest.Should().Be(Convert.ToHexStringLower(SHA256.HashData(archive)));
    }

    [Fact]
    public async Task NothingTellsWhenItWasMade()
    {
        (byte[] archive, _) = await WriteAsync(Fill);

        IReadOnlyList<CpioEntry> entries = CpioReader.Read(archive);
        entries.Should().OnlyContain(e => e.Time == 0);
        entries.Select(e => e.Inode).Should().OnlyHaveUniqueItems().And.NotContain(0u);
    }

    [Fact]
    public void EveryLengthOfNameAndContentIsRead() =>
        Prop.ForAll<byte[], byte>((content, length) =>
        {
            string name = new('n', length + 1);
            content ??= [];
            byte[] archive = WriteAsync(writer => writer.AddFile(name, content)).Result.Archive;
            CpioEntry entry = CpioReader.Read(archive).Single();
            return archive.Length % 512 == 0 && entry.Name == name && entry.Content.SequenceEqual(content);
        }).Check(Config.QuickThrowOnFailure.WithQuietOnSuccess(true));

    [Fact]
    public void OnePathHoldsOneFile()
    {
        InitramfsWriter writer = new();
        writer.AddFile("init", default);
        Action again = () => writer.AddFile("/init", default);

        again.Should().Throw<ArgumentException>().WithMessage("*in the initramfs already*");
    }

    [Fact]
    public async Task CpioReadsIt()
    {
        string? program = new[] { "/usr/bin/cpio", "/bin/cpio", "/usr/bin/bsdcpio" }.FirstOrDefault(File.Exists);
        Assert.SkipWhen(program is null, "needs cpio or bsdcpio");
        (byte[] archive, _) = await WriteAsync(Fill);
        using Process process = Process.Start(new ProcessStartInfo(program!, ["-it"]) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true })!;
        await process.StandardInput.BaseStream.WriteAsync(archive);
        process.StandardInput.Close();

        string listed = await process.StandardOutput.ReadToEndAsync();

        listed.Split('\n', StringSplitOptions.RemoveEmptyEntries).Should().Equal(CpioReader.Read(archive).Select(e => e.Name));
    }

    private static void Fill(InitramfsWriter writer)
    {
        writer.AddCharacterDevice("dev/console", 5, 1);
        writer.AddFile("init", "abc"u8.ToArray(), executable: true);
        writer.AddFile("modules/boot.list", default);
        writer.AddFile("modules/kvm.ko", "abcde"u8.ToArray());
    }

    private static string Describe(CpioEntry entry)
    {
        StringBuilder text = new(entry.Name);
        text.Append(' ').Append((entry.Mode & 0xF000) switch { 0x4000 => 'd', 0x2000 => 'c', 0x8000 => '-', _ => '?' });
        for (int bit = 8; bit >= 0; bit--)
        {
            text.Append((entry.Mode >> bit & 1) != 0 ? "xwr"[bit % 3] : '-');
        }

        return (entry.Mode & 0xF000) switch
        {
            0x2000 => text.Append($" {entry.Major}:{entry.Minor}").ToString(),
            0x8000 => text.Append($" {entry.Content.Length} bytes").ToString(),
            _ => text.ToString(),
        };
    }

    private static async Task<(byte[] Archive, string Digest)> WriteAsync(Action<InitramfsWriter> fill)
    {
        InitramfsWriter writer = new();
        fill(writer);
        MemoryStream stream = new();
        string digest = await writer.WriteAsync(stream, CancellationToken.None);
        return (stream.ToArray(), digest);
    }
}

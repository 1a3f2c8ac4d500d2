// SPDX-License-Identifier: MIT
using System.Diagnostics;
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class DebugInfoTests
{
    [Fact]
    public void DebugInfoGoesAndTheRestStays()
    {
        byte[] module = TinyModule.BuildWithDebugInfo("kvm", "6.12.1", 1 << 20);

        byte[] smaller = DebugInfo.Remove(module);

        smaller.Length.Should().BeLessThan(2000);
        ModuleInfo.Parse(smaller).Should().BeEquivalentTo(ModuleInfo.Parse(module));
        Contents(smaller).Where(s => s.Content != "").Should().Equal(
            Contents(module).Where(s => !s.Name.Contains("debug_")));
    }

    [Fact]
    public void SectionNumbersStay()
    {
        byte[] module = TinyModule.BuildWithDebugInfo("kvm", "6.12.1", 4096);

        Contents(DebugInfo.Remove(module)).Select(s => s.Name).Should().Equal(Contents(module).Select(s => s.Name));
    }

    [Fact]
    public void ModuleWithoutItIsLeftAlone()
    {
        byte[] module = TinyModule.Build("kvm", "6.12.1");

        DebugInfo.Remove(module).Should().BeSameAs(module);
    }

    [Fact]
    public void SignedModuleIsLeftAlone()
    {
        byte[] module = [.. TinyModule.BuildWithDebugInfo("kvm", "6.12.1", 4096), .. "~Module signature appended~\n"u8];

        DebugInfo.Remove(module).Should().BeSameAs(module);
    }

    [Fact]
    public void CompilersOutputStaysReadable()
    {
        Assert.SkipUnless(File.Exists("/usr/bin/gcc") && File.Exists("/usr/bin/readelf"), "needs gcc and readelf");
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["x.c"], "int other(int); static int table[100]; int f(int a) { return other(a) + table[a]; }");
        Run("/usr/bin/gcc", "-g", "-c", "-o", folder["x.o"], folder["x.c"]).Should().Be("");

        File.WriteAllBytes(folder["y.o"], DebugInfo.Remove(File.ReadAllBytes(folder["x.o"])));

        string[] queries = ["-s", "-r"];
        foreach (string query in queries)
        {
            Loaded(Run("/usr/bin/readelf", "-W", query, folder["y.o"])).Should().Equal(Loaded(Run("/usr/bin/readelf", "-W", query, folder["x.o"])));
        }

        Run("/usr/bin/readelf", "-W", "--debug-dump=info", folder["y.o"]).Trim().Should().BeOneOf("", "Section '.debug_info' has no debugging data.");
    }

    // Relocations of debug sections are gone, the others keep everything but their place in the file.
    private static IEnumerable<string> Loaded(string text) =>
        text.Split("\n\n")
            .Where(part => !part.Contains("'.rela.debug_"))
            .SelectMany(part => part.Split('\n'))
            .Where(line => !line.StartsWith("Relocation section"));

    private static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return output + error.Result;
    }

    private static List<(string Name, string Content)> Contents(byte[] module)
    {
        ElfObject elf = new(module);
        List<(string, string)> contents = [];
        for (int i = 1; i < elf.Count; i++)
        {
            contents.Add((System.Text.Encoding.ASCII.GetString(elf.Name(i)), Convert.ToHexString(elf.Content(i))));
        }

        return contents;
    }
}

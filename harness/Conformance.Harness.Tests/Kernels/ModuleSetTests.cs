// SPDX-License-Identifier: MIT
using System.Diagnostics;
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class ModuleSetTests : IDisposable
{
    private const string Release = "6.12.1";

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task ModuleComesAfterAllItNeeds()
    {
        Put("kvm-amd", depends: "kvm,ccp");
        Put("kvm", depends: "irqbypass");
        Put("ccp");
        Put("irqbypass");

        ModuleSet set = await ResolveAsync("kvm_amd");

        set.Closures["kvm_amd"].Should().Equal("irqbypass", "kvm", "ccp", "kvm_amd");
        set.Modules.Select(m => m.FileName).Should().Equal("irqbypass.ko", "kvm.ko", "ccp.ko", "kvm-amd.ko");
    }

    [Fact]
    public async Task SharedNeedIsLoadedOnce()
    {
        Put("vfio-pci", depends: "vfio,irqbypass");
        Put("vfio", depends: "irqbypass");
        Put("irqbypass");

        (await ResolveAsync("vfio_pci")).Closures["vfio_pci"].Should().Equal("irqbypass", "vfio", "vfio_pci");
    }

    [Fact]
    public async Task SoftDependencyIsLoadedWhereItIsThere()
    {
        Put("vfio", more: "softdep=post: vfio_iommu_type1 vfio_iommu_spapr_tce");
        Put("vfio_iommu_type1", depends: "vfio");
        Put("kvm-amd", more: "softdep=pre: ccp nothere");
        Put("ccp");

        ModuleSet set = await ResolveAsync("vfio", "kvm_amd");

        set.Closures["vfio"].Should().Equal("vfio", "vfio_iommu_type1");
        set.Closures["kvm_amd"].Should().Equal("ccp", "kvm_amd");
        set.Notes.Should().BeEmpty();
    }

    [Fact]
    public async Task SoftDependenciesMayGoInACircle()
    {
        Put("a", more: "softdep=pre: b");
        Put("b", more: "softdep=pre: a");

        (await ResolveAsync("a")).Closures["a"].Should().Equal("b", "a");
    }

    [Fact]
    public async Task BuiltInModuleNeedsNoLoading()
    {
        Put("kvm", depends: "irqbypass");
        Write("modules.builtin", "kernel/virt/lib/irqbypass.ko\n");

        ModuleSet set = await ResolveAsync("kvm", "irqbypass");

        set.Closures["kvm"].Should().Equal("kvm");
        set.Closures["irqbypass"].Should().BeEmpty();
    }

    [Fact]
    public async Task ModuleTheKernelDoesNotHaveIsAbsent()
    {
        Put("kvm");
        Write("modules.builtin", "");

        (await ResolveAsync("kvm", "iommufd")).Closures.Keys.Should().Equal("kvm");
    }

    [Fact]
    public async Task WithoutAListEverythingMayBeBuiltIn()
    {
        Put("kvm");

        (await ResolveAsync("iommufd")).Closures["iommufd"].Should().BeEmpty();
    }

    [Fact]
    public async Task MissingNeedIsNoted()
    {
        Put("kvm-amd", depends: "kvm");
        Put("kvm", depends: "irqbypass");
        Write("modules.order", "kernel/virt/lib/irqbypass.ko\n");
        Write("modules.builtin", "");

        ModuleSet set = await ResolveAsync("kvm_amd");

        set.Closures.Should().NotContainKey("kvm_amd");
        set.Missing.Should().Equal("irqbypass");
        set.Notes.Should().Equal("module kvm_amd is left out: kvm_amd needs kvm, and kvm needs irqbypass, and there is no module irqbypass");
    }

    [Theory]
    [InlineData("xz", ".xz")]
    [InlineData("zstd", ".zst")]
    [InlineData("gzip", ".gz")]
    public async Task CompressedModuleIsUnpacked(string program, string suffix)
    {
        Assert.SkipUnless(File.Exists($"/usr/bin/{program}"), $"needs {program}");
        Put("kvm");
        string path = _folder["kernel/kvm.ko"];
        byte[] module = File.ReadAllBytes(path);
        using (Process process = Process.Start(program, ["-q", path]))
        {
            await process.WaitForExitAsync();
        }

        File.Delete(path);
        File.Exists(path + suffix).Should().BeTrue();

        (await ResolveAsync("kvm")).Modules.Single().Content.Should().Equal(module);
    }

    [Fact]
    public async Task OverrideTakesTheModulesPlace()
    {
        Put("kvm-amd", depends: "kvm");
        Put("kvm");
        byte[] patched = TinyModule.Build("kvm", Release, depends: "");
        patched = [.. patched, 1, 2, 3];
        File.WriteAllBytes(_folder["patched.ko"], patched);

        ModuleSet set = await ResolveAsync(["kvm_amd"], ("kvm.ko", _folder["patched.ko"]));

        SelectedModule kvm = set.Modules.Single(m => m.Name == "kvm");
        kvm.Overridden.Should().BeTrue();
        kvm.Content.Should().Equal(patched);
        set.Modules.Single(m => m.Name == "kvm_amd").Overridden.Should().BeFalse();
    }

    [Fact]
    public async Task OverrideBringsItsOwnNeeds()
    {
        Put("kvm");
        Put("irqbypass");
        File.WriteAllBytes(_folder["patched.ko"], TinyModule.Build("kvm", Release, depends: "irqbypass"));

        (await ResolveAsync(["kvm"], ("kvm", _folder["patched.ko"]))).Closures["kvm"].Should().Equal("irqbypass", "kvm");
    }

    [Fact]
    public async Task OverriddenModuleIsWantedByItself()
    {
        Put("e1000e");
        File.WriteAllBytes(_folder["e1000e.ko"], TinyModule.Build("e1000e", Release));

        (await ResolveAsync([], ("e1000e.ko", _folder["e1000e.ko"]))).Closures["e1000e"].Should().Equal("e1000e");
    }

    public static TheoryData<string, byte[]?, string> UnfitOverrides() => new()
    {
        { "kvm.ko", null, "--module kvm.ko=*there is no such file." },
        { "kmv.ko", TinyModule.Build("kvm", Release), "*no module kmv. Did you mean kvm.ko?" },
        { "zzzzzz.ko", TinyModule.Build("kvm", Release), "*this kernel has no module zzzzzz." },
        { "irqbypass.ko", TinyModule.Build("irqbypass", Release), "*irqbypass is built into this kernel*" },
        { "kvm.ko", TinyModule.Build("kvm_amd", Release), "*is the module kvm_amd, not kvm." },
        { "kvm.ko", TinyModule.Build("kvm", "6.12.2"), "*built for 6.12.2, but the kernel is 6.12.1*Module.symvers*" },
        { "kvm.ko", TinyModule.Build("kvm", Release + " PREEMPT_RT"), "*is built as '6.12.1 PREEMPT_RT SMP*', but the kernel wants '6.12.1 SMP*'*" },
        { "kvm.ko", TinyModule.Build("kvm", Release, TinyModule.Arm64), "*is for arm64, but the kernel is x86_64." },
        { "kvm.ko", "text"u8.ToArray(), "*the file is not an ELF file." },
        { "kvm.ko", TinyModule.Build("kvm", Release, depends: "nowhere"), "*kvm needs nowhere, and there is no module nowhere." },
    };

    [Theory]
    [MemberData(nameof(UnfitOverrides))]
    public async Task UnfitOverrideSaysWhy(string name, byte[]? content, string message)
    {
        Put("kvm");
        Write("modules.builtin", "kernel/virt/lib/irqbypass.ko\n");
        if (content is not null)
        {
            File.WriteAllBytes(_folder["patched.ko"], content);
        }

        Func<Task> resolve = () => ResolveAsync(["kvm"], (name, _folder["patched.ko"]));

        await resolve.Should().ThrowAsync<UsageException>().WithMessage(message);
    }

    [Fact]
    public async Task OverrideForAnotherStructModuleIsRefused()
    {
        Directory.CreateDirectory(_folder["kernel"]);
        File.WriteAllBytes(_folder["kernel/kvm.ko"], TinyModule.BuildWithStructModule("kvm", Release, 0x500, 0x138));
        File.WriteAllBytes(_folder["patched.ko"], TinyModule.BuildWithStructModule("kvm", Release, 0x500, 0x130));
        Func<Task> resolve = () => ResolveAsync(["kvm"], ("kvm.ko", _folder["patched.ko"]));

        await resolve.Should().ThrowAsync<UsageException>().WithMessage("*(1280 bytes, init at 0x130, exit at none)*(1280 bytes, init at 0x138, exit at none)*CONFIG_DEBUG_INFO_BTF*pahole*");
    }

    [Fact]
    public async Task KernelWithoutModulesHasNoneToSwap()
    {
        File.WriteAllBytes(_folder["kvm.ko"], TinyModule.Build("kvm", Release));
        Func<Task> resolve = () => ModuleSet.ResolveAsync(
            ModuleTree.Empty,
            [],
            new Dictionary<string, string> { ["kvm.ko"] = _folder["kvm.ko"] },
            Release,
            KernelArchitecture.X86_64,
            CancellationToken.None);

        await resolve.Should().ThrowAsync<UsageException>().WithMessage("*came without modules*IMAGE,modules=DIR*");
    }

    [Fact]
    public async Task ModulesOfAnotherReleaseAreRefused()
    {
        Directory.CreateDirectory(_folder["kernel"]);
        File.WriteAllBytes(_folder["kernel/kvm.ko"], TinyModule.Build("kvm", "6.1.0"));
        Func<Task> resolve = () => ResolveAsync("kvm");

        await resolve.Should().ThrowAsync<UsageException>().WithMessage("*kvm.ko is built for 6.1.0, but the kernel is 6.12.1*");
    }

    private Task<ModuleSet> ResolveAsync(params string[] roots) => ResolveAsync(roots, []);

    private Task<ModuleSet> ResolveAsync(string[] roots, params (string Name, string Path)[] overrides) =>
        ModuleSet.ResolveAsync(
            ModuleTree.ReadInstalled(_folder.Path),
            roots,
            overrides.ToDictionary(o => o.Name, o => o.Path),
            Release,
            KernelArchitecture.X86_64,
            CancellationToken.None);

    private void Put(string name, string depends = "", params string[] more)
    {
        Directory.CreateDirectory(_folder["kernel"]);
        File.WriteAllBytes(_folder[$"kernel/{name}.ko"], TinyModule.Build(ModuleName.Canonical(name), Release, depends: depends, more: more));
    }

    private void Write(string path, string text) => File.WriteAllText(_folder[path], text);
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class ModuleTreeTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void InstalledModulesAreFoundByEitherSpelling()
    {
        Put("kernel/arch/x86/kvm/kvm-amd.ko.xz");
        Put("kernel/drivers/vfio/vfio_iommu_type1.ko.zst");
        Write("modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/char/virtio-console.ko\n");

        ModuleTree tree = ModuleTree.ReadInstalled(_folder.Path);

        tree.Files.Keys.Should().BeEquivalentTo("kvm_amd", "vfio_iommu_type1");
        tree.BuiltIn.Should().BeEquivalentTo(["virtio_pci", "virtio_console"]);
    }

    [Fact]
    public void DepmodDecidesBetweenTwoOfOneName()
    {
        Put("kernel/virt/kvm.ko");
        Put("weird/place/kvm.ko");
        Write("modules.dep", "weird/place/kvm.ko: kernel/virt/gone.ko\nkernel/virt/gone.ko:\n");

        ModuleTree tree = ModuleTree.ReadInstalled(_folder.Path);

        tree.Files.Should().Equal(new Dictionary<string, string> { ["kvm"] = _folder["weird/place/kvm.ko"] });
    }

    [Fact]
    public void UpdatesComeFirstWhereDepmodHasNotRun()
    {
        Put("kernel/virt/kvm.ko");
        Put("updates/dkms/kvm.ko");

        ModuleTree.ReadInstalled(_folder.Path).Files["kvm"].Should().Be(_folder["updates/dkms/kvm.ko"]);
    }

    [Fact]
    public void LinkToTheKernelTreeIsNotFollowed()
    {
        using TemporaryFolder source = new();
        File.WriteAllText(source["stray.ko"], "");
        Put("kernel/virt/kvm.ko");
        Directory.CreateSymbolicLink(_folder["build"], source.Path);

        ModuleTree.ReadInstalled(_folder.Path).Files.Keys.Should().Equal("kvm");
    }

    [Theory]
    [InlineData("kernel/arch/x86/kvm/kvm.ko\n")]
    [InlineData("arch/x86/kvm/kvm.ko\n")]
    [InlineData("arch/x86/kvm/kvm.o\n")]
    public void BuildTreeListsModulesAsItsReleaseDoes(string order)
    {
        Put("arch/x86/kvm/kvm.ko");
        Put("samples/unlisted.ko");
        Write("modules.order", order);

        ModuleTree tree = ModuleTree.ReadBuildTree(_folder.Path);

        tree.Files.Should().Equal(new Dictionary<string, string> { ["kvm"] = _folder["arch/x86/kvm/kvm.ko"] });
    }

    [Fact]
    public void BuildTreeWithoutAListIsSearched()
    {
        Put("arch/x86/kvm/kvm.ko");

        ModuleTree.ReadBuildTree(_folder.Path).Files.Keys.Should().Equal("kvm");
    }

    [Theory]
    [InlineData("")]
    [InlineData("lib/modules/6.12.1/")]
    [InlineData("usr/lib/modules/6.12.1/")]
    [InlineData("6.12.1/")]
    public void DirectoryMayBeAnyOfThoseAbove(string place)
    {
        Put($"{place}kernel/virt/kvm.ko");

        ModuleTree.Locate(_folder.Path, "6.12.1").Files.Keys.Should().Equal("kvm");
    }

    [Fact]
    public void OneOfSeveralReleasesIsTaken()
    {
        Put("6.1.0/kernel/virt/kvm.ko");
        Put("6.12.1/kernel/virt/kvm.ko");

        ModuleTree.Locate(_folder.Path, "6.12.1").Directory.Should().Be(_folder["6.12.1"]);
    }

    [Fact]
    public void ModulesOfOtherReleasesAreNamed()
    {
        Put("6.1.0/kernel/virt/kvm.ko");
        Action locate = () => ModuleTree.Locate(_folder.Path, "6.12.1");

        locate.Should().Throw<UsageException>().WithMessage("*has modules for 6.1.0, but the kernel is 6.12.1*");
    }

    [Fact]
    public void EmptyDirectoryIsNoModuleTree()
    {
        Action locate = () => ModuleTree.Locate(_folder.Path, "6.12.1");

        locate.Should().Throw<UsageException>().WithMessage("*holds no modules*modules_install*");
    }

    [Theory]
    [InlineData("kmv", "kvm")]
    [InlineData("kvm-amb", "kvm_amd")]
    [InlineData("vfio_iommu_typel", "vfio_iommu_type1")]
    [InlineData("vfio-pci-", "vfio_pci")]
    public void MisspeltNameHasANeighbour(string name, string near)
    {
        Write("modules.order", string.Concat(new[] { "kvm", "kvm-amd", "kvm-intel", "vfio", "vfio-pci", "vfio_iommu_type1", "e1000e" }.Select(m => $"kernel/{m}.ko\n")));

        ModuleTree.ReadInstalled(_folder.Path).Near(name)[0].Should().Be(near);
    }

    private void Put(string path) => Write(path, "");

    private void Write(string path, string text)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_folder[path])!);
        File.WriteAllText(_folder[path], text);
    }
}

// SPDX-License-Identifier: MIT
using System.Text;
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class KernelStoreTests : IDisposable
{
    private const string Release = "6.12.1-test";

    private readonly TemporaryFolder _folder = new();
    private readonly KernelStore _store;

    public KernelStoreTests() => _store = new KernelStore(_folder["cache"]);

    public void Dispose()
    {
        _store.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task ImageFileIsBootedAsItIs()
    {
        Write("bzImage", TinyImage.BzImage(Release));

        PreparedKernel kernel = await PrepareAsync(_folder["bzImage"]);

        kernel.ImagePath.Should().Be(_folder["bzImage"]);
        kernel.Release.Should().Be(Release);
        kernel.Id.Should().Be($"image-{Release}-{kernel.ImageSha256[..8]}");
        kernel.IsBooted.Should().BeTrue();
        kernel.LoadOrder("kvm").Should().BeEmpty();
    }

    [Fact]
    public async Task WrappedImageIsUnwrappedOnce()
    {
        Write("Image.gz", TinyImage.Gzip(TinyImage.Arm64(Release)));

        PreparedKernel kernel = await PrepareAsync(_folder["Image.gz"]);

        kernel.ImagePath.Should().StartWith(_folder["cache/kernels/images"]);
        File.ReadAllBytes(kernel.ImagePath).Should().Equal(TinyImage.Arm64(Release));
        (await PrepareAsync(_folder["Image.gz"])).ImagePath.Should().Be(kernel.ImagePath);
    }

    [Fact]
    public async Task ImageTakesModulesOfItsRelease()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Module($"root/lib/modules/{Release}/kernel/virt/kvm.ko", "kvm");
        Module("root/lib/modules/5.0.0/kernel/virt/kvm.ko", "kvm", "5.0.0");
        Write($"root/lib/modules/{Release}/modules.order", "");
        Write("root/lib/modules/5.0.0/modules.order", "");

        PreparedKernel kernel = await PrepareAsync($"{_folder["bzImage"]},modules={_folder["root"]}");

        kernel.LoadOrder("kvm").Should().ContainSingle();
    }

    [Fact]
    public async Task BuildTreeIsTakenAsMakeLeftIt()
    {
        Write("tree/arch/x86/boot/bzImage", TinyImage.BzImage(Release));
        Write("tree/.config", Configuration());
        Write("tree/modules.order", "arch/x86/kvm/kvm.o\n");
        Write("tree/modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/char/virtio_console.ko\n");
        Module("tree/arch/x86/kvm/kvm.ko", "kvm");

        PreparedKernel kernel = await PrepareAsync(_folder["tree"]);

        kernel.Id.Should().StartWith($"build-{Release}-");
        kernel.Config.Should().Be(_folder["tree/.config"]);
        kernel.Modules.Select(m => m.Path).Should().Equal("/modules/kvm.ko");
        kernel.Notes.Should().Contain("CONFIG_VFIO_PCI is off: every claim about VFIO is skipped");
    }

    [Fact]
    public async Task BuildTreeOfTwoArchitecturesGivesTheWantedOne()
    {
        Write("tree/arch/x86/boot/bzImage", TinyImage.BzImage(Release));
        Write("tree/arch/arm64/boot/Image", TinyImage.Arm64(Release));

        (await PrepareAsync(_folder["tree"])).Architecture.Should().Be(KernelArchitecture.X86_64);
        (await PrepareAsync(_folder["tree"], new PrepareOptions { Architecture = KernelArchitecture.Arm64 })).Architecture.Should().Be(KernelArchitecture.Arm64);
    }

    [Fact]
    public async Task AgentAndGuestsAreAboard()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Write("agent", TinyModule.Build("agent", Release));
        Write("guests/x86_64.img", "64");
        Write("guests/x86_32.img", "32");
        Write("guests/arm64.img", "arm");

        PreparedKernel kernel = await PrepareAsync(_folder["bzImage"], new PrepareOptions { AgentPath = _folder["agent"], GuestsDirectory = _folder["guests"] });

        IReadOnlyList<CpioEntry> entries = CpioReader.Read(File.ReadAllBytes(kernel.InitramfsPath));
        entries.Select(e => e.Name).Should().Equal("dev", "dev/console", "guests", "guests/x86_32.img", "guests/x86_64.img", "init", "modules", "modules/boot.list", "proc", "sys");
        entries.Single(e => e.Name == "init").Mode.Should().Be(0x81ED, "/init must be executable");
    }

    [Fact]
    public async Task ModularConsoleIsLoadedByTheAgent()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Write("modules/modules.builtin", "");
        Module("modules/kernel/virtio_console.ko", "virtio_console", depends: "virtio");
        Module("modules/kernel/virtio_pci.ko", "virtio_pci", depends: "virtio");
        Module("modules/kernel/virtio.ko", "virtio");

        PreparedKernel kernel = await PrepareAsync($"{_folder["bzImage"]},modules={_folder["modules"]}");

        byte[] list = CpioReader.Read(File.ReadAllBytes(kernel.InitramfsPath)).Single(e => e.Name == "modules/boot.list").Content;
        Encoding.ASCII.GetString(list).Should().Be("/modules/virtio.ko\n/modules/virtio_pci.ko\n/modules/virtio_console.ko\n");
    }

    [Fact]
    public async Task SameIngredientsGiveTheSameInitramfs()
    {
        Write("bzImage", TinyImage.BzImage(Release));

        (await PrepareAsync(_folder["bzImage"])).InitramfsSha256.Should().Be((await PrepareAsync(_folder["bzImage"])).InitramfsSha256);
    }

    [Fact]
    public async Task HostIsDescribed()
    {
        PreparedKernel kernel = await PrepareAsync("host");

        kernel.Release.Should().Be(File.ReadAllText("/proc/sys/kernel/osrelease").Trim());
        kernel.IsBooted.Should().BeFalse();
        kernel.LoadOrder("kvm").Should().BeEmpty();
    }

    [Fact]
    public async Task RecordSurvivesJson()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Module("modules/kernel/virt/kvm-amd.ko", "kvm_amd");
        PreparedKernel kernel = await PrepareAsync($"{_folder["bzImage"]},modules={_folder["modules"]}");

        await kernel.SaveAsync(_folder["kernel.json"]);
        PreparedKernel read = await PreparedKernel.LoadAsync(_folder["kernel.json"]);

        read.Should().BeEquivalentTo(kernel);
        read.LoadOrder("kvm-amd").Should().ContainSingle();
        File.ReadAllText(_folder["kernel.json"]).Should().Contain("\"architecture\": \"x86_64\"");
    }

    [Fact]
    public async Task SwappedModuleStaysOutOfTheInitramfs()
    {
        Write("tree/arch/x86/boot/bzImage", TinyImage.BzImage(Release));
        Write("tree/.config", Configuration().Replace("CONFIG_VIRTIO_CONSOLE=y", "CONFIG_VIRTIO_CONSOLE=m"));
        Write("tree/modules.order", "arch/x86/kvm/kvm.o\ndrivers/char/virtio_console.o\n");
        Write("tree/modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\n");
        Module("tree/arch/x86/kvm/kvm.ko", "kvm");
        Module("tree/drivers/char/virtio_console.ko", "virtio_console");
        Module("first/kvm.ko", "kvm", depends: "virtio_console");
        Module("second/kvm.ko", "kvm");
        Module("second/virtio_console.ko", "virtio_console");

        PreparedKernel first = await SwapAsync("first/kvm.ko");
        PreparedKernel second = await SwapAsync("second/kvm.ko");
        PreparedKernel console = await SwapAsync("second/virtio_console.ko");

        first.InitramfsSha256.Should().Be((await PrepareAsync(_folder["tree"])).InitramfsSha256);
        second.InitramfsSha256.Should().Be(first.InitramfsSha256);
        File.ReadAllBytes(second.FindModule("kvm")!.Upload!).Should().Equal(File.ReadAllBytes(_folder["second/kvm.ko"]));
        first.LoadOrder("kvm")!.Select(m => m.Name).Should().Equal("virtio_console", "kvm");
        console.FindModule("virtio_console")!.Upload.Should().BeNull("the agent is reached through it, so it is loaded from the initramfs");
        console.Modules.Should().Contain(m => m.Overridden);

        Task<PreparedKernel> SwapAsync(string module) => PrepareAsync(
            _folder["tree"], new PrepareOptions { ModuleOverrides = new Dictionary<string, string> { [Path.GetFileName(module)] = _folder[module] } });
    }

    [Fact]
    public async Task CacheShowsAndLosesWhatIsNotUsed()
    {
        Write("Image.gz", TinyImage.Gzip(TinyImage.Arm64(Release)));
        using (KernelStore other = new(_folder["cache"]))
        {
            await other.PrepareAsync(KernelSpec.Parse(_folder["Image.gz"]), new PrepareOptions(), null, CancellationToken.None);
            _store.PruneCache(0).KeptInUse.Should().Be(2);
        }

        _store.ListCache().Select(e => e.Kind).Should().BeEquivalentTo("images", "initramfs");
        _store.PruneCache(0).Removed.Should().HaveCount(2);
        _store.ListCache().Should().BeEmpty();
    }

    [Theory]
    [InlineData("tree", "*is not a kernel build tree*")]
    [InlineData("source", "*kernel tree without an image*make bzImage modules*")]
    public async Task DirectoryWithoutAKernelSaysWhatToBuild(string name, string message)
    {
        Directory.CreateDirectory(_folder["tree"]);
        Write("source/Kbuild", "");

        await Failing(_folder[name]).Should().ThrowAsync<UsageException>().WithMessage(message);
    }

    [Fact]
    public async Task OtherArchitectureIsRefused()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Write("tree/arch/x86/boot/bzImage", TinyImage.BzImage(Release));
        PrepareOptions arm = new() { Architecture = KernelArchitecture.Arm64 };

        await Failing(_folder["bzImage"], arm).Should().ThrowAsync<UsageException>().WithMessage("*bzImage is an x86_64 kernel, but arm64 is asked for*");
        await Failing(_folder["tree"], arm).Should().ThrowAsync<UsageException>().WithMessage("*has an x86_64 kernel, but arm64 is asked for*");
        await Failing("debian:6.12:amd64", arm).Should().ThrowAsync<UsageException>().WithMessage("*is an x86_64 kernel, but arm64 is asked for*");
    }

    [Fact]
    public async Task UnreachableAgentIsSaidBeforeBooting()
    {
        Write("tree/arch/x86/boot/bzImage", TinyImage.BzImage(Release));
        Write("tree/.config", Configuration().Replace("CONFIG_VIRTIO_CONSOLE=y", ""));

        await Failing(_folder["tree"]).Should().ThrowAsync<UsageException>().WithMessage("*Enable CONFIG_VIRTIO_CONSOLE and build it again.");
    }

    [Fact]
    public async Task ModularConsoleWithoutModulesIsSaidBeforeBooting()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Write($"config-{Release}", Configuration().Replace("CONFIG_VIRTIO_CONSOLE=y", "CONFIG_VIRTIO_CONSOLE=m"));

        await Failing(_folder["bzImage"]).Should().ThrowAsync<UsageException>().WithMessage("*virtio_console is a module of this kernel*Add ',modules=DIR'*");
    }

    [Theory]
    [InlineData("missing", "*The agent * is not built. Run: make -C harness/Agent.")]
    [InlineData("arm", "*is not an agent for x86_64*")]
    public async Task UnfitAgentIsTheMachinesFault(string agent, string message)
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Write("arm", TinyModule.Build("agent", Release, TinyModule.Arm64));

        await Failing(_folder["bzImage"], new PrepareOptions { AgentPath = _folder[agent] }).Should().ThrowAsync<MachineFaultException>().WithMessage(message);
    }

    [Fact]
    public async Task MissingGuestsAreTheMachinesFault()
    {
        Write("bzImage", TinyImage.BzImage(Release));
        Write("guests/arm64.img", "");

        await Failing(_folder["bzImage"], new PrepareOptions { GuestsDirectory = _folder["guests"] }).Should().ThrowAsync<MachineFaultException>().WithMessage("*no guest images for x86_64*make -C guests*");
    }

    [Fact]
    public async Task RunningKernelTakesNoModules() =>
        await Failing("host", new PrepareOptions { ModuleOverrides = new Dictionary<string, string> { ["kvm.ko"] = "x" } })
            .Should().ThrowAsync<UsageException>().WithMessage("*--module works only with a kernel that is booted*");

    [Fact]
    public async Task FullDiskIsTheMachinesFault()
    {
        Assert.SkipUnless(Directory.Exists("/dev/full") || File.Exists("/dev/full"), "needs /dev/full");
        IOException full = await Assert.ThrowsAsync<IOException>(async () =>
        {
            await using FileStream stream = new("/dev/full", FileMode.Open, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
            await stream.WriteAsync(new byte[1]);
        });

        NoSpace.Is(full).Should().BeTrue();
        NoSpace.Is(new FileNotFoundException()).Should().BeFalse();
        NoSpace.Message(_folder.Path).Should().Contain(_folder.Path).And.Contain("CONFORMANCE_CACHE");
    }

    private static string Configuration() =>
        string.Concat(new[] { "BLK_DEV_INITRD", "BINFMT_ELF", "PCI", "VIRTIO_PCI", "VIRTIO_CONSOLE", "KVM", "KVM_AMD" }.Select(option => $"CONFIG_{option}=y\n"));

    private Func<Task> Failing(string spec, PrepareOptions? options = null) => () => PrepareAsync(spec, options);

    private Task<PreparedKernel> PrepareAsync(string spec, PrepareOptions? options = null) =>
        _store.PrepareAsync(KernelSpec.Parse(spec), options ?? new PrepareOptions(), null, CancellationToken.None);

    private void Module(string path, string name, string release = Release, string depends = "") => Write(path, TinyModule.Build(name, release, depends: depends));

    private void Write(string path, string text) => Write(path, Encoding.UTF8.GetBytes(text));

    private void Write(string path, byte[] content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_folder[path])!);
        File.WriteAllBytes(_folder[path], content);
    }
}

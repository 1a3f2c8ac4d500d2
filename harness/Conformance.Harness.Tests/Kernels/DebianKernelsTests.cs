// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

/// <summary>apt, dpkg-deb and the cache together, against an archive in a folder.</summary>
public sealed class DebianKernelsTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly TinyArchive _archive;
    private readonly Lines _progress = new();

    public DebianKernelsTests()
    {
        TinyArchive.Require();
        _archive = new TinyArchive(_folder);
    }

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task NewestOfAllSuitesIsPrepared()
    {
        _archive.AddWhole("bookworm-backports", "6.12.94+deb12-amd64", "6.12.94-1~bpo12+1");
        _archive.AddWhole("trixie-security", "6.12.117+deb13-amd64", "6.12.117-1");
        _archive.AddWhole("trixie", "6.12.95+deb13-amd64", "6.12.95-1");

        PreparedKernel kernel = await PrepareAsync("debian:6.12");

        kernel.Id.Should().Be("debian-6.12.117-amd64");
        kernel.Release.Should().Be("6.12.117+deb13-amd64");
        kernel.Source.Should().Be("debian:6.12");
        kernel.Packages.Should().Equal("linux-image-6.12.117+deb13-amd64 6.12.117-1 (trixie-security)");
        kernel.Notes.Should().BeEmpty();
        kernel.Config.Should().NotBeNull();
    }

    [Fact]
    public async Task InitramfsHoldsTheModulesAndTheirNeeds()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");

        PreparedKernel kernel = await PrepareAsync("debian:6.12");

        CpioReader.Read(File.ReadAllBytes(kernel.InitramfsPath)).Select(e => e.Name).Should().Equal(
            "dev", "dev/console", "guests", "modules", "modules/away.ko", "modules/boot.list", "modules/kvm-amd.ko", "modules/kvm.ko", "proc", "sys");
        kernel.LoadOrder("kvm-amd")!.Select(m => m.Path).Should().Equal("/modules/away.ko", "/modules/kvm.ko", "/modules/kvm-amd.ko");
        kernel.LoadOrder("virtio_pci").Should().BeEmpty();
        kernel.LoadOrder("vfio-pci").Should().BeNull();
    }

    [Fact]
    public async Task SplitPackagesMakeOneKernel()
    {
        _archive.AddSplit("sid", "7.2.13+deb14-amd64", "7.2.13-1");
        _archive.AddSplit("trixie-backports", "7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", signed: false);

        (await PrepareAsync("debian:7.2")).LoadOrder("kvm").Should().HaveCount(2);
        (await PrepareAsync("debian:7")).Packages[0].Should().StartWith("linux-binary-unsigned-7.3.4");
    }

    [Fact]
    public async Task Arm64ImageIsUnwrapped()
    {
        _archive.AddWhole("sid", "6.12.1-arm64", "6.12.1-1", KernelArchitecture.Arm64);

        PreparedKernel kernel = await PrepareAsync("debian:6.12:arm64");

        kernel.Architecture.Should().Be(KernelArchitecture.Arm64);
        File.ReadAllBytes(kernel.ImagePath).Should().Equal(TinyImage.Arm64("6.12.1-arm64"));
    }

    [Fact]
    public async Task SecondTimeNothingIsFetched()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        PreparedKernel first = await PrepareAsync("debian:6.12");
        _archive.Unplug();
        _progress.Clear();

        PreparedKernel second = await PrepareAsync("debian:6.12");

        second.Should().BeEquivalentTo(first);
        _progress.Should().BeEmpty();
    }

    [Fact]
    public async Task VersionNotInTheIndexIsLookedForAgain()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        await PrepareAsync("debian:6.12");
        _archive.AddWhole("sid", "6.13.1-amd64", "6.13.1-1");
        _archive.Age(TimeSpan.FromHours(1));

        (await PrepareAsync("debian:6.13")).Release.Should().Be("6.13.1-amd64");
    }

    [Fact]
    public async Task IndexOfYesterdayIsFetchedAgain()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        await PrepareAsync("debian:6.12");
        _archive.AddWhole("sid", "6.12.2-amd64", "6.12.2-1");

        (await PrepareAsync("debian:6.12")).Release.Should().Be("6.12.1-amd64");
        _archive.Age(TimeSpan.FromHours(25));

        (await PrepareAsync("debian:6.12")).Release.Should().Be("6.12.2-amd64");
    }

    [Fact]
    public async Task PackageGoneFromThePoolGivesWayToTheNextNewest()
    {
        _archive.AddWhole("trixie", "6.12.1-amd64", "6.12.1-1");
        _archive.AddWhole("trixie-security", "6.12.2-amd64", "6.12.2-1");
        _archive.Lose("linux-image-6.12.2-amd64");

        PreparedKernel kernel = await PrepareAsync("debian:6.12");

        kernel.Release.Should().Be("6.12.1-amd64");
        kernel.Notes.Should().Equal("linux-image-6.12.2-amd64 6.12.2-1 is listed in trixie-security but is gone from the pool; 6.12.1-amd64 was taken instead");
    }

    [Fact]
    public async Task PackageGoneFromThePoolIsNamedWhenNoneIsLeft()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        _archive.Lose("linux-image-6.12.1-amd64");

        await Failing("debian:6.12.1").Should().ThrowAsync<UsageException>()
            .WithMessage("debian:6.12.1: linux-image-6.12.1-amd64 6.12.1-1 is listed in sid but is gone from the pool. Name another version, such as debian:6.12.");
    }

    [Fact]
    public async Task UnknownVersionIsAnsweredWithTheKnown()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        _archive.AddWhole("sid", "5.10.0-9-amd64", "5.10.7-1");

        await Failing("debian:6.13").Should().ThrowAsync<UsageException>()
            .WithMessage("debian:6.13: Debian has no kernel 6.13 for amd64. It has 5.10.7, 6.12.1; write for example debian:6.12.1.");
    }

    [Fact]
    public async Task CachedKernelServesOffline()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        _archive.AddWhole("sid", "6.12.2-amd64", "6.12.2-1");
        await PrepareAsync("debian:6.12.1");
        await PrepareAsync("debian:6.12.2");

        PreparedKernel kernel = await PrepareAsync("debian:6.12", new PrepareOptions { Offline = true });

        kernel.Release.Should().Be("6.12.2-amd64");
        kernel.Notes.Should().Equal("offline: 6.12.2-amd64 (6.12.2-1) was taken from the cache; Debian may have a newer one");
    }

    [Fact]
    public async Task CachedKernelsAreListedAsASpecificationNamesThem()
    {
        _archive.AddWhole("sid", "6.12.10-amd64", "6.12.10-1");
        _archive.AddWhole("sid", "6.12.9-amd64", "6.12.9-1");
        await PrepareAsync("debian:6.12.10");
        await PrepareAsync("debian:6.12.9");

        using KernelStore store = _archive.OpenStore();

        store.ListDebian().Should().Equal(("debian:6.12.9:amd64", "6.12.9-amd64"), ("debian:6.12.10:amd64", "6.12.10-amd64"));
    }

    [Fact]
    public async Task OfflineWithoutItIsTheMachinesFault()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        await PrepareAsync("debian:6.12");

        await Failing("debian:6.13", new PrepareOptions { Offline = true }).Should().ThrowAsync<MachineFaultException>()
            .WithMessage("debian:6.13: no such kernel for amd64 is in the cache, and the network is not to be used (--offline). The cache has debian:6.12.1.");
    }

    [Fact]
    public async Task CachedKernelServesWhenTheMirrorIsSilent()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        await PrepareAsync("debian:6.12");
        _archive.Unplug();
        _archive.Age(TimeSpan.FromDays(2));

        PreparedKernel kernel = await PrepareAsync("debian:6.12");

        kernel.Release.Should().Be("6.12.1-amd64");
        kernel.Notes.Should().ContainSingle().Which.Should().StartWith("Debian's package indexes could not be fetched and are 48 hours old");
    }

    [Fact]
    public async Task SilentMirrorWithoutACacheIsTheMachinesFault()
    {
        _archive.Unplug();

        await Failing("debian:6.12").Should().ThrowAsync<MachineFaultException>()
            .WithMessage("debian:6.12: no such kernel for amd64 is in the cache, and Debian's archive does not answer:*The cache has no Debian kernel yet.");
    }

    [Fact]
    public async Task ModuleNobodyAskedForBeforeIsFetchedLater()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        (await PrepareAsync("debian:6.12")).LoadOrder("e1000e").Should().BeNull();
        _progress.Clear();

        PreparedKernel kernel = await PrepareAsync("debian:6.12", new PrepareOptions { ExtraModules = ["e1000e", "nosuch"] });

        kernel.LoadOrder("e1000e").Should().ContainSingle();
        kernel.LoadOrder("nosuch").Should().BeNull();
        _progress.Should().Equal("fetching linux-image-6.12.1-amd64 again for e1000e");
    }

    [Fact]
    public async Task OverrideIsMarked()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        File.WriteAllBytes(_folder["kvm.ko"], TinyModule.Build("kvm", "6.12.1-amd64", depends: "away"));

        PreparedKernel kernel = await PrepareAsync("debian:6.12", new PrepareOptions { ModuleOverrides = new Dictionary<string, string> { ["kvm.ko"] = _folder["kvm.ko"] } });

        kernel.Modules.Where(m => m.Overridden).Select(m => m.Name).Should().Equal("kvm");
    }

    [Fact]
    public async Task SecondTimeNoModuleIsRead()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        PreparedKernel first = await PrepareAsync("debian:6.12");
        SpoilModules();

        (await PrepareAsync("debian:6.12")).Should().BeEquivalentTo(first);
        await Failing("debian:6.12", new PrepareOptions { ExtraModules = ["away"] }).Should().ThrowAsync<UsageException>("other modules are asked for");
    }

    [Fact]
    public async Task SwappedModuleThatWasBuiltAgainIsTaken()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        await PrepareAsync("debian:6.12");
        DateTime built = DateTime.UtcNow;
        PreparedKernel[] kernels = [await SwapAsync("one"), await SwapAsync("two"), await SwapAsync("one")];

        kernels.Select(k => k.FindModule("kvm")!.Sha256).Distinct().Should().HaveCount(2);
        kernels[2].Should().BeEquivalentTo(kernels[0]);

        async Task<PreparedKernel> SwapAsync(string depends)
        {
            File.WriteAllBytes(_folder["kvm.ko"], TinyModule.Build("kvm", "6.12.1-amd64", depends: depends == "one" ? "away" : ""));
            File.SetLastWriteTimeUtc(_folder["kvm.ko"], built);
            return await PrepareAsync("debian:6.12", new PrepareOptions { ModuleOverrides = new Dictionary<string, string> { ["kvm.ko"] = _folder["kvm.ko"] } });
        }
    }

    [Fact]
    public async Task WhatWasPrunedIsPreparedAgain()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");
        await PrepareAsync("debian:6.12");
        PreparedKernel first = await PrepareAsync("debian:6.12");
        Directory.Delete(Path.GetDirectoryName(first.InitramfsPath)!, recursive: true);

        PreparedKernel second = await PrepareAsync("debian:6.12");

        second.Should().BeEquivalentTo(first);
        File.Exists(second.InitramfsPath).Should().BeTrue();
    }

    [Fact]
    public async Task TwoRunsFetchOnce()
    {
        _archive.AddWhole("sid", "6.12.1-amd64", "6.12.1-1");

        PreparedKernel[] kernels = await Task.WhenAll(PrepareAsync("debian:6.12"), PrepareAsync("debian:6.12"));

        kernels[0].Should().BeEquivalentTo(kernels[1]);
        _progress.Count(line => line.StartsWith("fetching linux-image")).Should().Be(1);
        _progress.Count(line => line.StartsWith("fetching Debian's package indexes")).Should().Be(1);
    }

    [Fact]
    public async Task ExactReleaseIsPartOfTheId()
    {
        _archive.AddWhole("sid", "6.12.1+deb12-amd64", "6.12.1-1~deb12u1");

        (await PrepareAsync("debian:6.12.1+deb12")).Id.Should().Be("debian-6.12.1+deb12-amd64");
    }

    private void SpoilModules()
    {
        foreach (string module in Directory.GetFiles(_folder["cache/kernels/debian"], "*.ko*", SearchOption.AllDirectories))
        {
            File.WriteAllText(module, "no module");
        }
    }

    private Func<Task> Failing(string spec, PrepareOptions? options = null) => () => PrepareAsync(spec, options);

    private async Task<PreparedKernel> PrepareAsync(string spec, PrepareOptions? options = null)
    {
        using KernelStore store = _archive.OpenStore();
        return await store.PrepareAsync(KernelSpec.Parse(spec), options ?? new PrepareOptions(), _progress, CancellationToken.None);
    }

    private sealed class Lines : List<string>, IProgress<string>
    {
        public void Report(string value)
        {
            lock (this)
            {
                Add(value);
            }
        }
    }
}

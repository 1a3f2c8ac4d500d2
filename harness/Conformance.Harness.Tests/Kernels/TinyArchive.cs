// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Conformance.Kernels;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

/// <summary>A Debian archive of a few kilobytes in a folder, with the apt configuration of a machine that uses it as its mirror.</summary>
internal sealed class TinyArchive
{
    private static readonly string[] s_suites = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid", "experimental"];
    private static readonly string[] s_securitySuites = ["bullseye-security", "bookworm-security", "trixie-security"];

    private static readonly string[] s_options =
    [
        "BLK_DEV_INITRD", "BINFMT_ELF", "PCI", "VIRTIO_PCI", "VIRTIO_CONSOLE", "SERIAL_8250_CONSOLE", "SERIAL_AMBA_PL011_CONSOLE",
        "KVM", "KVM_AMD", "VFIO_PCI", "INTEL_IOMMU", "IRQ_REMAP", "ARM_SMMU_V3",
    ];

    private readonly TemporaryFolder _folder;
    private readonly Dictionary<(string Suite, string Architecture), StringBuilder> _indexes = [];

    public TinyArchive(TemporaryFolder folder)
    {
        _folder = folder;
        Directory.CreateDirectory(folder["etc/sources.list.d"]);
        File.WriteAllText(
            folder["etc/sources.list.d/mirror.list"],
            $"deb [trusted=yes] copy:{folder["mirror/debian"]} sid main\ndeb [trusted=yes] copy:{folder["mirror/debian-security"]} trixie-security main\n");
        Publish();
    }

    public static void Require() =>
        Assert.SkipUnless(File.Exists("/usr/lib/apt/apt-helper") && File.Exists("/usr/bin/dpkg-deb") && File.Exists("/usr/bin/xz"), "needs apt, dpkg-deb and xz");

    public KernelStore OpenStore() => new(_folder["cache"], new AptArchive(_folder["cache"], _folder["etc"], "/nonexistent"));

    /// <summary>Adds a kernel whose one package holds everything.</summary>
    public void AddWhole(string suite, string release, string version, KernelArchitecture architecture = KernelArchitecture.X86_64) =>
        Add(suite, $"linux-image-{release}", version, architecture, [.. Image($"boot/vmlinuz-{release}", release, architecture), .. Description($"boot/config-{release}", $"lib/modules/{release}"), .. Modules(release, architecture)]);

    /// <summary>Adds a kernel in the three packages of newer suites.</summary>
    public void AddSplit(string suite, string release, string version, bool signed = true)
    {
        string modules = $"usr/lib/modules/{release}";
        Add(suite, $"linux-binary-{(signed ? "" : "unsigned-")}{release}", version, KernelArchitecture.X86_64, Image($"{modules}/vmlinuz{(signed ? "" : ".unsigned")}", release, KernelArchitecture.X86_64));
        Add(suite, $"linux-modules-{release}", version, KernelArchitecture.X86_64, Modules(release, KernelArchitecture.X86_64));
        Add(suite, $"linux-base-{release}", version, KernelArchitecture.X86_64, Description($"{modules}/config", modules));
    }

    /// <summary>Removes a package from the pool and leaves it in the index.</summary>
    public void Lose(string package) => File.Delete(PoolFile(package));

    /// <summary>Makes every address of the mirror lead nowhere.</summary>
    public void Unplug() => Directory.Move(_folder["mirror"], _folder["unplugged"]);

    /// <summary>Pretends the indexes were fetched that long ago.</summary>
    public void Age(TimeSpan age) => File.SetLastWriteTimeUtc(_folder["cache/apt/catalog.json"], DateTime.UtcNow - age);

    private static (string, byte[])[] Image(string path, string release, KernelArchitecture architecture)
    {
        // Larger than a package of mere dependencies could be.
        byte[] image = architecture == KernelArchitecture.X86_64 ? TinyImage.BzImage(release) : TinyImage.Gzip(TinyImage.Arm64(release));
        return architecture == KernelArchitecture.X86_64 ? [(path, [.. image, .. Noise])] : [(path, image), ("boot/padding", Noise)];
    }

    private static byte[] Noise { get; } = RandomNumberGenerator.GetBytes((1 << 20) + 1);

    private static (string, byte[])[] Description(string config, string modules) =>
    [
        (config, Encoding.ASCII.GetBytes(string.Concat(s_options.Select(option => $"CONFIG_{option}=y\n")))),
        ($"{modules}/modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/char/virtio_console.ko\n"u8.ToArray()),
        ($"{modules}/modules.order", "kernel/arch/x86/kvm/kvm.ko\nkernel/arch/x86/kvm/kvm-amd.ko\nkernel/lib/far/away.ko\nkernel/net/e1000e.ko\n"u8.ToArray()),
    ];

    // kvm needs a module from a corner of the package that is not kept on principle.
    private static (string, byte[])[] Modules(string release, KernelArchitecture architecture)
    {
        string directory = $"lib/modules/{release}/kernel";
        byte[] Module(string name, string depends = "") => TinyModule.Build(name, release, architecture.ElfMachine(), depends);
        return
        [
            ($"{directory}/arch/x86/kvm/kvm.ko.xz", Xz(Module("kvm", "away"))),
            ($"{directory}/arch/x86/kvm/kvm-amd.ko.xz", Xz(Module("kvm_amd", "kvm"))),
            ($"{directory}/lib/far/away.ko.xz", Xz(Module("away"))),
            ($"{directory}/net/e1000e.ko.xz", Xz(Module("e1000e"))),
        ];
    }

    private static byte[] Xz(byte[] content)
    {
        using Process process = Process.Start(new ProcessStartInfo("xz", ["-zc"]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        process.StandardInput.BaseStream.Write(content);
        process.StandardInput.Close();
        MemoryStream output = new();
        process.StandardOutput.BaseStream.CopyTo(output);
        process.WaitForExit();
        return output.ToArray();
    }

    private void Add(string suite, string package, string version, KernelArchitecture architecture, (string Path, byte[] Content)[] files)
    {
        string root = _folder[$"build/{package}"];
        Directory.CreateDirectory($"{root}/DEBIAN");
        File.WriteAllText($"{root}/DEBIAN/control", $"Package: {package}\nVersion: {version}\nArchitecture: {architecture.DebianName()}\nMaintainer: nobody <nobody@example.org>\nDescription: tiny\n");
        foreach ((string path, byte[] content) in files)
        {
            Directory.CreateDirectory(Path.GetDirectoryName($"{root}/{path}")!);
            File.WriteAllBytes($"{root}/{path}", content);
        }

        string mirror = suite.EndsWith("-security") ? "debian-security" : "debian";
        string file = _folder[$"mirror/{mirror}/pool/{package}.deb"];
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        using (Process process = Process.Start(new ProcessStartInfo("dpkg-deb", ["-Zgzip", "-z1", "--root-owner-group", "--build", root, file]) { RedirectStandardOutput = true })!)
        {
            process.StandardOutput.ReadToEnd();
            process.WaitForExit();
        }

        byte[] deb = File.ReadAllBytes(file);
        StringBuilder index = Index(suite, architecture.DebianName());
        index.Append($"Package: {package}\nVersion: {version}\nArchitecture: {architecture.DebianName()}\nFilename: pool/{package}.deb\nSize: {deb.Length}\nSHA256: {Convert.ToHexStringLower(SHA256.HashData(deb))}\n\n");
        Publish();
    }

    private string PoolFile(string package) =>
        Directory.EnumerateFiles(_folder["mirror"], $"{package}.deb", SearchOption.AllDirectories).Single();

    private StringBuilder Index(string suite, string architecture)
    {
        if (!_indexes.TryGetValue((suite, architecture), out StringBuilder? index))
        {
            _indexes[(suite, architecture)] = index = new StringBuilder();
        }

        return index;
    }

    private void Publish()
    {
        foreach (string suite in s_suites.Concat(s_securitySuites))
        {
            string directory = _folder[$"mirror/{(s_securitySuites.Contains(suite) ? "debian-security" : "debian")}/dists/{suite}"];
            StringBuilder release = new($"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64 arm64\nComponents: main\nDate: {DateTime.UtcNow:R}\nSHA256:\n");
            foreach (string architecture in new[] { "amd64", "arm64" })
            {
                string path = $"main/binary-{architecture}/Packages";
                byte[] content = Encoding.UTF8.GetBytes(Index(suite, architecture).ToString());
                Directory.CreateDirectory(Path.GetDirectoryName($"{directory}/{path}")!);
                File.WriteAllBytes($"{directory}/{path}", content);
                release.Append($" {Convert.ToHexStringLower(SHA256.HashData(content))} {content.Length} {path}\n");
            }

            File.WriteAllText($"{directory}/Release", release.ToString());
        }
    }
}

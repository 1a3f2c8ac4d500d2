// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>Where make puts things in a kernel build tree.</summary>
internal static class BuildTreeLayout
{
    private static readonly (KernelArchitecture Architecture, string Path)[] s_images =
    [
        (KernelArchitecture.X86_64, "arch/x86/boot/bzImage"),
        (KernelArchitecture.Arm64, "arch/arm64/boot/Image"),
        (KernelArchitecture.Arm64, "arch/arm64/boot/Image.gz"),
        (KernelArchitecture.Arm64, "arch/arm64/boot/vmlinuz.efi"),
    ];

    /// <summary>The image make built last; of two architectures the wanted one, and without a wish x86_64.</summary>
    /// <exception cref="UsageException">There is none; the message names the make target.</exception>
    public static string FindImage(string directory, KernelArchitecture? wanted)
    {
        foreach ((KernelArchitecture architecture, string path) in s_images)
        {
            string image = Path.Combine(directory, path);
            if ((wanted is null || wanted == architecture) && File.Exists(image))
            {
                return image;
            }
        }

        foreach ((KernelArchitecture architecture, string path) in s_images)
        {
            if (File.Exists(Path.Combine(directory, path)))
            {
                throw new UsageException($"{directory} has an {architecture.Name()} kernel, but {wanted!.Value.Name()} is asked for. Ask for {architecture.Name()}, or build the other one (make O=DIR).");
            }
        }

        bool isKernelTree = File.Exists(Path.Combine(directory, "Kbuild")) || File.Exists(Path.Combine(directory, ".config")) || Directory.Exists(Path.Combine(directory, "arch"));
        throw new UsageException(
            isKernelTree
                ? $"{directory} is a kernel tree without an image. Build one: make bzImage modules (x86_64), or make ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- Image modules. With make O=DIR, give DIR."
                : $"{directory} is not a kernel build tree: there is no arch/x86/boot/bzImage and no arch/arm64/boot/Image in it.");
    }

    /// <summary>The release make wrote down; null when it did not come that far.</summary>
    public static string? ReadRelease(string directory)
    {
        string path = Path.Combine(directory, "include", "config", "kernel.release");
        return File.Exists(path) ? File.ReadAllText(path).Trim() : null;
    }
}

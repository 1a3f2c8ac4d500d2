// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;

[assembly: MachineNeeds(Modules = ["kvm-amd"], Architectures = ["x86_64"])]

namespace Conformance.IrqBypass;

/// <summary>Vectors the claims share; a higher one is taken first.</summary>
internal static class Vectors
{
    public static readonly ApicVector Fence = new(0x31);
    public static readonly ApicVector A = new(0x41);
    public static readonly ApicVector B = new(0x52);
    public static readonly ApicVector C = new(0x63);
    public static readonly ApicVector D = new(0x74);
}

internal static class Processors
{
    /// <summary>Skips on a KVM that runs guests without the processor's virtualization: its local APICs keep no interrupt in service.</summary>
    public static async Task RequireInServiceAsync(this KernelUnderTest kernel) => Skipping.UnlessHardware(
        await (await kernel.SessionAsync()).ReadFileAsync("/sys/module/kvm_pvm/parameters/force") is null, "the processor's virtualization", "kvm_pvm is loaded");
}

internal static class Counts
{
    /// <summary>What a reader finds in an eventfd that was signalled while bound to an irqfd.</summary>
    /// <param name="taken">What the injection takes where it does so: the whole count, or one of a semaphore's.</param>
    public static ulong? Left(this KernelUnderTest kernel, ulong signalled, ulong? taken = null)
    {
        ulong left = kernel.Has("irqfd-takes-count") ? signalled - (taken ?? signalled) : signalled;
        return left == 0 ? null : left;
    }
}

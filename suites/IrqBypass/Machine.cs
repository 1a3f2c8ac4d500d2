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

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Uapi;

namespace Conformance.Kvm;

/// <summary>A vCPU that came back to user space, with the head of its run structure.</summary>
public sealed class GuestExit
{
    private readonly kvm_run _run;

    internal GuestExit(Vcpu vcpu, KvmExit reason, Errno error, bool kicked, byte[] data)
    {
        Vcpu = vcpu;
        Reason = reason;
        Error = error;
        Kicked = kicked;
        _run = data.Length >= kvm_run.HeadSize ? KernelSession.Read<kvm_run>(data) : default;
        Data = data;
    }

    public Vcpu Vcpu { get; }

    /// <summary>Meaningless when <see cref="Error"/> is set or the vCPU was kicked.</summary>
    public KvmExit Reason { get; }

    /// <summary>What KVM_RUN failed with.</summary>
    public Errno Error { get; }

    /// <summary>KVM_RUN was interrupted by <see cref="Vcpu.KickAsync"/>.</summary>
    public bool Kicked { get; }

    public kvm_run Run => _run;

    /// <summary>Port I/O data of an OUT, up to 8 bytes; it lies behind the head (KVM_PIO_PAGE_OFFSET).</summary>
    public ulong IoData => BinaryPrimitives.ReadUInt64LittleEndian(Data.AsSpan(kvm_run.HeadSize));

    /// <summary>The six arguments of a Xen hypercall.</summary>
    public ulong[] XenParams => [.. Enumerable.Range(0, 6).Select(i => BinaryPrimitives.ReadUInt64LittleEndian(Data.AsSpan(64 + (i * 8))))];

    internal byte[] Data { get; }

    public override string ToString() => this switch
    {
        { Error: not Errno.None } => $"{Vcpu.Name}: KVM_RUN failed with {Error}",
        { Kicked: true } => $"{Vcpu.Name}: kicked",
        { Reason: KvmExit.KVM_EXIT_IO } => $"{Vcpu.Name}: {(_run.io_direction == 1 ? "out" : "in")} port 0x{_run.io_port:x} size {_run.io_size}",
        { Reason: KvmExit.KVM_EXIT_MMIO } => $"{Vcpu.Name}: mmio {(_run.mmio_is_write == 1 ? "write" : "read")} 0x{_run.mmio_phys_addr:x} len {_run.mmio_len}",
        { Reason: KvmExit.KVM_EXIT_INTERNAL_ERROR } => $"{Vcpu.Name}: internal error, suberror {_run.internal_suberror}",
        { Reason: KvmExit.KVM_EXIT_XEN } => $"{Vcpu.Name}: Xen hypercall {_run.xen_hcall_input}",
        _ => $"{Vcpu.Name}: {Reason}",
    };
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>/dev/kvm of one session.</summary>
public sealed class KvmSystem
{
    // What a running kernel supports does not change; asking costs time, and a few kilobytes on the wire.
    private static readonly ConditionalWeakTable<AgentConnection, byte[]> s_cpuid = [];
    private static readonly ConditionalWeakTable<AgentConnection, object> s_mmapSize = [];

    private KvmSystem(KernelFd fd) => Fd = fd;

    public KernelFd Fd { get; }

    public KernelSession Session => Fd.Session;

    public static async Task<KvmSystem> OpenAsync(KernelSession session) => new(await session.OpenAsync("/dev/kvm"));

    /// <summary>KVM_CHECK_EXTENSION on the system descriptor: 0 when unknown or absent.</summary>
    public async Task<long> CheckExtensionAsync(KvmCap cap)
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmIoctl.KVM_CHECK_EXTENSION, (ulong)cap);
        return answer.Ok ? answer.Result : throw new KvmException($"KVM_CHECK_EXTENSION({cap.CName()})", answer.Error);
    }

    /// <summary>Size of a vCPU's shared run structure with its extra pages, in bytes.</summary>
    public async Task<ulong> VcpuMmapSizeAsync()
    {
        if (s_mmapSize.TryGetValue(Session.Agent.Connection, out object? known))
        {
            return (ulong)known;
        }

        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmIoctl.KVM_GET_VCPU_MMAP_SIZE);
        ulong size = answer.Ok ? (ulong)answer.Result : throw new KvmException("KVM_GET_VCPU_MMAP_SIZE", answer.Error);
        s_mmapSize.AddOrUpdate(Session.Agent.Connection, size);
        return size;
    }

    /// <summary>KVM_GET_SUPPORTED_CPUID: { nent, padding } and the entries, as KVM_SET_CPUID2 takes them.</summary>
    public async Task<byte[]> SupportedCpuidAsync()
    {
        if (s_cpuid.TryGetValue(Session.Agent.Connection, out byte[]? known))
        {
            return known;
        }

        const int Entries = 256;
        byte[] table = new byte[8 + (Entries * 40)];
        BinaryPrimitives.WriteInt32LittleEndian(table, Entries);
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmX86Ioctl.KVM_GET_SUPPORTED_CPUID, table, "");
        if (!answer.Ok)
        {
            throw new KvmException("KVM_GET_SUPPORTED_CPUID", answer.Error);
        }

        byte[] supported = answer.Data[..(8 + (BinaryPrimitives.ReadInt32LittleEndian(answer.Data) * 40))];
        s_cpuid.AddOrUpdate(Session.Agent.Connection, supported);
        return supported;
    }
}

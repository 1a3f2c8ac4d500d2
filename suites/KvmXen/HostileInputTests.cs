// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>Structures nobody means: the kernel obeys or refuses, and stays well.</summary>
public sealed class HostileInputTests(KernelUnderTest kernel)
{
    private const int Calls = 250;

    private static readonly Errno[] Refusals =
        [Errno.EINVAL, Errno.ENOENT, Errno.EFAULT, Errno.ENXIO, Errno.EEXIST, Errno.EBADF, Errno.EOPNOTSUPP];

    // Numbers at which something begins or ends; any number now and then.
    private static ulong Number(Random random) => random.Next(12) switch
    {
        0 => 0,
        1 => ulong.MaxValue,
        2 => uint.MaxValue,
        3 => 1UL << random.Next(64),
        4 => (1UL << random.Next(64)) - 1,
        5 => (ulong)random.Next(0, 5000),
        6 => (ulong)random.Next(0x100) << 12,
        7 => 0x2000000 - (ulong)random.Next(0x80),
        8 => 0x30000 + (ulong)random.Next(0x2000),
        9 => 0xffff888000000000 + (ulong)random.Next(0x1000),
        10 => (ulong)random.Next(16),
        _ => (ulong)random.NextInt64(),
    };

    private static byte[] Structure(Random random, int size, int types)
    {
        byte[] bytes = new byte[size];
        for (int at = 0; at + 8 <= size; at += random.Next(3) == 0 ? 4 : 8)
        {
            BitConverter.TryWriteBytes(bytes.AsSpan(at, Math.Min(8, size - at)), Number(random));
        }

        BitConverter.TryWriteBytes(bytes, (ushort)(random.Next(8) == 0 ? random.Next(ushort.MaxValue) : random.Next(types)));
        return bytes;
    }

    // A port of EVTCHN needs most of its fields right to get anywhere.
    private static byte[] EventChannel(Random random)
    {
        var attribute = new kvm_xen_hvm_attr
        {
            type = KVM_XEN_ATTR_TYPE_EVTCHN,
            evtchn_send_port = random.Next(4) == 0 ? (uint)Number(random) : (uint)random.Next(1, 6),
            evtchn_type = random.Next(4) == 0 ? (uint)Number(random) : random.Next(2) == 0 ? 2u : 5,
            evtchn_flags = random.Next(3) == 0 ? (uint)Number(random) : (uint)random.Next(5),
            evtchn_deliver_port = random.Next(4) == 0 ? (uint)Number(random) : (uint)random.Next(1, 6),
            evtchn_deliver_vcpu = random.Next(2) == 0 ? (uint)Number(random) : 0,
            evtchn_deliver_priority = random.Next(4) == 0 ? (uint)Number(random) : XenHvm.TwoLevel,
        };
        byte[] bytes = new byte[Marshal.SizeOf<kvm_xen_hvm_attr>()];
        MemoryMarshal.Write(bytes, attribute);
        return bytes;
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [Clause("kvm-xen/robust/any-argument")]
    public async Task AnyArgumentIsObeyedOrRefused(int seed)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Vcpus = 2 });
        KernelSession session = domain.Vm.Session;
        var random = new Random(seed);
        for (int call = 0; call < Calls; call++)
        {
            KernelFd vcpu = domain.Vcpus[random.Next(2)].Fd;
            IoctlAnswer answer = random.Next(9) switch
            {
                0 => await session.IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_CONFIG, Structure(random, 56, 256), $"seed {seed} call {call}"),
                1 or 2 => await session.IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR, Structure(random, 72, 8), $"seed {seed} call {call}"),
                3 => await session.IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR, EventChannel(random), $"seed {seed} call {call}"),
                4 => await session.IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_GET_ATTR, Structure(random, 72, 8), $"seed {seed} call {call}"),
                5 or 6 => await session.IoctlAsync(vcpu, KvmX86Ioctl.KVM_XEN_VCPU_SET_ATTR, Structure(random, 72, 11), $"seed {seed} call {call}"),
                7 => await session.IoctlAsync(vcpu, KvmX86Ioctl.KVM_XEN_VCPU_GET_ATTR, Structure(random, 72, 11), $"seed {seed} call {call}"),
                _ => await session.IoctlAsync(domain.Vm.Fd, KvmX86Ioctl.KVM_XEN_HVM_EVTCHN_SEND, Structure(random, 12, 4096), $"seed {seed} call {call}"),
            };
            if (!answer.Ok)
            {
                answer.Error.Should().BeOneOf(Refusals, $"seed {seed}, call {call}");
            }
        }

        // Set up properly it works as if nothing had been.
        foreach (Vcpu vcpu in domain.Vcpus)
        {
            XenDomain.Expect(await domain.Xen.TrySetTimerAsync(vcpu, new XenTimer(0, 0, 0)), "TIMER off");
            XenDomain.Expect(await domain.Xen.TrySetVcpuUpcallVectorAsync(vcpu, 0), "UPCALL_VECTOR off");
        }

        XenDomain.Expect(await domain.Xen.TrySetSharedInfoAsync(KVM_XEN_INVALID_GFN), "SHARED_INFO off");
        await domain.ConfigureAsync();
        await domain.Vcpu.ExecuteAsync(domain.Script().Add(GuestCommand.ReadApic(0x20)));
        await domain.SharedInfo.FillAsync(0);
        await domain.VcpuInfo.ClearAsync();
        (await domain.ObserveAsync(VcpuState.Halted, () => domain.Xen.SendAsync(66))).Should().Equal(domain.Delivered(66));
    }

    [Fact]
    [Clause("kvm-xen/robust/any-argument")]
    public async Task UnreadableArgumentIsRefused()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
        KernelSession session = domain.Vm.Session;

        foreach (ulong pointer in new ulong[] { 0, 8, 0xffff888000000000 })
        {
            foreach (Ioctl request in new[] { KvmX86Ioctl.KVM_XEN_HVM_CONFIG, KvmX86Ioctl.KVM_XEN_HVM_SET_ATTR, KvmX86Ioctl.KVM_XEN_HVM_GET_ATTR, KvmX86Ioctl.KVM_XEN_HVM_EVTCHN_SEND })
            {
                (await session.IoctlAsync(domain.Vm.Fd, request, pointer)).Error.Should().Be(Errno.EFAULT, $"{request.Name} is given 0x{pointer:x}");
            }

            foreach (Ioctl request in new[] { KvmX86Ioctl.KVM_XEN_VCPU_SET_ATTR, KvmX86Ioctl.KVM_XEN_VCPU_GET_ATTR })
            {
                (await session.IoctlAsync(domain.Vcpu.Fd, request, pointer)).Error.Should().Be(Errno.EFAULT, $"{request.Name} is given 0x{pointer:x}");
            }
        }
    }
}

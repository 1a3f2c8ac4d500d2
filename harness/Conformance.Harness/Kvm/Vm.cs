// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>A VM of the kernel under test, with its guest memory and vCPUs.</summary>
public sealed partial class Vm : IAsyncDisposable
{
    private readonly List<Vcpu> _vcpus = [];

    private Vm(KvmSystem system, KernelFd fd, VmOptions options)
    {
        System = system;
        Fd = fd;
        Options = options;
        Xen = new XenHvm(this);
        Machine = fd.Session.Architecture == KernelArchitecture.X86_64
            ? new X86Machine(options.Guest32Bit ? GuestLayout.X86_32 : GuestLayout.X86_64)
            : new Arm64Machine();
    }

    internal GuestMachine Machine { get; }

    public KvmSystem System { get; }

    public KernelSession Session => Fd.Session;

    public KernelFd Fd { get; }

    public VmOptions Options { get; }

    public IReadOnlyList<Vcpu> Vcpus => _vcpus;

    /// <summary>The Xen side of this VM.</summary>
    public XenHvm Xen { get; }

    /// <summary>Slot 0: the guest's memory as the session maps it. Its first byte is guest-physical <see cref="MemoryBase"/>.</summary>
    public Mapping Memory { get; private set; } = null!;

    public ulong MemoryBase => Machine.MemoryBase;

    /// <summary>Makes a VM, its interrupt controllers, memory with the guest image in it, and vCPUs that have not run yet.</summary>
    /// <exception cref="KvmException">The kernel refused a step.</exception>
    public static async Task<Vm> CreateAsync(KvmSystem system, VmOptions options)
    {
        (Errno error, KernelFd? fd) = await system.TryCreateVmAsync(options.Name);
        var vm = new Vm(system, fd ?? throw new KvmException("KVM_CREATE_VM", error), options);
        await vm.Machine.CreateIrqchipAsync(vm);
        if (options.Bare)
        {
            return vm;
        }

        await vm.CreateMemoryAsync();
        for (int index = 0; index < options.Vcpus; index++)
        {
            await vm.CreateVcpuAsync(options.VcpuIds?[index] ?? (uint)index);
        }

        await vm.Machine.FinishAsync(vm);
        return vm;
    }

    /// <summary>KVM_CHECK_EXTENSION on the VM: what this VM offers, which may be less or more than the system says.</summary>
    public async Task<long> CheckExtensionAsync(KvmCap cap)
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmIoctl.KVM_CHECK_EXTENSION, (ulong)cap);
        return answer.Ok ? answer.Result : throw new KvmException($"KVM_CHECK_EXTENSION({cap.CName()})", answer.Error);
    }

    public async Task<Errno> TryEnableCapAsync(KvmCap cap, ulong argument, uint flags = 0) => (await Session.IoctlAsync(Fd, KvmIoctl.KVM_ENABLE_CAP,
        new kvm_enable_cap { cap = (uint)cap, flags = flags, args = argument }, $"{cap.CName()}, 0x{argument:x}")).Outcome;

    /// <summary>Adds one vCPU; it gets the next guest area.</summary>
    public async Task<Vcpu> CreateVcpuAsync(uint id)
    {
        Vcpu vcpu = await Vcpu.CreateAsync(this, _vcpus.Count, id);
        _vcpus.Add(vcpu);
        return vcpu;
    }

    public async Task<(Errno Error, KernelFd? Fd)> TryCreateVcpuFdAsync(uint id)
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmIoctl.KVM_CREATE_VCPU, id);
        return answer.Ok ? (Errno.None, new KernelFd(Session, (int)answer.Result, $"{Options.Name} vCPU {id}")) : (answer.Error, null);
    }

    /// <summary>KVM_SET_USER_MEMORY_REGION. A size of 0 removes the slot.</summary>
    public async Task<Errno> TrySetMemoryRegionAsync(uint slot, ulong guestPhysical, ulong size, ulong address, uint flags = 0) =>
        (await Session.IoctlAsync(Fd, KvmIoctl.KVM_SET_USER_MEMORY_REGION, new kvm_userspace_memory_region
        {
            slot = slot,
            flags = flags,
            guest_phys_addr = guestPhysical,
            memory_size = size,
            userspace_addr = address,
        }, $"slot {slot} gpa 0x{guestPhysical:x} size 0x{size:x}")).Outcome;

    public async Task SetMemoryRegionAsync(uint slot, ulong guestPhysical, ulong size, ulong address, uint flags = 0) => Expect(
        await TrySetMemoryRegionAsync(slot, guestPhysical, size, address, flags), $"KVM_SET_USER_MEMORY_REGION(slot {slot}, gpa 0x{guestPhysical:x})");

    /// <summary>A device of the VM (KVM_CREATE_DEVICE).</summary>
    /// <param name="type">KVM_DEV_TYPE_*.</param>
    public async Task<(Errno Error, KernelFd? Fd)> TryCreateDeviceAsync(uint type, string name, uint flags = 0)
    {
        IoctlAnswer answer = await Session.IoctlAsync(Fd, KvmIoctl.KVM_CREATE_DEVICE, new kvm_create_device { type = type, flags = flags }, name);
        if (!answer.Ok)
        {
            return (answer.Error, null);
        }

        var device = KernelSession.Read<kvm_create_device>(answer.Data);
        return (Errno.None, new KernelFd(Session, (int)device.fd, name));
    }

    /// <summary>Reads guest memory.</summary>
    public Task<byte[]> ReadMemoryAsync(ulong guestPhysical, int length) => Memory.ReadAsync(guestPhysical - MemoryBase, length);

    public Task WriteMemoryAsync(ulong guestPhysical, ReadOnlyMemory<byte> data) => Memory.WriteAsync(guestPhysical - MemoryBase, data);

    /// <summary>Stops every vCPU thread and closes the VM's descriptors; the session's end does the rest.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Session.HasEnded)
        {
            return;
        }

        foreach (Vcpu vcpu in _vcpus)
        {
            await vcpu.DisposeAsync();
        }

        // Each keeps its VM in the kernel.
        foreach (KvmDevice device in InterruptControllers())
        {
            await device.DisposeAsync();
        }

        await Fd.DisposeAsync();
        if (Memory is not null)
        {
            await Memory.UnmapAsync();
        }
    }

    internal static void Expect(Errno error, string call)
    {
        if (error != Errno.None)
        {
            throw new KvmException(call, error);
        }
    }

    private async Task CreateMemoryAsync()
    {
        Memory = await Session.MapAnonymousAsync(Options.MemoryBytes, $"{Options.Name} memory");
        await SetMemoryRegionAsync(0, MemoryBase, Options.MemoryBytes, Memory.Address);
        await using KernelFd file = await Session.OpenAsync(Session.GuestImagePath(Machine.ImageName), writable: false);
        ulong offset = Machine.ImageAddress - MemoryBase;
        CallResult read = await Session.Agent.CallAsync(new SystemCall(Session.Numbers.Pread64, $"pread({file.Name}) into {Memory.Name}")
            .Arg(file.Number).Arg(Memory.Address + offset).Arg(Options.MemoryBytes - offset).Arg(0));
        if (read.Result <= 0)
        {
            throw new InvalidOperationException($"The guest image {file.Name} could not be read: {(Errno)read.Errno}.");
        }
    }
}

// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Guests;
using Conformance.Kernels;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>A VM of the kernel under test, with its guest memory and vCPUs.</summary>
public sealed partial class Vm : IAsyncDisposable
{
    private readonly List<Vcpu> _vcpus = [];

    private Vm(KvmSystem system, KernelFd fd, VmOptions options, GuestMachine machine)
    {
        System = system;
        Fd = fd;
        Options = options;
        Xen = new XenHvm(this);
        Machine = machine;
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
        KernelSession session = system.Session;
        GuestMachine machine = MachineOf(session.Architecture, options);
        if (!options.Bare)
        {
            await machine.PrepareAsync(system);
        }

        var burst = new CallBurst(session);
        (FdArgument fd, Task<CallResult> created) = burst.AskForFd("KVM_CREATE_VM", options.Name, burst.Call(system.Fd, KvmIoctl.KVM_CREATE_VM, "0").Arg(0));
        Action<Vm> irqchip = machine.AskForIrqchip(burst, fd, options);
        (Task<CallResult> Mapped, Task<CallResult> Image)? memory = options.Bare ? null : AskForMemory(burst, machine, session, fd, options);
        List<Func<Vm, CallBurst, Vcpu>> vcpus = [];
        for (int index = 0; index < options.Vcpus && !options.Bare; index++)
        {
            vcpus.Add(Vcpu.AskFor(burst, machine, fd, options, index, options.VcpuIds?[index] ?? (uint)index));
        }

        await burst.FinishAsync();
        var vm = new Vm(system, new KernelFd(session, (int)created.Result.Result, options.Name), options, machine);
        irqchip(vm);
        if (memory is var (mapped, image))
        {
            if (image.Result.Result == 0)
            {
                throw new InvalidOperationException($"The guest image {machine.ImageName} is empty.");
            }

            vm.Memory = new Mapping(session, (ulong)mapped.Result.Result, options.MemoryBytes, MemoryName(options));
            vm._vcpus.AddRange(vcpus.Select(v => v(vm, burst)));
            await burst.FinishAsync();
            await machine.FinishAsync(vm);
        }

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
        if (!Options.Bare)
        {
            await Machine.PrepareAsync(System);
        }

        var burst = new CallBurst(Session);
        Func<Vm, CallBurst, Vcpu> asked = Vcpu.AskFor(burst, Machine, Fd, Options, _vcpus.Count, id);
        await burst.FinishAsync();
        Vcpu vcpu = asked(this, burst);
        await burst.FinishAsync();
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

        await Task.WhenAll(_vcpus.Select(v => v.StopAsync()));

        // Asked for at once and done in this order. Each interrupt controller keeps its VM in the kernel.
        await Task.WhenAll((IEnumerable<Task>)
        [
            .. _vcpus.SelectMany(v => v.AskForRelease()),
            .. InterruptControllers().Select(c => c.DisposeAsync().AsTask()),
            Fd.DisposeAsync().AsTask(),
            Memory?.UnmapAsync() ?? Task.CompletedTask,
        ]);
    }

    internal static void Expect(Errno error, string call)
    {
        if (error != Errno.None)
        {
            throw new KvmException(call, error);
        }
    }

    internal static async Task ExpectAsync(Task<Errno> asked, string call) => Expect(await asked, call);

    private static GuestMachine MachineOf(KernelArchitecture architecture, VmOptions options) => architecture == KernelArchitecture.X86_64
        ? new X86Machine(options.Guest32Bit ? GuestLayout.X86_32 : GuestLayout.X86_64)
        : new Arm64Machine();

    private static string MemoryName(VmOptions options) => $"{options.Name} memory";

    /// <returns>The answers that say where the memory is and how much of the guest image is in it.</returns>
    private static (Task<CallResult> Mapped, Task<CallResult> Image) AskForMemory(CallBurst burst, GuestMachine machine, KernelSession session, FdArgument vm, VmOptions options)
    {
        string name = MemoryName(options);
        KeptResult memory = session.Agent.Keep();
        Task<CallResult> mapped = burst.Ask($"mmap({name}, {options.MemoryBytes})", session.MapAnonymousCall(options.MemoryBytes, name).KeepAs(memory));
        var region = new kvm_userspace_memory_region { guest_phys_addr = machine.MemoryBase, memory_size = options.MemoryBytes };
        int pointer = (int)Marshal.OffsetOf<kvm_userspace_memory_region>(nameof(kvm_userspace_memory_region.userspace_addr));
        burst.Ask(
            $"KVM_SET_USER_MEMORY_REGION(slot 0, gpa 0x{machine.MemoryBase:x})",
            burst.Call(vm, KvmIoctl.KVM_SET_USER_MEMORY_REGION, $"slot 0 gpa 0x{machine.MemoryBase:x} size 0x{options.MemoryBytes:x}")
                .In(KernelSession.Bytes(region)).Pointer(0, pointer, memory),
            onlyZero: true);
        string path = session.GuestImagePath(machine.ImageName);
        ulong offset = machine.ImageAddress - machine.MemoryBase;
        (FdArgument image, _) = burst.AskForFd($"open(\"{path}\")", path, session.OpenCall(path, writable: false));
        Task<CallResult> read = burst.Ask($"pread({path})", image.AddTo(new SystemCall(session.Numbers.Pread64, $"pread({path}) into {name}")).Arg(memory, offset).Arg(options.MemoryBytes - offset).Arg(0));
        burst.Ask($"close({path})", image.AddTo(new SystemCall(session.Numbers.Close, $"close({path})")));
        return (mapped, read);
    }
}

// SPDX-License-Identifier: MIT
using System.Runtime.InteropServices;
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;

namespace Conformance.KvmXen;

/// <summary>How a guest is told that an event channel wants it.</summary>
public enum UpcallPath
{
    /// <summary>One vector for the domain, injected past the local APIC.</summary>
    DomainVector,

    /// <summary>A vector of each vCPU's own, through its local APIC.</summary>
    VcpuVector,

    /// <summary>None from the kernel: user space raises an interrupt of its own.</summary>
    None,
}

/// <summary>What a vCPU does when an event comes.</summary>
public enum VcpuState
{
    /// <summary>Asleep in the kernel.</summary>
    Halted,

    /// <summary>In the guest, which causes no exit of its own.</summary>
    Running,

    /// <summary>In user space, and never entered yet.</summary>
    NotYetRun,
}

/// <summary>How a Xen guest is set up.</summary>
public sealed record XenDomainOptions
{
    public static XenDomainOptions Default { get; } = new();

    public XenAbi Abi { get; init; } = XenAbi.Bits64;

    public int Vcpus { get; init; } = 1;

    /// <summary>KVM_CREATE_VCPU's arguments; null: 0, 1, 2 …</summary>
    public IReadOnlyList<uint>? VcpuIds { get; init; }

    public UpcallPath Upcall { get; init; } = UpcallPath.DomainVector;

    /// <summary>shared_info in a memory slot of its own, which a test can remove.</summary>
    public bool SharedInfoApart { get; init; }

    /// <summary>The vcpu_infos in a memory slot of their own.</summary>
    public bool VcpuInfoApart { get; init; }

    /// <summary>Registered by HVA instead of by guest frame.</summary>
    public bool ByHva { get; init; }

    /// <summary>vcpu_infos are registered by the test, later.</summary>
    public bool WithoutVcpuInfo { get; init; }

    /// <summary>The vCPUs' Xen ids, their positions, are not told to the kernel.</summary>
    public bool WithoutXenVcpuIds { get; init; }

    public uint Flags { get; init; } = KvmXenConst.KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KvmXenConst.KVM_XEN_HVM_CONFIG_EVTCHN_SEND;

    public uint Msr { get; init; } = 0x40000000;

    public Irqchip Irqchip { get; init; } = Irqchip.Full;

    public string Name { get; init; } = "vm";
}

/// <summary>A VM that is set up as a VMM sets up a Xen guest: configuration, shared_info, a vcpu_info per vCPU, and an upcall.</summary>
internal sealed class XenDomain
{
    public const ulong HypercallPageGpa = 0x60000;

    /// <summary>Where hypercalls find their structures; the page after it is for those that cross.</summary>
    public const ulong ArgumentsGpa = 0x70000;

    /// <summary>Above the guest's memory, mapped by its page tables: for slots that come and go.</summary>
    public const ulong SharedInfoApartGpa = 0x03000000;
    public const ulong VcpuInfoApartGpa = 0x03100000;
    public const uint SharedInfoSlot = 1;
    public const uint VcpuInfoSlot = 2;

    /// <summary>A slot that nothing uses: adding it makes every cached translation stale.</summary>
    public const uint SpareSlot = 3;
    public const ulong SpareGpa = 0x04000000;

    /// <summary>Priority class 5: taken before <see cref="Fence"/> in class 3.</summary>
    public static readonly ApicVector Upcall = new(0x50);
    public static readonly ApicVector Fence = new(0x31);

    private static string? s_cpuinfo;

    private readonly uint[] _fences;
    private readonly ulong[] _read;
    private readonly bool[] _apicEnabled;
    private Mapping? _sharedInfoApart;
    private Mapping? _vcpuInfoApart;
    private uint _spares;

    private XenDomain(KernelUnderTest kernel, Vm vm, XenDomainOptions options)
    {
        Kernel = kernel;
        Vm = vm;
        Options = options;
        Layout = XenLayout.Of(options.Abi);
        _fences = new uint[16];
        _read = new ulong[16];
        _apicEnabled = new bool[16];
    }

    public KernelUnderTest Kernel { get; }

    public Vm Vm { get; }

    public XenDomainOptions Options { get; }

    public XenLayout Layout { get; }

    public XenHvm Xen => Vm.Xen;

    public IReadOnlyList<Vcpu> Vcpus => Vm.Vcpus;

    public Vcpu Vcpu => Vm.Vcpus[0];

    public XenSharedInfo SharedInfo { get; private set; } = null!;

    public List<XenVcpuInfo> VcpuInfos { get; } = [];

    public XenVcpuInfo VcpuInfo => VcpuInfos[0];

    public ulong SharedInfoGpa => Options.SharedInfoApart ? SharedInfoApartGpa : 0x20000;

    /// <summary>How the guest makes hypercalls natively on this processor.</summary>
    public HypercallInstruction Native { get; private set; }

    public HypercallMode KernelMode => Options.Abi == XenAbi.Bits64 ? HypercallMode.Kernel64 : HypercallMode.Kernel32;

    public HypercallMode UserMode => Options.Abi == XenAbi.Bits64 ? HypercallMode.User64 : HypercallMode.User32;

    public static Task<XenDomain> CreateAsync(KernelUnderTest kernel) => CreateAsync(kernel, XenDomainOptions.Default);

    public static async Task<XenDomain> CreateAsync(KernelUnderTest kernel, XenDomainOptions options)
    {
        await kernel.RequireXenAsync(KvmXenConst.KVM_XEN_HVM_CONFIG_SHARED_INFO | KvmXenConst.KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL
            | KvmXenConst.KVM_XEN_HVM_CONFIG_EVTCHN_SEND);
        XenDomain domain = await CreateBareAsync(kernel, options);
        await domain.ConfigureAsync();
        return domain;
    }

    /// <summary>The VM with its memory and its vCPUs, and nothing of Xen told to the kernel.</summary>
    public static async Task<XenDomain> CreateBareAsync(KernelUnderTest kernel, XenDomainOptions options)
    {
        Vm vm = await kernel.CreateVmAsync(new VmOptions
        {
            Vcpus = options.Vcpus,
            VcpuIds = options.VcpuIds,
            Irqchip = options.Irqchip,
            Guest32Bit = options.Abi == XenAbi.Bits32,
            Name = options.Name,
        });
        var domain = new XenDomain(kernel, vm, options);
        s_cpuinfo ??= await vm.Session.ReadFileAsync("/proc/cpuinfo") ?? "";
        domain.Native = s_cpuinfo.Contains(" svm", StringComparison.Ordinal) ? HypercallInstruction.Vmmcall : HypercallInstruction.Vmcall;
        await domain.PlaceAsync();
        return domain;
    }

    /// <summary>Guest-physical address of a vCPU's vcpu_info: each in a page of its own, and not at its beginning.</summary>
    public ulong VcpuInfoGpa(int index) => (Options.VcpuInfoApart ? VcpuInfoApartGpa : 0x30000) + ((ulong)index * 0x1000) + 0x200;

    public static ulong TimeInfoGpa(int index) => 0x40000 + ((ulong)index * 0x1000) + 0x400;

    public static ulong RunstateGpa(int index) => 0x50000 + ((ulong)index * 0x2000) + 0x600;

    /// <summary>Everything a VMM tells the kernel, in the order most of them use.</summary>
    public async Task ConfigureAsync()
    {
        await Xen.ConfigureAsync(Options.Flags, Options.Msr);
        await Xen.SetLongModeAsync(Options.Abi == XenAbi.Bits64);
        await SetSharedInfoAsync();
        for (int index = 0; index < Vcpus.Count; index++)
        {
            await ConfigureVcpuAsync(index);
        }

        if (Options.Upcall == UpcallPath.DomainVector)
        {
            await Xen.SetUpcallVectorAsync(Upcall);
        }
    }

    public async Task ConfigureVcpuAsync(int index)
    {
        if (!Options.WithoutVcpuInfo)
        {
            await SetVcpuInfoAsync(index);
        }

        if (Options.Upcall == UpcallPath.VcpuVector)
        {
            await Xen.SetVcpuUpcallVectorAsync(Vcpus[index], Upcall);
        }

        if (!Options.WithoutXenVcpuIds)
        {
            Expect(await Xen.TrySetVcpuIdAsync(Vcpus[index], (uint)index), "VCPU_ID");
        }
    }

    public Task SetSharedInfoAsync() =>
        Options.ByHva ? Xen.SetSharedInfoHvaAsync(SharedInfo.Hva) : Xen.SetSharedInfoAsync(SharedInfoGpa >> 12);

    public async Task SetVcpuInfoAsync(int index)
    {
        if (Options.ByHva)
        {
            Expect(await Xen.TrySetVcpuInfoHvaAsync(Vcpus[index], VcpuInfos[index].Hva), "VCPU_INFO_HVA");
        }
        else
        {
            await Xen.SetVcpuInfoAsync(Vcpus[index], VcpuInfoGpa(index));
        }
    }

    /// <summary>Gives the first vCPU these leaves in place of whatever its CPUID says of hypervisors.</summary>
    public async Task SetHypervisorCpuidAsync(string what, params IReadOnlyList<kvm_cpuid_entry2> leaves)
    {
        const int Header = 8, Entry = 40;
        byte[] supported = await Vm.System.SupportedCpuidAsync();
        List<kvm_cpuid_entry2> entries = [.. MemoryMarshal.Cast<byte, kvm_cpuid_entry2>(supported.AsSpan(Header))];
        entries.RemoveAll(e => e.function is >= 0x40000000 and < 0x40000100);
        entries.AddRange(leaves);
        byte[] table = new byte[Header + (entries.Count * Entry)];
        BitConverter.TryWriteBytes(table, entries.Count);
        MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(entries)).CopyTo(table.AsSpan(Header));
        Expect((await Vm.Session.IoctlAsync(Vcpu.Fd, KvmX86Ioctl.KVM_SET_CPUID2, table, what)).Error, "KVM_SET_CPUID2");
    }

    /// <summary>A further vCPU, not told to Xen yet.</summary>
    public async Task<Vcpu> AddVcpuAsync(uint id)
    {
        Vcpu vcpu = await Vm.CreateVcpuAsync(id);
        await PlaceVcpuAsync(vcpu.Index);
        return vcpu;
    }

    /// <summary>Adds a memory slot that nothing uses: whatever KVM cached of the memory layout has to be looked up again.</summary>
    public async Task MakeTranslationsStaleAsync()
    {
        bool present = _spares++ % 2 != 0;
        await Vm.SetMemoryRegionAsync(SpareSlot, SpareGpa, present ? 0u : 0x1000u, Vm.Memory.Address + GuestLayout.Scratch);
    }

    public Task AddSharedInfoSlotAsync() => Vm.SetMemoryRegionAsync(SharedInfoSlot, SharedInfoApartGpa, 0x1000, _sharedInfoApart!.Address);

    public Task RemoveSharedInfoSlotAsync() => Vm.SetMemoryRegionAsync(SharedInfoSlot, SharedInfoApartGpa, 0, _sharedInfoApart!.Address);

    public Task AddVcpuInfoSlotAsync() => Vm.SetMemoryRegionAsync(VcpuInfoSlot, VcpuInfoApartGpa, 0x10000, _vcpuInfoApart!.Address);

    public Task RemoveVcpuInfoSlotAsync() => Vm.SetMemoryRegionAsync(VcpuInfoSlot, VcpuInfoApartGpa, 0, _vcpuInfoApart!.Address);

    // The guest

    /// <summary>A script that begins as this vCPU's first has to: with its local APIC enabled.</summary>
    public GuestScript Script(int vcpu = 0)
    {
        var script = new GuestScript();
        if (!_apicEnabled[vcpu])
        {
            _apicEnabled[vcpu] = true;
            script.Add(GuestCommand.EnableApic());
        }

        return script;
    }

    /// <summary>The command that waits, halted, for the next fence.</summary>
    public GuestCommand HaltUntilFence(int vcpu = 0) => GuestCommand.HaltUntilTaken(Fence, ++_fences[vcpu]);

    /// <summary>This domain's guest is the other one's, moved here in the middle of its scripts.</summary>
    public void GoOnFrom(XenDomain other)
    {
        other._fences.CopyTo(_fences, 0);
        other._read.CopyTo(_read, 0);
        other._apicEnabled.CopyTo(_apicEnabled, 0);
    }

    /// <summary>The vCPU halts with interrupts on and sleeps in the kernel: only a wake-up gets it out.</summary>
    public async Task HaltAsync(int vcpu = 0)
    {
        await Vcpus[vcpu].StartAsync(Script(vcpu).Add(HaltUntilFence(vcpu)));
        await Vcpus[vcpu].WaitUntilHaltingAsync();
        await Vcpus[vcpu].WaitUntilBlockedAsync();
    }

    /// <summary>The vCPU runs with interrupts on, without an exit of its own.</summary>
    public async Task SpinAsync(int vcpu = 0)
    {
        await Vcpus[vcpu].StartAsync(Script(vcpu)
            .Add(GuestCommand.Notify)
            .Add(GuestCommand.SpinUntil(new GuestCondition(GuestLayout.Taken(vcpu, Fence), Comparison.AtLeast, ++_fences[vcpu]), interrupts: true)));
        await Vcpus[vcpu].WaitForNotifyAsync();
    }

    /// <summary>Brings the vCPU into a state, does something to it, waits until its handler was entered, and gives what it logged.</summary>
    public async Task<IReadOnlyList<string>> ObserveAsync(VcpuState state, Func<Task> cause, int vcpu = 0)
    {
        await CauseAsync(state, cause, vcpu);
        await Vcpus[vcpu].WaitForNotifyAsync();
        return await FenceAsync(vcpu);
    }

    /// <summary>As <see cref="ObserveAsync"/>, without waiting: for what must not be delivered.</summary>
    public async Task<IReadOnlyList<string>> ObserveNothingAsync(VcpuState state, Func<Task> cause, int vcpu = 0)
    {
        await CauseAsync(state, cause, vcpu);
        return await FenceAsync(vcpu);
    }

    /// <summary>
    /// Raises the interrupt of lowest priority, lets the script end, and gives what the vCPU logged since the last time. Whatever was
    /// pending before is taken before it: what is not in here was not delivered.
    /// </summary>
    public async Task<IReadOnlyList<string>> FenceAsync(int vcpu = 0)
    {
        await Vm.SignalMsiAsync(MsiMessage.Fixed(Vcpus[vcpu].Id, Fence));
        await Vcpus[vcpu].FinishAsync();
        return await ReadLogAsync(vcpu);
    }

    /// <summary>What the vCPU logged since the last time.</summary>
    public async Task<IReadOnlyList<string>> ReadLogAsync(int vcpu = 0)
    {
        InterruptLog log = await Vcpus[vcpu].ReadLogAsync();
        string[] all = [.. log.Select(r => r.ToString())];
        string[] since = all[(int)_read[vcpu]..];
        _read[vcpu] = (ulong)all.Length;
        return since;
    }

    /// <summary>What a vCPU logs that is told of exactly these ports, at once, and then of nothing more.</summary>
    public string[] Delivered(params uint[] ports) => [.. Upcalled(ports), $"taken {Fence}"];

    /// <summary>What a vCPU logs that is told of exactly these ports, at once.</summary>
    public string[] Upcalled(params uint[] ports)
    {
        int bits = Layout.WordBits;
        ulong selector = ports.Aggregate(0UL, (s, p) => s | (1UL << (int)(p / bits)));
        return
        [
            $"taken {Upcall}",
            $"upcall pending 1 mask 0 selector 0x{selector:x}",
            .. ports.Order().Select(port =>
            {
                ulong word = ports.Where(p => p / bits == port / bits).Aggregate(0UL, (w, p) => w | (1UL << (int)(p % bits)));
                // The word is read once, before any of its ports is cleared.
                return $"port {port} pending (word 0x{word:x})";
            }),
        ];
    }

    /// <summary>What a vCPU logs that was told of nothing.</summary>
    public static string[] NothingDelivered { get; } = [$"taken {Fence}"];

    public GuestCommand Hypercall(ulong number, params ulong[] arguments) => GuestCommand.Hypercall(Native, KernelMode, number, arguments);

    /// <summary>Runs one hypercall that the kernel handles itself.</summary>
    /// <returns>What it returned, as the guest's register has it.</returns>
    public async Task<ulong> CallAsync(ulong number, params ulong[] arguments)
    {
        IReadOnlyList<CommandResult> results = await Vcpu.ExecuteAsync(Script().Add(Hypercall(number, arguments)));
        return results[^1].Value;
    }

    /// <summary>Runs one hypercall that the kernel leaves to user space, and answers it.</summary>
    public async Task<GuestExit> CallToUserSpaceAsync(ulong answer, ulong number, params ulong[] arguments)
    {
        await Vcpu.StartAsync(Script().Add(Hypercall(number, arguments)));
        GuestExit exit = await Vcpu.NextExitAsync();
        if (exit is not { Error: Errno.None, Reason: KvmExit.KVM_EXIT_XEN })
        {
            throw new UnexpectedExitException($"{exit} instead of a Xen hypercall");
        }

        await Vcpu.ResumeWithAsync(exit, answer);
        await Vcpu.FinishAsync();
        return exit;
    }

    public Task WriteAsync(ulong gpa, params uint[] words) => Vm.WriteMemoryAsync(gpa, words.SelectMany(BitConverter.GetBytes).ToArray());

    public static void Expect(Errno error, string call)
    {
        if (error != Errno.None)
        {
            throw new KvmException(call, error);
        }
    }

    private async Task CauseAsync(VcpuState state, Func<Task> cause, int vcpu)
    {
        switch (state)
        {
            case VcpuState.Halted:
                await HaltAsync(vcpu);
                await cause();
                break;
            case VcpuState.Running:
                await SpinAsync(vcpu);
                await cause();
                break;
            case VcpuState.NotYetRun:
                await cause();
                await Vcpus[vcpu].StartAsync(Script(vcpu).Add(HaltUntilFence(vcpu)));
                // A fence before its local APIC is enabled would be lost.
                await Vcpus[vcpu].WaitUntilHaltingAsync();
                break;
        }
    }

    private async Task PlaceAsync()
    {
        KernelSession session = Vm.Session;
        if (Options.SharedInfoApart)
        {
            _sharedInfoApart = await session.MapAnonymousAsync(0x1000, "shared_info");
            await AddSharedInfoSlotAsync();
            SharedInfo = new XenSharedInfo(_sharedInfoApart, 0, Layout);
        }
        else
        {
            SharedInfo = new XenSharedInfo(Vm.Memory, SharedInfoGpa, Layout);
        }

        if (Options.VcpuInfoApart)
        {
            _vcpuInfoApart = await session.MapAnonymousAsync(0x10000, "vcpu_info");
            await AddVcpuInfoSlotAsync();
        }

        for (int index = 0; index < Vcpus.Count; index++)
        {
            await PlaceVcpuAsync(index);
        }
    }

    private async Task PlaceVcpuAsync(int index)
    {
        VcpuInfos.Add(_vcpuInfoApart is Mapping apart
            ? new XenVcpuInfo(apart, VcpuInfoGpa(index) - VcpuInfoApartGpa, Layout)
            : new XenVcpuInfo(Vm.Memory, VcpuInfoGpa(index), Layout));
        await SetUpcallHandlerAsync(index, new HandlerPolicy
        {
            Acknowledge = Options.Upcall == UpcallPath.DomainVector ? Acknowledgement.Never : Acknowledgement.AfterActions,
            Notify = true,
            Actions = [UpcallAction(index)],
        });
    }

    /// <summary>What the handler of an upcall does by default.</summary>
    public HandlerAction UpcallAction(int vcpu, XenUpcall options = XenUpcall.None) => HandlerAction.XenUpcall(
        VcpuInfoGpa(vcpu), SharedInfoGpa, options | (Options.Abi == XenAbi.Bits32 ? XenUpcall.Layout32 : XenUpcall.None));

    /// <summary>Replaces what a vCPU does on an upcall, from before its first instruction.</summary>
    public Task SetUpcallHandlerAsync(int vcpu, HandlerPolicy policy, ApicVector? vector = null) =>
        Vcpus[vcpu].SetHandlersAsync(new HandlerTable().Set(vector ?? Upcall, policy));
}

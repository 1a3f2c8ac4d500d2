// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Uapi;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.Kvm;

/// <summary>An ITS of an arm64 VM. Commands go through its queue in guest memory, by the guest's own stores or by user space's attributes.</summary>
public sealed class Its : KvmDevice
{
    /// <summary>Bytes of the command queue.</summary>
    public const uint QueueSize = 0x10000;

    private const ulong Stride = 0x200000;
    private const ulong IttStride = 0x2000;

    private readonly Dictionary<DeviceId, ulong> _itts = [];

    private Its(Vm vm, KernelFd fd, int index)
        : base(fd)
    {
        Vm = vm;
        Index = index;
    }

    public Vm Vm { get; }

    /// <summary>Position among the VM's ITSs.</summary>
    public int Index { get; }

    /// <summary>Where its registers are, by default.</summary>
    public ulong Address => Arm64Layout.Its + ((ulong)Index * KVM_VGIC_V3_ITS_SIZE);

    /// <summary>Where a device writes to.</summary>
    public ulong Doorbell => Address + Gits.Translater;

    private ulong Memory => Arm64Layout.Scratch + 0x800000 + ((ulong)Index * Stride);

    /// <summary>Guest-physical address of the command queue.</summary>
    public ulong Queue => Memory;

    /// <summary>Guest-physical address of the device table: 64 KiB, or the level 1 table when it is indirect.</summary>
    public ulong DeviceTable => Memory + 0x10000;

    /// <summary>Guest-physical address of the collection table: 64 KiB.</summary>
    public ulong CollectionTable => Memory + 0x20000;

    /// <summary>64 KiB each, for second level tables of devices.</summary>
    public ulong SecondLevel(int n) => Memory + 0x30000 + ((ulong)n * 0x10000);

    /// <summary>Where the next command goes in the queue, in bytes.</summary>
    public uint Next { get; set; }

    public static async Task<(Errno Error, Its? Its)> TryCreateAsync(Vm vm, int index = 0)
    {
        (Errno error, KernelFd? fd) = await vm.TryCreateDeviceAsync(KvmConst.KVM_DEV_TYPE_ARM_VGIC_ITS, index == 0 ? "its" : $"its {index}");
        return (error, fd is null ? null : new Its(vm, fd, index));
    }

    public Task<Errno> TrySetAddressAsync(ulong address) => TrySetUInt64Async(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, address, "address");

    public Task<(Errno Error, ulong Value)> TryGetAddressAsync() => TryGetUInt64Async(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, "address");

    /// <param name="control">KVM_DEV_ARM_VGIC_CTRL_INIT or KVM_DEV_ARM_ITS_*.</param>
    public Task<Errno> TryControlAsync(uint control) => TrySetAsync(KVM_DEV_ARM_VGIC_GRP_CTRL, control, default, $"control {control}");

    public Task<Errno> TryInitialiseAsync() => TryControlAsync(KVM_DEV_ARM_VGIC_CTRL_INIT);

    public Task<Errno> TryResetAsync() => TryControlAsync(KVM_DEV_ARM_ITS_CTRL_RESET);

    public Task<Errno> TrySaveTablesAsync() => TryControlAsync(KVM_DEV_ARM_ITS_SAVE_TABLES);

    public Task<Errno> TryRestoreTablesAsync() => TryControlAsync(KVM_DEV_ARM_ITS_RESTORE_TABLES);

    public async Task SaveTablesAsync() => Vm.Expect(await TrySaveTablesAsync(), "KVM_DEV_ARM_ITS_SAVE_TABLES");

    public async Task RestoreTablesAsync() => Vm.Expect(await TryRestoreTablesAsync(), "KVM_DEV_ARM_ITS_RESTORE_TABLES");

    public async Task ResetAsync() => Vm.Expect(await TryResetAsync(), "KVM_DEV_ARM_ITS_CTRL_RESET");

    public Task<(Errno Error, ulong Value)> TryReadAsync(uint offset) => TryGetUInt64Async(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset, $"GITS 0x{offset:x}");

    public Task<Errno> TryWriteAsync(uint offset, ulong value) => TrySetUInt64Async(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset, value, $"GITS 0x{offset:x}");

    public async Task<ulong> ReadAsync(uint offset)
    {
        (Errno error, ulong value) = await TryReadAsync(offset);
        Vm.Expect(error, $"GITS 0x{offset:x}");
        return value;
    }

    public async Task WriteAsync(uint offset, ulong value) => Vm.Expect(await TryWriteAsync(offset, value), $"GITS 0x{offset:x} = 0x{value:x}");

    /// <summary>GITS_CBASER of the default queue.</summary>
    public ulong QueueBase => Queue | ((QueueSize / 4096) - 1) | Gits.Valid;

    /// <summary>A GITS_BASER value: valid, so many pages of 64 KiB.</summary>
    public static ulong TableBase(ulong address, uint pages = 1, bool indirect = false) =>
        Gits.Valid | (indirect ? Gits.BaserIndirect : 0) | address | (2ul << 8) | (pages - 1);

    /// <summary>Gives it its tables and queue, and enables it.</summary>
    public Task ConfigureAsync(bool enable = true)
    {
        Next = 0;
        return Task.WhenAll(
            WriteAsync(Gits.BaserDevices, TableBase(DeviceTable)),
            WriteAsync(Gits.BaserCollections, TableBase(CollectionTable)),
            WriteAsync(Gits.Cbaser, QueueBase),
            enable ? WriteAsync(Gits.Ctlr, Gits.CtlrEnable) : Task.CompletedTask);
    }

    /// <summary>Where the interrupt translation table of a device is put: room for 1024 events.</summary>
    public ulong Itt(DeviceId device)
    {
        if (!_itts.TryGetValue(device, out ulong address))
        {
            address = Memory + 0x80000 + ((ulong)_itts.Count * IttStride);
            _itts.Add(device, address);
        }

        return address;
    }

    /// <summary>The guest memory that its queue and tables are in.</summary>
    internal IEnumerable<(ulong Address, int Length)> Tables => [(Queue, 0x30000), (Memory + 0x80000, Math.Max(1, _itts.Count) * (int)IttStride)];

    /// <summary>MAPD with the device's own table.</summary>
    public ItsCommand MapDevice(DeviceId device, int eventBits = 5) => ItsCommand.MapDevice(device, Itt(device), eventBits);

    /// <summary>Puts commands into the queue and, by the attribute, moves GITS_CWRITER behind them: they have run when it returns.</summary>
    public Task IssueAsync(params IReadOnlyList<ItsCommand> commands) => Task.WhenAll(EnqueueAsync(commands), WriteAsync(Gits.Cwriter, Next));

    /// <summary>Puts commands into the queue without telling the ITS.</summary>
    public Task EnqueueAsync(params IReadOnlyList<ItsCommand> commands) =>
        Task.WhenAll(Pieces(commands).Select(p => Vm.WriteMemoryAsync(p.Address, p.Bytes)));

    /// <summary>The guest's own way: it stores the commands and then GITS_CWRITER.</summary>
    public IEnumerable<GuestCommand> ByGuest(params IReadOnlyList<ItsCommand> commands)
    {
        var script = new List<GuestCommand>();
        foreach (ItsCommand command in commands)
        {
            ulong at = Queue + Next;
            script.Add(GuestCommand.Store(at, command.D0, AccessWidth.Qword));
            script.Add(GuestCommand.Store(at + 8, command.D1, AccessWidth.Qword));
            script.Add(GuestCommand.Store(at + 16, command.D2, AccessWidth.Qword));
            script.Add(GuestCommand.Store(at + 24, command.D3, AccessWidth.Qword));
            Next = (Next + ItsCommand.Size) % QueueSize;
        }

        script.Add(GuestCommand.Store(Address + Gits.Cwriter, Next, AccessWidth.Qword));
        return script;
    }

    /// <summary>
    /// Everything an MSI needs to become an LPI: the LPI's configuration, MAPD, MAPC of the collection whose number is the vCPU's id, MAPTI.
    /// </summary>
    public async Task MapAsync(DeviceId device, EventId @event, Lpi lpi, uint vcpuId = 0, byte priority = 0xa0)
    {
        Task configured = Vm.Gic.ConfigureAsync(lpi, priority: priority);
        var collection = new CollectionId(vcpuId);
        List<ItsCommand> commands = [ItsCommand.MapCollection(collection, vcpuId), ItsCommand.MapEvent(device, @event, lpi, collection)];
        if (!_itts.ContainsKey(device))
        {
            commands.Insert(0, MapDevice(device));
        }

        await Task.WhenAll(configured, IssueAsync(commands));
    }

    /// <summary>What a device with this DeviceID writes to raise an event.</summary>
    public MsiMessage Message(DeviceId device, EventId @event) => new(Doorbell, @event.Value) { DeviceId = device.Value };

    private IEnumerable<(ulong Address, byte[] Bytes)> Pieces(IReadOnlyList<ItsCommand> commands)
    {
        var bytes = new List<byte>();
        ulong start = Queue + Next;
        foreach (ItsCommand command in commands)
        {
            bytes.AddRange(command.Encode());
            Next += ItsCommand.Size;
            if (Next == QueueSize)
            {
                yield return (start, bytes.ToArray());
                bytes.Clear();
                Next = 0;
                start = Queue;
            }
        }

        if (bytes.Count > 0)
        {
            yield return (start, bytes.ToArray());
        }
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Uapi;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.Kvm;

public sealed partial class Vm
{
    private readonly List<Its> _itss = [];
    private Vgic? _gic;

    /// <summary>arm64: the GICv3.</summary>
    public Vgic Gic => _gic ?? throw new InvalidOperationException($"{Options.Name} has no GIC.");

    /// <summary>arm64: the ITSs, in the order they were created.</summary>
    public IReadOnlyList<Its> Itss => _itss;

    /// <summary>arm64: the first ITS.</summary>
    public Its Its => _itss[0];

    private IEnumerable<KvmDevice> InterruptControllers() => _gic is null ? _itss : [.. _itss, _gic];

    /// <summary>Takes the GICv3 that was created together with the VM.</summary>
    internal void AdoptGic(int fd) => _gic = new Vgic(this, new KernelFd(Session, fd, "vgic"));

    /// <summary>Creates the GICv3: no address yet, not initialised.</summary>
    public async Task<Vgic> CreateGicAsync()
    {
        (Errno error, Vgic? gic) = await Vgic.TryCreateAsync(this);
        return _gic = gic ?? throw new KvmException("KVM_CREATE_DEVICE(KVM_DEV_TYPE_ARM_VGIC_V3)", error);
    }

    /// <summary>Creates one more ITS: no address yet.</summary>
    public async Task<Its> CreateItsAsync()
    {
        (Errno error, Its? its) = await Its.TryCreateAsync(this, _itss.Count);
        _itss.Add(its ?? throw new KvmException("KVM_CREATE_DEVICE(KVM_DEV_TYPE_ARM_VGIC_ITS)", error));
        return its;
    }

    /// <summary>Gives the GIC its addresses and initialises it, with the ITSs the options ask for.</summary>
    public async Task PlaceGicAsync()
    {
        // What does not need another's answer is asked for at once; it is done in this order.
        List<Task> asked = [];
        if (Options.Gic.IrqCount is uint count)
        {
            asked.Add(ExpectAsync(Gic.TrySetIrqCountAsync(count), $"NR_IRQS({count})"));
        }

        asked.Add(ExpectAsync(Gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_DIST, Arm64Layout.Distributor), "KVM_VGIC_V3_ADDR_TYPE_DIST"));
        asked.Add(ExpectAsync(Gic.TrySetAddressAsync(KVM_VGIC_V3_ADDR_TYPE_REDIST, Arm64Layout.Redistributors), "KVM_VGIC_V3_ADDR_TYPE_REDIST"));
        for (int n = 0; n < Options.Gic.ItsCount; n++)
        {
            await CreateItsAsync();
        }

        asked.Add(ExpectAsync(Gic.TryInitialiseAsync(), "KVM_DEV_ARM_VGIC_CTRL_INIT"));
        foreach (Its its in _itss)
        {
            asked.Add(ExpectAsync(its.TrySetAddressAsync(its.Address), "KVM_VGIC_ITS_ADDR_TYPE"));
            asked.Add(ExpectAsync(its.TryInitialiseAsync(), "KVM_DEV_ARM_VGIC_CTRL_INIT of the ITS"));
        }

        if (Options.Gic.Configure)
        {
            asked.Add(Gic.EnableDistributorAsync());
        }

        if (Options.Gic.Configure && _itss.Count > 0)
        {
            asked.Add(Gic.SetLpiTablesAsync());
            asked.AddRange(_itss.Select(i => i.ConfigureAsync()));
        }

        await Task.WhenAll(asked);
    }

    /// <summary>Waits until a 32-bit word of guest memory is at least so much; nothing stops or exits for it.</summary>
    public async Task AwaitMemoryAsync(ulong guestPhysical, uint atLeast)
    {
        (bool met, ulong last) = await Session.Agent.AwaitAsync(
            Memory.Address + guestPhysical - MemoryBase, 4, Wire.MemoryCondition.AtLeast, atLeast, Session.EventPatience);
        if (!met)
        {
            throw new MissingEventException($"0x{guestPhysical:x} holds {last}, not {atLeast} or more.");
        }
    }

    /// <summary>KVM_IRQ_LINE on an SPI.</summary>
    public Task IrqLineAsync(Spi spi, bool asserted) => IrqLineAsync(ArmIrqLine.Of(spi), asserted);

    /// <summary>KVM_IRQ_LINE on a PPI of one vCPU.</summary>
    public Task IrqLineAsync(Ppi ppi, uint vcpuId, bool asserted) => IrqLineAsync(ArmIrqLine.Of(ppi, vcpuId), asserted);

    /// <summary>An edge: asserted and de-asserted.</summary>
    public async Task PulseAsync(Spi spi)
    {
        await IrqLineAsync(spi, true);
        await IrqLineAsync(spi, false);
    }

    /// <summary>KVM_SIGNAL_MSI of a device's event to an ITS.</summary>
    /// <returns>What the kernel returned: 1 when it became an LPI, 0 when the ITS has no mapping for it.</returns>
    public Task<long> SignalMsiAsync(DeviceId device, EventId @event, Its? its = null) => SignalMsiAsync((its ?? Its).Message(device, @event));
}

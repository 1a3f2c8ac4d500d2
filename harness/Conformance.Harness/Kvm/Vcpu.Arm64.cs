// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Uapi;
using Conformance.Wire;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.Kvm;

/// <summary>A core register by its place in struct kvm_regs, in words of 32 bits.</summary>
public enum CoreRegister : uint
{
    X0 = 0,
    X1 = 2,
    Pc = 64,
}

internal static class CoreRegisters
{
    /// <summary>The register's id for KVM_SET_ONE_REG.</summary>
    public static ulong Id(this CoreRegister register) => KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (uint)register;
}

public sealed partial class Vcpu
{
    /// <summary>The SGI, at a priority below all others, that a guest sends itself to know that it has taken everything else.</summary>
    public static readonly Sgi FenceSgi = new(15);

    private const byte FencePriority = 0xf0;

    private uint _fences;
    private int _logged;

    /// <summary>Completes a KVM_SET_ONE_REG that has its descriptor and request.</summary>
    internal static SystemCall SetRegisterCall(SystemCall call, ulong id, ulong value)
    {
        call.In(KernelSession.Bytes(new kvm_one_reg { id = id }));
        return call.Pointer(0, 8, call.Attach(BitConverter.GetBytes(value), 8, returned: false));
    }

    /// <summary>KVM_ARM_VCPU_INIT's argument: a target with other features.</summary>
    internal static byte[] InitialisationOf(ReadOnlySpan<byte> target, uint features)
    {
        byte[] argument = target.ToArray();
        argument.AsSpan(4).Clear();
        BitConverter.TryWriteBytes(argument.AsSpan(4), features);
        return argument;
    }

    /// <summary>
    /// Lets the guest open its CPU interface and take everything that is pending for this vCPU.
    /// </summary>
    /// <param name="commands">Run before interrupts are enabled.</param>
    /// <returns>What it took since the last time, in the order it took it.</returns>
    public async Task<IntId[]> TakePendingAsync(params IEnumerable<GuestCommand> commands)
    {
        await ExecuteAsync(TakeScript(commands));
        return await TakenAsync();
    }

    /// <summary>The script of <see cref="TakePendingAsync"/>, to be started while something else goes on.</summary>
    public GuestScript TakeScript(params IEnumerable<GuestCommand> commands)
    {
        // SGIs are delivered by priority like all others, so the fence is taken when nothing else is pending.
        return new GuestScript()
            .Add(Arm64Command.EnableGic())
            .AddRange(commands)
            .AddRange(Fence());
    }

    /// <summary>Commands that take whatever is pending, and end when nothing is.</summary>
    public IEnumerable<GuestCommand> Fence()
    {
        _fences++;
        return
        [
            Arm64Command.StoreRedistributor(Index, Gicr.Ipriorityr0 + FenceSgi.Value, FencePriority, AccessWidth.Byte),
            Arm64Command.SendSgi(FenceSgi, Id),
            GuestCommand.InterruptsOn,
            Arm64Command.HaltUntilTaken(FenceSgi, _fences, quiet: true),
            GuestCommand.InterruptsOff,
        ];
    }

    /// <summary>What was taken since the last time this was asked, without fences.</summary>
    public async Task<IntId[]> TakenAsync()
    {
        IntId[] all = [.. (await ReadLogAsync()).IntIds];
        IntId[] taken = [.. all.Skip(_logged).Where(i => i != FenceSgi)];
        _logged = all.Length;
        return taken;
    }

    /// <summary>Enters the guest for the first time. Without an error the guest has booted, and waits for its first script.</summary>
    public async Task<GuestExit> BootAsync()
    {
        await StartThreadAsync();
        return await NextExitAsync();
    }

    /// <summary>Starts the guest waiting, halted in the kernel, until it has taken this interrupt so many times. Interrupts are enabled while it waits, not afterwards.</summary>
    public async Task HaltUntilTakenAsync(IntId intid, uint times = 1)
    {
        await StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(Arm64Command.HaltUntilTaken(intid, times)));
        await WaitUntilHaltingAsync();
        await WaitUntilBlockedAsync();
    }

    /// <summary>Starts the guest spinning in user code of its own, interrupts enabled, until it has taken this interrupt so many times: it leaves only when it is kicked.</summary>
    public async Task SpinUntilTakenAsync(IntId intid, uint times = 1)
    {
        await StartAsync(new GuestScript().Add(Arm64Command.EnableGic()).Add(GuestCommand.Notify)
            .Add(GuestCommand.SpinUntil(new GuestCondition(TakenAddress(intid), Comparison.AtLeast, times), interrupts: true)));
        await WaitForNotifyAsync();
    }

    /// <summary>Where the guest counts how often it took this interrupt, or one in the same slot.</summary>
    public ulong TakenAddress(IntId intid) => Area + GuestProtocol.ControlTaken + (intid.Slot * 4u);

    /// <summary>Sets what the guest does on this interrupt; before it runs, or while it is stopped.</summary>
    public Task SetHandlerAsync(IntId intid, HandlerPolicy policy) => SetHandlersAsync(new HandlerTable().Set(new ApicVector(intid.Slot), policy));
}

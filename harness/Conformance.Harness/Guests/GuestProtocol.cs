// SPDX-License-Identifier: MIT
namespace Conformance.Guests;

/// <summary>Numbers of guests/lib/protocol.h, which a harness test proves equal. Offsets and sizes in bytes.</summary>
public static class GuestProtocol
{
    public const uint GuestImageMagic = 0x31474643;
    public const uint GuestProtocolVersion = 1;

    public const int AreaSize = 0x20000;
    public const int AreaControl = 0x00000;
    public const int AreaLog = 0x01000;
    public const int AreaPrivate = 0x0d000;
    public const int AreaScript = 0x10000;

    public const int ControlCounters = 0x040;
    public const int ControlPolicies = 0x100;
    public const int ControlTaken = 0x900;
    public const int ControlActions = 0xd00;

    public const int Counters = 8;
    public const int Vectors = 256;
    public const int Actions = 24;
    public const int LogRecords = 1536;
    public const int ScriptCommands = 512;

    /// <summary>x86 call-out port: a 32-bit write whose value is a <see cref="CallOut"/>.</summary>
    public const ushort CalloutPort = 0x0cf0;

    /// <summary>arm64 call-out address: a 32-bit store.</summary>
    public const uint CalloutAddress = 0x0b000000;

    internal const int ControlSize = 0x1000;
    internal const int RecordSize = 32;
    internal const int CommandSize = 128;
    internal const int ActionSize = 32;
    internal const int HeaderSize = 48;
}

/// <summary>Why a guest called out.</summary>
public enum CallOut : uint
{
    /// <summary>It waits for a script, having just booted or finished one; it stops.</summary>
    Ready = 1,

    /// <summary>A handler with that policy has logged, or a NOTIFY command ran; it goes on.</summary>
    Notify = 2,

    /// <summary>It met an exception nobody expected; the control page says which; it stops.</summary>
    Died = 3,

    /// <summary>A CALLOUT command asks for something; it stops.</summary>
    Ask = 4,

    /// <summary>A HALT command is about to wait; it goes on.</summary>
    Halting = 5,
}

/// <summary>What the guest's vCPU is doing, from its control page.</summary>
public enum GuestState : uint
{
    NotEntered = 0,
    Waiting = 1,
    Running = 2,
    Died = 3,
}

/// <summary>How a command of a script ended.</summary>
public enum CommandStatus : uint
{
    NotRun = 0,
    Done = 1,

    /// <summary>Ended by an exception it was allowed to raise.</summary>
    Faulted = 2,

    /// <summary>This guest does not know the command, or cannot do it in its mode.</summary>
    Unsupported = 3,
}

/// <summary>What a log record tells.</summary>
public enum LogRecordKind : ushort
{
    Interrupt = 1,
    EventChannel = 2,
    Exception = 3,
    Nmi = 4,
    Mark = 5,
    Action = 6,
    Upcall = 7,

    /// <summary>arm64: an interrupt of group 0.</summary>
    Fiq = 8,
}

/// <summary>Width of one access.</summary>
public enum AccessWidth
{
    Byte = 1,
    Word = 2,
    Dword = 4,
    Qword = 8,
}

/// <summary>Unsigned comparison of masked memory with a value.</summary>
public enum Comparison
{
    Equal = 0,
    NotEqual = 1,
    AtLeast = 2,
    Less = 3,
}

/// <summary>A locked read-modify-write instruction.</summary>
public enum LockedOperation
{
    Xchg = 0,
    Xadd = 1,
    Cmpxchg = 2,
    Add = 3,
    Or = 4,
    And = 5,
    Xor = 6,
    Bts = 7,
    Btr = 8,
    Btc = 9,
}

/// <summary>From where a hypercall is made. The 32-bit modes are compatibility mode in the 64-bit guest and protected mode in the 32-bit one.</summary>
public enum HypercallMode
{
    Kernel64 = 0,
    User64 = 1,
    Kernel32 = 2,
    User32 = 3,
}

/// <summary>
/// How a hypercall is made. The native instruction is vmcall on Intel and vmmcall on AMD; KVM rewrites the other one in guest
/// memory unless KVM_X86_QUIRK_FIX_HYPERCALL_INSN is disabled.
/// </summary>
public enum HypercallInstruction
{
    Vmcall = 0,
    Vmmcall = 1,

    /// <summary>A call to the hypercall page, at number × 32.</summary>
    Page = 2,
}

/// <summary>Xen upcall processing, as a handler action or a command. None is what a Xen guest does.</summary>
[Flags]
public enum XenUpcall : ushort
{
    None = 0,

    /// <summary>vcpu_info and shared_info have the 32-bit layout.</summary>
    Layout32 = 1,
    KeepUpcallPending = 2,
    KeepSelector = 4,
    KeepPending = 8,

    /// <summary>Set the mask bit of each port found, as a guest does that leaves the work for later.</summary>
    MaskPorts = 16,

    /// <summary>Look and log, clear nothing. With a level-like upcall the interrupt comes again at once.</summary>
    RecordOnly = KeepUpcallPending | KeepSelector | KeepPending,
}

/// <summary>x86 exceptions that a command may be allowed to raise.</summary>
public enum X86Exception : byte
{
    DivideError = 0,
    Debug = 1,
    Breakpoint = 3,
    Overflow = 4,
    BoundRange = 5,
    InvalidOpcode = 6,
    DeviceNotAvailable = 7,
    DoubleFault = 8,
    InvalidTss = 10,
    SegmentNotPresent = 11,
    StackFault = 12,
    GeneralProtection = 13,
    PageFault = 14,
    MathFault = 16,
    AlignmentCheck = 17,
    MachineCheck = 18,
    SimdException = 19,
}

/// <summary>Names of exceptions.</summary>
public static class X86ExceptionName
{
    /// <summary>The mnemonic of the manuals, such as <c>#PF</c>.</summary>
    public static string Mnemonic(this X86Exception exception) => exception switch
    {
        X86Exception.DivideError => "#DE",
        X86Exception.Debug => "#DB",
        X86Exception.Breakpoint => "#BP",
        X86Exception.Overflow => "#OF",
        X86Exception.BoundRange => "#BR",
        X86Exception.InvalidOpcode => "#UD",
        X86Exception.DeviceNotAvailable => "#NM",
        X86Exception.DoubleFault => "#DF",
        X86Exception.InvalidTss => "#TS",
        X86Exception.SegmentNotPresent => "#NP",
        X86Exception.StackFault => "#SS",
        X86Exception.GeneralProtection => "#GP",
        X86Exception.PageFault => "#PF",
        X86Exception.MathFault => "#MF",
        X86Exception.AlignmentCheck => "#AC",
        X86Exception.MachineCheck => "#MC",
        X86Exception.SimdException => "#XM",
        _ => $"exception {(byte)exception}",
    };
}

/// <summary>Command numbers, named as in the header.</summary>
internal enum GuestOp : ushort
{
    Nop = 0,
    Load = 1,
    Store = 2,
    Copy = 3,
    Fill = 4,
    Rmw = 5,
    SpinUntil = 6,
    Loop = 7,
    Callout = 8,
    Notify = 9,
    Mark = 10,
    InterruptsOn = 11,
    InterruptsOff = 12,
    HaltUntil = 13,
    HaltOnce = 14,
    Pause = 15,
    Timestamp = 16,
    Handler = 17,
    Action = 18,
    Eoi = 19,
    Rdmsr = 64,
    Wrmsr = 65,
    In = 66,
    Out = 67,
    Ins = 68,
    Outs = 69,
    Hypercall = 70,
    Cpuid = 71,
    ReadCr = 72,
    WriteCr = 73,
    FlushTlb = 74,
    Invlpg = 75,
    ApicEnable = 76,
    ApicRead = 77,
    ApicWrite = 78,
    Ipi = 79,
    Int = 80,
    XenUpcall = 81,
    ReadSysreg = 128,
    WriteSysreg = 129,
    GicEnable = 130,
    Hvc = 131,
}

/// <summary>Options of single commands.</summary>
internal static class CommandFlag
{
    internal const ushort SpinInterruptsOn = 0x0100;
    internal const ushort SpinInterruptsOff = 0x0200;
    internal const ushort LoopUntilMemory = 0x0100;
    internal const ushort HaltUntilRecords = 0;
    internal const ushort HaltUntilTaken = 1;
    internal const ushort HaltQuiet = 0x0100;
    internal const ushort HaltInterruptsOff = 0x0200;
    internal const ushort HypercallKvmAbi = 0x0100;
    internal const ushort ApicEnableX2apic = 0x0100;
}

/// <summary>Bits of a handler policy.</summary>
internal static class PolicyBit
{
    internal const uint PolicyNoLog = 0x01;
    internal const uint PolicyNoEoi = 0x02;
    internal const uint PolicyEoiFirst = 0x04;
    internal const uint PolicyNotify = 0x08;
    internal const uint PolicyNest = 0x10;
    internal const uint PolicyReturnMasked = 0x20;
    internal const uint PolicyInterrupt = 0x40;
    internal const uint PolicyNoSettle = 0x80;
    internal const int PolicyFirstAction = 16;
    internal const int PolicyActionCount = 24;
}

/// <summary>Kinds of handler action.</summary>
internal enum ActionKind : byte
{
    Store = 1,
    Load = 2,
    Add = 3,
    Out = 4,
    In = 5,
    Wrmsr = 6,
    XenUpcall = 7,
    WriteSysreg = 8,
    ReadSysreg = 9,
}

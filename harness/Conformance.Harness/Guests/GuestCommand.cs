// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Kvm;

namespace Conformance.Guests;

/// <summary>
/// One command of a guest script. A command that raises an exception it was not allowed to (<see cref="Expecting"/>) is the guest's death.
/// </summary>
public sealed class GuestCommand
{
    private const int MaxArguments = 8;

    private readonly GuestOp _op;
    private readonly ushort _flags;
    private readonly uint _expected;
    private readonly ulong[] _arguments;
    private readonly string _text;

    internal GuestCommand(GuestOp op, string text, int flags, params ulong[] arguments)
        : this(op, text, (ushort)flags, 0, arguments)
    {
    }

    private GuestCommand(GuestOp op, string text, ushort flags, uint expected, ulong[] arguments)
    {
        _op = op;
        _text = text;
        _flags = flags;
        _expected = expected;
        _arguments = arguments;
    }

    internal GuestOp Op => _op;

    /// <summary>Does nothing.</summary>
    public static GuestCommand Nop { get; } = new(GuestOp.Nop, "nop", 0);

    /// <summary>Tells the harness (<see cref="CallOut.Notify"/>) and goes on.</summary>
    public static GuestCommand Notify { get; } = new(GuestOp.Notify, "notify", 0);

    /// <summary>Enables interrupts; result 1 when they were.</summary>
    public static GuestCommand InterruptsOn { get; } = new(GuestOp.InterruptsOn, "sti", 0);

    /// <summary>Disables interrupts; result 1 when they were enabled.</summary>
    public static GuestCommand InterruptsOff { get; } = new(GuestOp.InterruptsOff, "cli", 0);

    /// <summary>Result: the TSC.</summary>
    public static GuestCommand Timestamp { get; } = new(GuestOp.Timestamp, "rdtsc", 0);

    /// <summary>Acknowledges the interrupt in service of highest priority.</summary>
    public static GuestCommand Eoi { get; } = new(GuestOp.Eoi, "eoi", 0, 0ul);

    /// <summary>Writes cr3 with itself.</summary>
    public static GuestCommand FlushTlb { get; } = new(GuestOp.FlushTlb, "flush tlb", 0);

    /// <summary>Result: the value at a guest-physical address, memory or MMIO, read with one access of this width.</summary>
    public static GuestCommand Load(ulong address, AccessWidth width = AccessWidth.Dword) =>
        new(GuestOp.Load, $"load.{(int)width} [0x{address:x}]", (int)width, address);

    /// <summary>One access of this width.</summary>
    public static GuestCommand Store(ulong address, ulong value, AccessWidth width = AccessWidth.Dword) =>
        new(GuestOp.Store, $"store.{(int)width} [0x{address:x}] 0x{value:x}", (int)width, address, value);

    /// <summary><c>rep movs</c>.</summary>
    /// <param name="count">Elements of <paramref name="width"/>.</param>
    public static GuestCommand Copy(ulong to, ulong from, ulong count, AccessWidth width = AccessWidth.Byte) =>
        new(GuestOp.Copy, $"rep movs.{(int)width} [0x{to:x}] [0x{from:x}] {count}", (int)width, to, from, count);

    /// <summary><c>rep stos</c>.</summary>
    /// <param name="count">Elements of <paramref name="width"/>.</param>
    public static GuestCommand Fill(ulong to, ulong value, ulong count, AccessWidth width = AccessWidth.Byte) =>
        new(GuestOp.Fill, $"rep stos.{(int)width} [0x{to:x}] 0x{value:x} {count}", (int)width, to, value, count);

    /// <summary>
    /// A locked instruction. Result: the old value (xchg, xadd, cmpxchg; result 2 is then 1 when cmpxchg exchanged), the old bit (bts,
    /// btr, btc), the flags (the others).
    /// </summary>
    /// <param name="operand">For the bit operations the bit's number, which may lie beyond the width; they have no byte form.</param>
    /// <param name="compare">What cmpxchg compares with.</param>
    public static GuestCommand Locked(LockedOperation operation, ulong address, ulong operand, AccessWidth width = AccessWidth.Dword, ulong compare = 0) =>
        new(GuestOp.Rmw, $"lock {operation.ToString().ToLowerInvariant()}.{(int)width} [0x{address:x}] 0x{operand:x}" + (operation == LockedOperation.Cmpxchg ? $" if 0x{compare:x}" : ""),
            (int)width | ((int)operation << 4), address, operand, compare);

    /// <summary>Reads until the condition holds. Result: the last value; result 2: 1 when it held.</summary>
    /// <param name="mostReads">0: no end.</param>
    /// <param name="interrupts">Enabled (true) or disabled while spinning, restored afterwards; null: as they are.</param>
    public static GuestCommand SpinUntil(GuestCondition condition, ulong mostReads = 0, bool? interrupts = null) =>
        new(GuestOp.SpinUntil, $"spin until {condition}" + (mostReads == 0 ? "" : $" at most {mostReads}") + (interrupts is bool on ? on ? " interrupts on" : " interrupts off" : ""),
            (int)condition.Width | ((int)condition.Comparison << 4) | (interrupts switch { null => 0, true => CommandFlag.SpinInterruptsOn, false => CommandFlag.SpinInterruptsOff }),
            condition.Address, condition.Mask, condition.Value, mostReads);

    /// <summary>Stops until the harness resumes the vCPU (<see cref="CallOut.Ask"/>).</summary>
    /// <param name="arguments">Anything, at most eight: they are for the harness, which finds them in the script.</param>
    public static GuestCommand Ask(params ulong[] arguments) =>
        new(GuestOp.Callout, "ask" + string.Concat(arguments.Select(a => $" 0x{a:x}")), 0, [.. arguments]);

    /// <summary>Logs a record of kind <see cref="LogRecordKind.Mark"/>.</summary>
    public static GuestCommand Mark(ulong value, ulong extra = 0) => new(GuestOp.Mark, $"mark 0x{value:x} 0x{extra:x}", 0, value, extra);

    /// <summary>
    /// Waits, halted with interrupts enabled, until this vCPU has logged so many records since it was started. The call-out
    /// <see cref="CallOut.Halting"/> comes before the first halt, none when nothing need be waited for. Result 2: the number of halts.
    /// </summary>
    /// <param name="quiet">No call-out.</param>
    public static GuestCommand HaltUntilLogged(ulong records, bool quiet = false) =>
        new(GuestOp.HaltUntil, $"halt until {records} records", (CommandFlag.HaltUntilRecords << 4) | (quiet ? CommandFlag.HaltQuiet : 0), 0, records);

    /// <summary>As <see cref="HaltUntilLogged"/>, until a vector has been taken so many times since the vCPU was started.</summary>
    public static GuestCommand HaltUntilTaken(ApicVector vector, uint times = 1, bool quiet = false) =>
        new(GuestOp.HaltUntil, $"halt until {vector} taken {times}", (CommandFlag.HaltUntilTaken << 4) | (quiet ? CommandFlag.HaltQuiet : 0), vector.Value, times);

    /// <summary>Halts exactly once, after the call-out <see cref="CallOut.Halting"/>; goes on when anything woke it.</summary>
    /// <param name="interrupts">false: halted with interrupts disabled, so that only an NMI, or the kernel, wakes it.</param>
    public static GuestCommand HaltOnce(bool interrupts = true, bool quiet = false) =>
        new(GuestOp.HaltOnce, interrupts ? "halt" : "halt interrupts off", (quiet ? CommandFlag.HaltQuiet : 0) | (interrupts ? 0 : CommandFlag.HaltInterruptsOff));

    /// <summary><c>pause</c>, so many times.</summary>
    public static GuestCommand Pause(ulong times) => new(GuestOp.Pause, $"pause {times}", 0, times);

    /// <summary>Result: the MSR's value.</summary>
    public static GuestCommand ReadMsr(uint msr) => new(GuestOp.Rdmsr, $"rdmsr 0x{msr:x}", 0, msr);

    public static GuestCommand WriteMsr(uint msr, ulong value) => new(GuestOp.Wrmsr, $"wrmsr 0x{msr:x} 0x{value:x}", 0, msr, value);

    /// <summary>Result: what the port gave.</summary>
    public static GuestCommand In(ushort port, AccessWidth width = AccessWidth.Byte) => new(GuestOp.In, $"in.{(int)width} 0x{port:x}", (int)width, port);

    public static GuestCommand Out(ushort port, uint value, AccessWidth width = AccessWidth.Byte) =>
        new(GuestOp.Out, $"out.{(int)width} 0x{port:x} 0x{value:x}", (int)width, port, value);

    /// <summary><c>rep ins</c>.</summary>
    /// <param name="buffer">Guest-physical.</param>
    /// <param name="count">Elements of <paramref name="width"/>.</param>
    public static GuestCommand InString(ushort port, ulong buffer, ulong count, AccessWidth width = AccessWidth.Byte) =>
        new(GuestOp.Ins, $"rep ins.{(int)width} 0x{port:x} [0x{buffer:x}] {count}", (int)width, port, buffer, count);

    /// <summary><c>rep outs</c>.</summary>
    /// <param name="buffer">Guest-physical.</param>
    /// <param name="count">Elements of <paramref name="width"/>.</param>
    public static GuestCommand OutString(ushort port, ulong buffer, ulong count, AccessWidth width = AccessWidth.Byte) =>
        new(GuestOp.Outs, $"rep outs.{(int)width} 0x{port:x} [0x{buffer:x}] {count}", (int)width, port, buffer, count);

    /// <summary>
    /// A hypercall with Xen's registers: 64-bit rdi, rsi, rdx, r10, r8, r9; 32-bit ebx, ecx, edx, esi, edi, ebp; the number in rax. Result:
    /// rax afterwards; result 2: bit n set when register n of rbx (1) rcx rdx rsi rdi rbp r8 r9 r10 came back changed.
    /// </summary>
    /// <param name="page">Guest-physical address of the hypercall page, for <see cref="HypercallInstruction.Page"/>.</param>
    /// <param name="arguments">At most six; the rest are zero.</param>
    public static GuestCommand Hypercall(HypercallInstruction instruction, HypercallMode mode, ulong number, ReadOnlySpan<ulong> arguments = default, ulong page = 0)
    {
        if (instruction == HypercallInstruction.Page && page == 0)
        {
            throw new ArgumentException("a call through the hypercall page needs the page's address", nameof(page));
        }

        return MakeHypercall(instruction, mode, number, arguments, page, kvm: false);
    }

    /// <summary>A hypercall with KVM's own registers rbx, rcx, rdx, rsi.</summary>
    /// <param name="arguments">At most four; the rest are zero.</param>
    public static GuestCommand KvmHypercall(HypercallInstruction instruction, HypercallMode mode, ulong number, params ReadOnlySpan<ulong> arguments)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(arguments.Length, 4, nameof(arguments));
        return MakeHypercall(instruction, mode, number, arguments, 0, kvm: true);
    }

    /// <summary>Result: eax and ebx &lt;&lt; 32; result 2: ecx and edx &lt;&lt; 32 (<see cref="CommandResult.Cpuid"/>).</summary>
    public static GuestCommand Cpuid(uint leaf, uint subleaf = 0) => new(GuestOp.Cpuid, $"cpuid 0x{leaf:x} {subleaf}", 0, leaf, subleaf);

    /// <param name="number">0, 2, 3, 4 or 8.</param>
    public static GuestCommand ReadControlRegister(int number) => new(GuestOp.ReadCr, $"read cr{number}", 0, (ulong)number);

    /// <param name="number">0, 2, 3, 4 or 8 (the task priority, bits 7:4 of the TPR).</param>
    public static GuestCommand WriteControlRegister(int number, ulong value) => new(GuestOp.WriteCr, $"write cr{number} 0x{value:x}", 0, (ulong)number, value);

    public static GuestCommand Invlpg(ulong address) => new(GuestOp.Invlpg, $"invlpg 0x{address:x}", 0, address);

    /// <summary>Enables the local APIC in this mode, by way of the disabled state if it must. Result: the APIC id.</summary>
    public static GuestCommand EnableApic(bool x2apic = false, byte spurious = 0xff) =>
        new(GuestOp.ApicEnable, x2apic ? "enable x2apic" : "enable xapic", x2apic ? CommandFlag.ApicEnableX2apic : 0, spurious);

    /// <summary>Result: the register's value, 64 bits for the ICR.</summary>
    /// <param name="register">Its xAPIC offset, whatever the mode: 0x20 is the id.</param>
    public static GuestCommand ReadApic(uint register) => new(GuestOp.ApicRead, $"read apic 0x{register:x}", 0, register);

    /// <param name="register">Its xAPIC offset, whatever the mode; 0x300 takes the 64-bit ICR.</param>
    public static GuestCommand WriteApic(uint register, ulong value) => new(GuestOp.ApicWrite, $"write apic 0x{register:x} 0x{value:x}", 0, register, value);

    /// <summary>Writes the ICR.</summary>
    /// <param name="destination">APIC id, placed as the mode wants it.</param>
    /// <param name="icr">Low half: vector, delivery mode, shorthand.</param>
    public static GuestCommand SendIpi(uint destination, uint icr) => new(GuestOp.Ipi, $"ipi {destination} 0x{icr:x}", 0, destination, icr);

    /// <summary><c>int n</c>; an acknowledging handler then acknowledges nothing.</summary>
    public static GuestCommand SoftwareInterrupt(byte vector) => new(GuestOp.Int, $"int 0x{vector:x}", 0, vector);

    /// <summary>Looks at the event channels as an upcall's handler does, but as a command.</summary>
    /// <param name="vcpuInfo">Guest-physical address of vcpu_info.</param>
    /// <param name="sharedInfo">Guest-physical address of shared_info.</param>
    /// <param name="ports">Guest-physical address of a bitmap of the ports to look at; 0: all.</param>
    public static GuestCommand LookAtEventChannels(ulong vcpuInfo, ulong sharedInfo, XenUpcall options = XenUpcall.None, ulong ports = 0) =>
        new(GuestOp.XenUpcall, $"xen upcall vcpu_info 0x{vcpuInfo:x} shared_info 0x{sharedInfo:x}" + (options == XenUpcall.None ? "" : $" {options}"), (ushort)options, vcpuInfo, sharedInfo, ports);

    /// <summary>The same command, which these exceptions may end; the script then goes on with the next command.</summary>
    public GuestCommand Expecting(params ReadOnlySpan<X86Exception> exceptions)
    {
        uint expected = _expected;
        var names = new List<string>();
        foreach (X86Exception exception in exceptions)
        {
            expected |= 1u << (byte)exception;
            names.Add(exception.Mnemonic());
        }

        return new GuestCommand(_op, $"{_text} ({string.Join(" or ", names)} allowed)", _flags, expected, _arguments);
    }

    /// <summary>The same command, which the exceptions of these bits may end.</summary>
    internal GuestCommand Expecting(uint exceptions, string names) => new(_op, $"{_text} ({names} allowed)", _flags, _expected | exceptions, _arguments);

    public override string ToString() => _text;

    internal static GuestCommand Handler(byte vector, ulong policy, string text) => new(GuestOp.Handler, $"handle 0x{vector:x2}: {text}", 0, vector, policy);

    internal static GuestCommand SetAction(int slot, HandlerAction action)
    {
        var bytes = new byte[GuestProtocol.ActionSize];
        action.Encode(bytes);
        var arguments = new ulong[5];
        arguments[0] = (ulong)slot;
        for (int n = 0; n < 4; n++)
        {
            arguments[n + 1] = BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(n * 8));
        }

        return new(GuestOp.Action, $"action {slot}: {action}", 0, arguments);
    }

    internal static GuestCommand Loop(string label, ulong jumps, GuestCondition? until)
    {
        string text = $"loop {label}" + (jumps == ulong.MaxValue ? "" : $" {jumps}") + (until is null ? "" : $" until {until}");
        return until is GuestCondition condition
            ? new(GuestOp.Loop, text, (int)condition.Width | ((int)condition.Comparison << 4) | CommandFlag.LoopUntilMemory, 0, jumps, condition.Address, condition.Mask, condition.Value)
            : new(GuestOp.Loop, text, 0, 0, jumps);
    }

    internal GuestCommand JumpingTo(int index) => new(_op, _text, _flags, _expected, [(ulong)index, .. _arguments.AsSpan(1)]);

    internal void Encode(Span<byte> command)
    {
        command.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(command, (ushort)_op);
        BinaryPrimitives.WriteUInt16LittleEndian(command[2..], _flags);
        BinaryPrimitives.WriteUInt32LittleEndian(command[4..], _expected);
        for (int n = 0; n < _arguments.Length; n++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(command[(0x10 + (n * 8))..], _arguments[n]);
        }
    }

    private static GuestCommand MakeHypercall(HypercallInstruction instruction, HypercallMode mode, ulong number, ReadOnlySpan<ulong> arguments, ulong page, bool kvm)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(arguments.Length, 6, nameof(arguments));
        var all = new ulong[MaxArguments];
        all[0] = number;
        arguments.CopyTo(all.AsSpan(1));
        all[7] = page;
        string text = $"{(kvm ? "kvm" : "xen")} hypercall {number} ({string.Join(", ", arguments.ToArray().Select(a => $"0x{a:x}"))}) {mode} by {instruction}";
        return new(GuestOp.Hypercall, text, (int)mode | ((int)instruction << 4) | (kvm ? CommandFlag.HypercallKvmAbi : 0), all);
    }
}

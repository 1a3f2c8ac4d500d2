// SPDX-License-Identifier: MIT
using Conformance.Uapi;

namespace Conformance.Guests;

/// <summary>
/// Where things are in the memory of an x86 guest (guests/x86/layout.h, which a harness test proves equal) and in what state its
/// vCPUs start. All addresses are guest-physical, and virtual is physical.
/// </summary>
public sealed class GuestLayout
{
    /// <summary>Pages that a test may give away or unmap one by one: shared_info, vcpu_info, a hypercall page.</summary>
    public const ulong TestPages = 0x00010000;

    /// <inheritdoc cref="TestPages"/>
    public const ulong TestPagesEnd = 0x00100000;

    /// <summary>Where an image is loaded.</summary>
    public const ulong Image = 0x00100000;
    public const ulong Entry = 0x00101000;

    /// <summary><c>vmcall; ret</c>: KVM may rewrite these three bytes.</summary>
    public const ulong Vmcall = 0x00101800;

    /// <summary><c>vmmcall; ret</c>: KVM may rewrite these three bytes.</summary>
    public const ulong Vmmcall = 0x00101810;

    public const ulong Idt = 0x00103000;

    /// <summary>Root of the page tables in the image: what cr3 holds.</summary>
    public const ulong PageTables = 0x00110000;

    /// <summary>Area of vCPU 0; the others follow.</summary>
    public const ulong Areas = 0x00200000;

    /// <summary>End of what is mapped in 4 KiB pages.</summary>
    public const ulong SmallEnd = 0x00400000;

    /// <summary>Memory the guest never touches of its own accord, in large pages.</summary>
    public const ulong Scratch = 0x01000000;

    /// <inheritdoc cref="Scratch"/>
    public const ulong ScratchEnd = 0x02000000;

    /// <summary>Default size of guest memory, from 0.</summary>
    public const ulong Memory = 0x02000000;

    internal const ulong SmallTables = 0x00116000;
    internal const ulong SmallTables32 = 0x00111000;
    internal const int AreaGdt = 0x0d100;
    internal const int AreaTss = 0x0d180;
    internal const int AreaStackEnd = 0x10000;
    internal const ushort SelKernelCode = 0x08;
    internal const ushort SelKernelData = 0x10;
    internal const ushort SelTss = 0x38;
    internal const ushort GdtLimit = 0x47;
    internal const ushort TssLimit = 0x67;

    private const ulong ProtectedMode = 0x33;
    private const ulong Paging = 0x80010000;
    private const ulong PageSizeExtension = 0x10;
    private const ulong PhysicalAddressExtension = 0x20;
    private const ulong LongModeActive = 0x500;
    private const byte SegmentCode = 11;
    private const byte SegmentData = 3;
    private const byte SegmentBusyTss = 11;
    private const byte SegmentLdt = 2;

    private GuestLayout(string name, uint machine, bool longMode, bool paging)
    {
        ImageName = name;
        Machine = machine;
        LongMode = longMode;
        IsPaging = paging;
        Tables = new PageTables(longMode ? SmallTables : SmallTables32, longMode ? 8 : 4);
    }

    /// <summary>The 64-bit guest.</summary>
    public static GuestLayout X86_64 { get; } = new("x86_64.img", 62, longMode: true, paging: true);

    /// <summary>The same guest in 32-bit protected mode, without paging: long mode has never been entered.</summary>
    public static GuestLayout X86_32 { get; } = new("x86_32.img", 3, longMode: false, paging: false);

    /// <summary>The 32-bit guest with two-level paging on.</summary>
    public static GuestLayout X86_32Paging { get; } = new("x86_32.img", 3, longMode: false, paging: true);

    /// <summary>File name of the image, in /guests of the kernel under test and in build/guests.</summary>
    public string ImageName { get; }

    /// <summary>ELF machine in the image's header.</summary>
    public uint Machine { get; }
    public bool LongMode { get; }
    public bool IsPaging { get; }

    /// <summary>The image's page tables for the first 4 MiB.</summary>
    public PageTables Tables { get; }

    /// <summary>Area of the vCPU with this index.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative, or the area would run into scratch memory.</exception>
    public static ulong Area(int index)
    {
        ulong address = Areas + ((ulong)index * GuestProtocol.AreaSize);
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(address + GuestProtocol.AreaSize, Scratch, nameof(index));
        return address;
    }

    /// <summary>Control page of the vCPU with this index.</summary>
    public static ulong Control(int index) => Area(index) + GuestProtocol.AreaControl;

    /// <summary>One of the vCPU's eight counters, which handler actions may add to.</summary>
    public static ulong Counter(int index, int counter)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(counter);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(counter, GuestProtocol.Counters);
        return Area(index) + GuestProtocol.ControlCounters + ((ulong)counter * 8);
    }

    /// <summary>Where the guest counts how often it took a vector (u32).</summary>
    public static ulong Taken(int index, byte vector) => Area(index) + GuestProtocol.ControlTaken + (vector * 4u);

    /// <summary>Where the guest counts its log records (u64).</summary>
    public static ulong Records(int index) => Area(index) + 0x10;

    /// <summary>
    /// Puts a vCPU at the entry of the image, with interrupts off. What the guest does not depend on (cr2, cr8, apic_base, pending
    /// interrupts) stays as KVM_GET_SREGS gave it.
    /// </summary>
    /// <param name="index">Chooses the vCPU area and is what the guest writes into its records.</param>
    public void Start(int index, ref kvm_sregs sregs, ref kvm_regs regs)
    {
        ulong area = Area(index);
        sregs.cs = Flat(SelKernelCode, SegmentCode);
        sregs.ds = sregs.es = sregs.ss = Flat(SelKernelData, SegmentData);
        sregs.fs = sregs.gs = Flat(0, SegmentData);
        sregs.tr = new kvm_segment { @base = area + AreaTss, limit = TssLimit, selector = SelTss, type = SegmentBusyTss, present = 1 };
        sregs.ldt = new kvm_segment { type = SegmentLdt, unusable = 1 };
        sregs.gdt = new kvm_dtable { @base = area + AreaGdt, limit = GdtLimit };
        sregs.idt = new kvm_dtable { @base = Idt, limit = (ushort)((GuestProtocol.Vectors * (LongMode ? 16 : 8)) - 1) };
        sregs.cr0 = ProtectedMode | (IsPaging ? Paging : 0);
        sregs.cr3 = PageTables;
        sregs.cr4 = LongMode ? PhysicalAddressExtension : PageSizeExtension;
        sregs.efer = LongMode ? LongModeActive : 0;
        regs = new kvm_regs { rip = Entry, rflags = 2, rsp = area + AreaStackEnd };
        if (LongMode)
        {
            regs.rdi = area;
            regs.rsi = (ulong)index;
        }
        else
        {
            regs.rbx = area;
            regs.rcx = (ulong)index;
        }
    }

    public override string ToString() => ImageName + (LongMode || !IsPaging ? "" : " (paging)");

    private kvm_segment Flat(ushort selector, byte type)
    {
        bool code64 = LongMode && type == SegmentCode;
        return new kvm_segment
        {
            limit = uint.MaxValue,
            selector = selector,
            type = type,
            present = 1,
            db = code64 ? (byte)0 : (byte)1,
            s = 1,
            l = code64 ? (byte)1 : (byte)0,
            g = 1,
        };
    }
}

// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>Offsets of the distributor's registers.</summary>
public static class Gicd
{
    public const uint Ctlr = 0x0000;
    public const uint Typer = 0x0004;
    public const uint Iidr = 0x0008;
    public const uint Typer2 = 0x000c;
    public const uint Statusr = 0x0010;
    public const uint Igroupr = 0x0080;
    public const uint Isenabler = 0x0100;
    public const uint Icenabler = 0x0180;
    public const uint Ispendr = 0x0200;
    public const uint Icpendr = 0x0280;
    public const uint Isactiver = 0x0300;
    public const uint Icactiver = 0x0380;
    public const uint Ipriorityr = 0x0400;
    public const uint Itargetsr = 0x0800;
    public const uint Icfgr = 0x0c00;
    public const uint Igrpmodr = 0x0d00;
    public const uint Irouter = 0x6000;
    public const uint Pidr2 = 0xffe8;

    /// <summary>GICD_CTLR.EnableGrp1A as a guest without security sees it, with affinity routing.</summary>
    public const uint CtlrEnableGroup1 = 2;
    public const uint CtlrAffinityRouting = 0x10;
    public const uint CtlrDisableSecurity = 0x40;

    /// <summary>The register with one bit per interrupt that holds this one.</summary>
    public static uint Bit(uint register, IntId intid) => register + (intid.Value / 32 * 4);

    public static uint Mask(IntId intid) => 1u << (int)(intid.Value % 32);
}

/// <summary>Offsets of a redistributor's registers: RD_base, and 64 KiB above it SGI_base.</summary>
public static class Gicr
{
    public const uint Ctlr = 0x0000;
    public const uint Iidr = 0x0004;
    public const uint Typer = 0x0008;
    public const uint Statusr = 0x0010;
    public const uint Waker = 0x0014;
    public const uint Propbaser = 0x0070;
    public const uint Pendbaser = 0x0078;
    public const uint Invlpir = 0x00a0;
    public const uint Invallr = 0x00b0;
    public const uint Syncr = 0x00c0;
    public const uint Pidr2 = 0xffe8;
    public const uint Sgi = 0x10000;
    public const uint Igroupr0 = Sgi + 0x0080;
    public const uint Isenabler0 = Sgi + 0x0100;
    public const uint Icenabler0 = Sgi + 0x0180;
    public const uint Ispendr0 = Sgi + 0x0200;
    public const uint Icpendr0 = Sgi + 0x0280;
    public const uint Isactiver0 = Sgi + 0x0300;
    public const uint Icactiver0 = Sgi + 0x0380;
    public const uint Ipriorityr0 = Sgi + 0x0400;
    public const uint Icfgr0 = Sgi + 0x0c00;
    public const uint Icfgr1 = Sgi + 0x0c04;
    public const uint Igrpmodr0 = Sgi + 0x0d00;
    public const uint Nsacr = Sgi + 0x0e00;

    public const uint CtlrEnableLpis = 1;

    /// <summary>GICR_CTLR.CES and .IR: LPIs may be disabled again, and GICR_INVLPIR and GICR_INVALLR are there.</summary>
    public const uint CtlrCesIr = 6;
    public const ulong PendbaserPtz = 1ul << 62;
}

/// <summary>Offsets of an ITS's registers.</summary>
public static class Gits
{
    public const uint Ctlr = 0x0000;
    public const uint Iidr = 0x0004;
    public const uint Typer = 0x0008;
    public const uint Cbaser = 0x0080;
    public const uint Cwriter = 0x0088;
    public const uint Creadr = 0x0090;
    public const uint Baser = 0x0100;
    public const uint BaserDevices = Baser;
    public const uint BaserCollections = Baser + 8;
    public const uint Pidr4 = 0xffd0;
    public const uint Pidr0 = 0xffe0;
    public const uint Pidr1 = 0xffe4;
    public const uint Pidr2 = 0xffe8;
    public const uint Cidr0 = 0xfff0;

    /// <summary>Where devices write, in the second page of 64 KiB.</summary>
    public const uint Translater = 0x10040;

    public const uint CtlrEnable = 1;
    public const uint CtlrQuiescent = 0x8000_0000;
    public const ulong Valid = 1ul << 63;
    public const ulong BaserIndirect = 1ul << 62;
}

/// <summary>System registers of the CPU interface by their encoding (op0, op1, CRn, CRm, op2), as KVM's attributes and the guest name them.</summary>
public enum IccRegister : uint
{
    Pmr = 0xc230,
    Iar0 = 0xc640,
    Eoir0 = 0xc641,
    Hppir0 = 0xc642,
    Bpr0 = 0xc643,
    Ap0r0 = 0xc644,
    Ap0r1 = 0xc645,
    Ap1r0 = 0xc648,
    Ap1r1 = 0xc649,
    Dir = 0xc659,
    Rpr = 0xc65b,
    Sgi1r = 0xc65d,
    Asgi1r = 0xc65e,
    Sgi0r = 0xc65f,
    Iar1 = 0xc660,
    Eoir1 = 0xc661,
    Hppir1 = 0xc662,
    Bpr1 = 0xc663,
    Ctlr = 0xc664,
    Sre = 0xc665,
    Igrpen0 = 0xc666,
    Igrpen1 = 0xc667,
    Mpidr = 0xc005,

    // Of the virtual timer, whose interrupt is a PPI.
    CntvTval = 0xdf18,
    CntvCtl = 0xdf19,
    CntvCval = 0xdf1a,
}

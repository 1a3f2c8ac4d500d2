// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>Numbers of Xen's hypercalls and of their operations (xen/interface/*.h), as far as KVM or this suite knows them.</summary>
public static class XenHypercall
{
    public const ulong SetTimerOp = 15;
    public const ulong XenVersion = 17;
    public const ulong VcpuOp = 24;
    public const ulong SchedOp = 29;
    public const ulong EventChannelOp = 32;

    /// <summary>XENVER_version.</summary>
    public const ulong VersionVersion = 0;

    /// <summary>XENVER_extraversion.</summary>
    public const ulong VersionExtra = 1;

    /// <summary>EVTCHNOP_close.</summary>
    public const ulong EventChannelClose = 3;

    /// <summary>EVTCHNOP_send.</summary>
    public const ulong EventChannelSend = 4;

    /// <summary>SCHEDOP_yield.</summary>
    public const ulong SchedYield = 0;

    /// <summary>SCHEDOP_block.</summary>
    public const ulong SchedBlock = 1;

    /// <summary>SCHEDOP_shutdown.</summary>
    public const ulong SchedShutdown = 2;

    /// <summary>SCHEDOP_poll.</summary>
    public const ulong SchedPoll = 3;

    /// <summary>VCPUOP_is_up.</summary>
    public const ulong VcpuIsUp = 3;

    /// <summary>VCPUOP_stop_periodic_timer.</summary>
    public const ulong VcpuStopPeriodicTimer = 7;

    /// <summary>VCPUOP_set_singleshot_timer.</summary>
    public const ulong VcpuSetSingleshotTimer = 8;

    /// <summary>VCPUOP_stop_singleshot_timer.</summary>
    public const ulong VcpuStopSingleshotTimer = 9;
}

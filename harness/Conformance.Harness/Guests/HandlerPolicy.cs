// SPDX-License-Identifier: MIT
namespace Conformance.Guests;

/// <summary>When a handler acknowledges its interrupt (EOI).</summary>
public enum Acknowledgement
{
    AfterActions,
    BeforeActions,

    /// <summary>Left to a later <see cref="GuestCommand.Eoi"/>, or not needed: an interrupt that no APIC has in service.</summary>
    Never,
}

/// <summary>What a guest does when it takes a vector. By default it logs and acknowledges.</summary>
public sealed record HandlerPolicy
{
    public static HandlerPolicy Default { get; } = new();

    /// <summary>Counted and acknowledged, not logged.</summary>
    public static HandlerPolicy CountOnly { get; } = new() { Log = false };

    public bool Log { get; init; } = true;
    public Acknowledgement Acknowledge { get; init; }

    /// <summary>Tells the harness when all else is done (<see cref="CallOut.Notify"/>).</summary>
    public bool Notify { get; init; }

    /// <summary>Interrupts are enabled while the actions run.</summary>
    public bool Nest { get; init; }

    /// <summary>The interrupted code goes on with interrupts disabled: one interrupt of a storm is taken, no more.</summary>
    public bool ReturnMasked { get; init; }

    /// <summary>Vectors 16 to 31 are taken as interrupts, not as exceptions.</summary>
    public bool BelowThirtyTwo { get; init; }

    /// <summary>
    /// x86: a handler that does not acknowledge, or nests before it does, executes one cpuid, so that an interrupt which QEMU's SVM delivers
    /// twice over is known as such (<see cref="GuestControl.Repeated"/>). Off where an exit more would be seen.
    /// </summary>
    public bool Settle { get; init; } = true;

    /// <summary>In order, after logging.</summary>
    public IReadOnlyList<HandlerAction> Actions { get; init; } = [];

    public override string ToString()
    {
        var words = new List<string> { Log ? "log" : "count" };
        string eoi = Acknowledge == Acknowledgement.Never ? "no eoi" : "eoi";
        if (Acknowledge == Acknowledgement.BeforeActions)
        {
            words.Add(eoi);
        }

        if (Nest)
        {
            words.Add("nest");
        }

        words.AddRange(Actions.Select(a => a.ToString()));
        if (Acknowledge != Acknowledgement.BeforeActions)
        {
            words.Add(eoi);
        }

        if (Notify)
        {
            words.Add("notify");
        }

        if (ReturnMasked)
        {
            words.Add("return masked");
        }

        return string.Join(", ", words);
    }

    internal ulong Encode(int firstAction)
    {
        uint policy = (Log ? 0 : PolicyBit.PolicyNoLog)
            | Acknowledge switch
            {
                Acknowledgement.Never => PolicyBit.PolicyNoEoi,
                Acknowledgement.BeforeActions => PolicyBit.PolicyEoiFirst,
                _ => 0u,
            }
            | (Notify ? PolicyBit.PolicyNotify : 0)
            | (Nest ? PolicyBit.PolicyNest : 0)
            | (ReturnMasked ? PolicyBit.PolicyReturnMasked : 0)
            | (BelowThirtyTwo ? PolicyBit.PolicyInterrupt : 0)
            | (Settle ? 0 : PolicyBit.PolicyNoSettle);
        return Actions.Count == 0 ? policy : policy | ((uint)firstAction << PolicyBit.PolicyFirstAction) | ((uint)Actions.Count << PolicyBit.PolicyActionCount);
    }
}

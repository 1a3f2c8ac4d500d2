// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Kvm;

namespace Conformance.Guests;

/// <summary>The handler policies of one vCPU, written by the harness before the vCPU runs (or while it is stopped).</summary>
public sealed class HandlerTable
{
    private readonly byte[] _policies = new byte[GuestProtocol.Vectors * 8];
    private readonly byte[] _actions = new byte[GuestProtocol.Actions * GuestProtocol.ActionSize];

    /// <summary>Action slots in use; a script that installs handlers too starts after them (<see cref="GuestScript.FirstActionSlot"/>).</summary>
    public int ActionSlots { get; private set; }

    /// <exception cref="InvalidOperationException">All handlers together have more than 24 actions.</exception>
    public HandlerTable Set(ApicVector vector, HandlerPolicy policy)
    {
        if (ActionSlots + policy.Actions.Count > GuestProtocol.Actions)
        {
            throw new InvalidOperationException($"a vCPU's handlers have at most {GuestProtocol.Actions} actions together");
        }

        BinaryPrimitives.WriteUInt64LittleEndian(_policies.AsSpan(vector.Value * 8), policy.Encode(ActionSlots));
        foreach (HandlerAction action in policy.Actions)
        {
            action.Encode(_actions.AsSpan(ActionSlots++ * GuestProtocol.ActionSize, GuestProtocol.ActionSize));
        }

        return this;
    }

    /// <param name="area">The vCPU's area (<see cref="GuestLayout.Area"/>).</param>
    public IReadOnlyList<GuestWrite> Encode(ulong area) =>
    [
        new(area + GuestProtocol.ControlPolicies, _policies.ToArray()),
        new(area + GuestProtocol.ControlActions, _actions.ToArray()),
    ];
}

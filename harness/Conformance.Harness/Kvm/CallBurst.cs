// SPDX-License-Identifier: MIT
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;

namespace Conformance.Kvm;

/// <summary>A descriptor that a call is made on: one that is there, or the result of a call that was asked for before.</summary>
/// <param name="Name">As the journal prints it.</param>
internal readonly record struct FdArgument(string Name, int Number, KeptResult? Kept)
{
    public static implicit operator FdArgument(KernelFd fd) => new(fd.Name, fd.Number, null);

    public SystemCall AddTo(SystemCall call) => Kept is null ? call.Arg(Number) : call.Arg(Kept);
}

/// <summary>
/// System calls that are asked for at once and made in that order, each with the results of earlier ones where it needs them: one way to the
/// kernel under test and back for all of them.
/// </summary>
internal sealed class CallBurst(KernelSession session)
{
    private readonly List<(string Call, Task<CallResult> Answer, bool OnlyZero)> _asked = [];

    /// <summary>Asks for a call.</summary>
    /// <param name="what">What its failure calls it.</param>
    /// <param name="onlyZero">It has no other success than 0.</param>
    public Task<CallResult> Ask(string what, SystemCall call, bool onlyZero = false)
    {
        Task<CallResult> answer = session.Agent.CallAsync(call);
        _asked.Add((what, answer, onlyZero));
        return answer;
    }

    /// <summary>Asks for a call that makes a descriptor.</summary>
    public (FdArgument Fd, Task<CallResult> Answer) AskForFd(string what, string name, SystemCall call)
    {
        KeptResult kept = session.Agent.Keep();
        return (new FdArgument(name, -1, kept), Ask(what, call.KeepAs(kept)));
    }

    /// <summary>Asks for an ioctl whose argument is a value.</summary>
    public Task<CallResult> Ioctl(string what, FdArgument fd, Ioctl request, ulong argument = 0) => Ask(what, Call(fd, request, $"{argument}").Arg(argument), onlyZero: true);

    /// <summary>Asks for an ioctl whose argument is a structure, which is read back.</summary>
    /// <param name="described">The arguments in words, for the journal.</param>
    public Task<CallResult> Ioctl(string what, FdArgument fd, Ioctl request, byte[] argument, string described) =>
        Ask(what, Call(fd, request, described).InOut(argument, argument.Length), onlyZero: true);

    /// <summary>The beginning of an ioctl on a descriptor.</summary>
    public SystemCall Call(FdArgument fd, Ioctl request, string described) =>
        fd.AddTo(new SystemCall(session.Numbers.Ioctl, $"ioctl({fd.Name}, {request.Name}, {described})")).Arg(request.Number);

    /// <summary>Returns when all have been answered.</summary>
    /// <exception cref="KvmException">The kernel refused one: the first that it refused.</exception>
    public async Task FinishAsync()
    {
        foreach ((string what, Task<CallResult> asked, bool onlyZero) in _asked)
        {
            CallResult answer = await asked;
            if (answer.Errno != 0)
            {
                // What was asked for behind it is of no use, whether it was made or refused.
                throw new KvmException(what, (Errno)answer.Errno);
            }

            if (onlyZero)
            {
                answer.Result.Should().Be(0, "the call has no other success");
            }
        }

        _asked.Clear();
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using Conformance.Kvm;
using Conformance.Results;
using Conformance.Targets;
using Conformance.Wire;

namespace Conformance.Fixtures;

/// <summary>One test's processes in the kernel under test, and what is known of them when it is over.</summary>
internal sealed class TestSessions(KernelHost host, TestEvidence evidence)
{
    private readonly CancellationTokenSource _deadline = new();
    private readonly SemaphoreSlim _lock = new(1);
    private readonly List<KernelSession> _sessions = [];
    private LogMark _began = KernelLog.Start;
    private KvmSystem? _kvm;
    private Target? _target;

    /// <summary>Opens a further session.</summary>
    public async Task<KernelSession> OpenAsync()
    {
        await _lock.WaitAsync();
        try
        {
            return await OpenLockedAsync();
        }
        finally
        {
            _lock.Release();
        }
    }

    public async Task<KernelSession> FirstAsync()
    {
        await _lock.WaitAsync();
        try
        {
            return _sessions.Count > 0 ? _sessions[0] : await OpenLockedAsync();
        }
        finally
        {
            _lock.Release();
        }
    }

    public async Task<KvmSystem> KvmAsync() => _kvm ??= await KvmSystem.OpenAsync(await FirstAsync());

    /// <summary>Ends every session, so that the kernel releases all of it, and takes what the kernel printed meanwhile.</summary>
    public async Task EndAsync()
    {
        if (_target is not Target target)
        {
            return;
        }

        bool lost = false;
        try
        {
            foreach (KernelSession session in _sessions)
            {
                await EndAsync(session);
            }

            await MarkEndAsync(target);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException)
        {
            lost = true;
            await host.GiveUpAsync(target, evidence, e);
        }

        foreach (KernelReport report in target.Log.ReportsSince(_began))
        {
            evidence.AddKernelReport(report.Title, report.Text);
        }

        _deadline.Dispose();
        if (!lost && target.Log.Death.IsCompleted)
        {
            await host.ReplaceAsync();
        }
    }

    private async Task MarkEndAsync(Target target)
    {
        using var patience = new CancellationTokenSource(KernelHost.AnswerPatience);
        try
        {
            await target.Log.MarkAsync($"end {evidence.TestId}", patience.Token);
        }
        catch (OperationCanceledException)
        {
            throw new IOException($"the line that marks a test's end did not come back in the kernel's log within {KernelHost.AnswerPatience.TotalSeconds} s");
        }
    }

    private async Task EndAsync(KernelSession session)
    {
        if (session.HasEnded && (await session.Agent.Ended) is { Crashed: true } end)
        {
            evidence.Decide(Verdict.Broken, $"session {session.Agent.Id} ended by itself: {end}");
        }

        // The test's own deadline may have passed; ending is not the test's business any more.
        using var patience = new CancellationTokenSource(KernelHost.AnswerPatience);
        session.Agent.Deadline = patience.Token;
        try
        {
            await session.DisposeAsync();
        }
        catch (SessionDeadlineException) when (_target is Target target)
        {
            if (await StuckThread.FindAsync(target, host.Kernel.Architecture, session.Agent.Pid) is { } stuck)
            {
                evidence.AddConsole(stuck.Text);
                evidence.Decide(Verdict.Hang, stuck.Reason);
            }

            throw;
        }
    }

    private async Task<KernelSession> OpenLockedAsync()
    {
        Target target = await host.TargetAsync();
        if (_sessions.Count == 0)
        {
            _target = target;
            _began = target.Log.Here;
            _deadline.CancelAfter(host.TestDeadline);
        }

        AgentSession agent = await target.Agent.OpenSessionAsync(_deadline.Token);
        agent.Deadline = _deadline.Token;
        evidence.AddJournal(agent.Journal.ToText);
        var session = new KernelSession(agent, host.Kernel.Architecture, target.GuestImagePath)
        {
            NamedDevices = host.NamedDevices,
            RepeatsVectoringErrors = target.Accelerator == "tcg" && host.Kernel.Architecture == KernelArchitecture.X86_64,
        };
        _sessions.Add(session);
        return session;
    }
}

// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using Conformance.Guests;
using Conformance.Uapi;
using Conformance.Wire;

namespace Conformance.Kvm;

/// <summary>
/// A vCPU and the guest on it. Its thread runs in the kernel under test; here a script is handed to the guest, exits are answered and the
/// log is read.
/// </summary>
public sealed partial class Vcpu : IAsyncDisposable
{
    private const uint NotifyMark = 1;
    private const uint HaltingMark = 2;
    private const uint InternalErrorDeliveryEvent = 3;
    private const int RecordsReadAhead = 32;

    // kvm_run: exit_reason at 8, internal.suberror at 32.
    private static readonly VcpuMark s_vectoringError = new(
        3,
        VcpuMarkAction.None,
        [new(8, 4, uint.MaxValue, (uint)KvmExit.KVM_EXIT_INTERNAL_ERROR), new(32, 4, uint.MaxValue, InternalErrorDeliveryEvent)]);


    private readonly Channel<GuestExit> _exits = Channel.CreateUnbounded<GuestExit>(new UnboundedChannelOptions { SingleWriter = true });
    private readonly SemaphoreSlim _notified = new(0);
    private readonly SemaphoreSlim _halting = new(0);
    private Mapping? _run;
    private AgentVcpu? _thread;
    private Task? _pump;
    private GuestScript? _script;

    private Vcpu(Vm vm, int index, uint id, KernelFd fd)
    {
        Vm = vm;
        Index = index;
        Id = id;
        Fd = fd;
    }

    public Vm Vm { get; }

    /// <summary>Position among the VM's vCPUs, which is also its guest area's.</summary>
    public int Index { get; }

    /// <summary>KVM_CREATE_VCPU's argument; on x86 the APIC id.</summary>
    public uint Id { get; }

    public KernelFd Fd { get; }

    public string Name => $"vCPU {Id}";

    /// <summary>The vCPU's thread in the kernel under test; null before it first ran.</summary>
    public int? ThreadId => _thread?.ThreadId;

    /// <summary>Guest-physical address of this vCPU's area (guests/protocol.md).</summary>
    public ulong Area => Vm.Machine.Area(Index);

    private KernelSession Session => Vm.Session;

    /// <summary>Asks for a vCPU.</summary>
    /// <returns>Asks for the rest of it once the burst is over.</returns>
    internal static Func<Vm, CallBurst, Vcpu> AskFor(CallBurst burst, GuestMachine machine, FdArgument vm, VmOptions options, int index, uint id)
    {
        string name = $"{options.Name} vCPU {id}";
        (FdArgument fd, Task<CallResult> created) = burst.AskForFd($"KVM_CREATE_VCPU({id})", name, burst.Call(vm, KvmIoctl.KVM_CREATE_VCPU, $"{id}").Arg(id));
        Action<CallBurst>? start = options.Bare ? null : machine.AskForStart(burst, vm, fd, options, index, id);
        return (made, next) =>
        {
            start?.Invoke(next);
            return new Vcpu(made, index, id, new KernelFd(made.Session, (int)created.Result.Result, name));
        };
    }

    /// <summary>Hands the guest a script and lets it run; the first call starts the vCPU's thread.</summary>
    public async Task StartAsync(GuestScript script)
    {
        _script = script;
        Task written = WriteAsync(script.Writes(Area));
        if (_thread is null)
        {
            await StartThreadAsync();
            // The boot call-out asks for the first script.
            GuestExit booted = await NextExitAsync();
            await ExpectReadyAsync(booted, "booting");
        }

        await Task.WhenAll(written, ResumeAsync());
    }

    /// <summary>Runs a script to its end.</summary>
    /// <returns>What each command recorded.</returns>
    /// <exception cref="MissingEventException">The guest did not come back, or came back for another reason.</exception>
    public async Task<ScriptResults> ExecuteAsync(GuestScript script)
    {
        await StartAsync(script);
        return await FinishAsync();
    }

    /// <summary>Waits for the script to end.</summary>
    public async Task<ScriptResults> FinishAsync()
    {
        await ExpectReadyAsync(await NextExitAsync(), "running its script");
        return await ReadResultsAsync();
    }

    /// <summary>What the commands of the script have recorded so far.</summary>
    public async Task<ScriptResults> ReadResultsAsync()
    {
        GuestScript script = _script ?? throw new InvalidOperationException($"{Name} was given no script.");
        return script.Decode(await Vm.ReadMemoryAsync(Area + GuestProtocol.AreaScript, script.Count * GuestProtocol.CommandSize));
    }

    /// <summary>The next time the vCPU stops, whatever for. It stays stopped until resumed.</summary>
    public async Task<GuestExit> NextExitAsync()
    {
        using CancellationTokenSource patience = Session.EventDeadline();
        try
        {
            return await _exits.Reader.ReadAsync(patience.Token);
        }
        catch (OperationCanceledException)
        {
            throw await MissingAsync("did not come back to user space");
        }
        catch (ChannelClosedException closed)
        {
            throw closed.InnerException ?? closed;
        }
    }

    /// <summary>Lets a stopped vCPU go on, after writing what it waits for.</summary>
    public Task ResumeAsync(params VcpuWrite[] writes) => Thread.ResumeAsync(writes);

    /// <summary>Answers an IN or an MMIO read, or sets a hypercall's result, and goes on.</summary>
    public Task ResumeWithAsync(GuestExit exit, ulong value)
    {
        byte[] data = BitConverter.GetBytes(value);
        return exit.Reason switch
        {
            KvmExit.KVM_EXIT_IO => ResumeAsync(VcpuWrite.Run(exit.Run.io_data_offset, data.AsMemory(0, exit.Run.io_size))),
            KvmExit.KVM_EXIT_MMIO => ResumeAsync(VcpuWrite.Run(40, data)),
            KvmExit.KVM_EXIT_XEN => ResumeAsync(VcpuWrite.Run(56, data)),
            _ => throw new InvalidOperationException($"{exit} takes no answer."),
        };
    }

    /// <summary>Takes KVM_RUN out of the kernel: the next exit is a kick.</summary>
    public Task KickAsync() => Thread.KickAsync();

    /// <summary>Waits for the guest to say that it is about to halt.</summary>
    public Task WaitUntilHaltingAsync() => WaitAsync(_halting, "did not halt");

    /// <summary>Waits for the next notification of a handler or NOTIFY command.</summary>
    public Task WaitForNotifyAsync() => WaitAsync(_notified, "sent no notification");

    /// <summary>Waits until the vCPU's thread sleeps in KVM_RUN: the halted guest is blocked in the kernel, not merely about to.</summary>
    public async Task WaitUntilBlockedAsync()
    {
        if (await Session.WaitForThreadAsync(Thread.ThreadId, state => state == 'S') is null)
        {
            throw await MissingAsync("did not block in the kernel");
        }
    }

    /// <summary>What the guest is doing and has counted.</summary>
    public async Task<GuestControl> ReadControlAsync() => GuestControl.Parse(await Vm.ReadMemoryAsync(Area, GuestControl.Length));

    /// <summary>Everything in the interrupt log, oldest first.</summary>
    public async Task<InterruptLog> ReadLogAsync()
    {
        // Read behind the count, so that what the count speaks of is there; most logs are short and come with it.
        Task<GuestControl> control = ReadControlAsync();
        Task<byte[]> first = Vm.ReadMemoryAsync(Area + GuestProtocol.AreaLog, RecordsReadAhead * GuestProtocol.RecordSize);
        await Task.WhenAll(control, first);
        ulong written = control.Result.Records;
        if (written <= RecordsReadAhead)
        {
            return InterruptLog.Parse(first.Result.AsSpan(0, (int)written * GuestProtocol.RecordSize), written);
        }

        var bytes = new List<byte>();
        foreach ((ulong address, int length) in InterruptLog.Pieces(Area, written))
        {
            bytes.AddRange(await Vm.ReadMemoryAsync(address, length));
        }

        return InterruptLog.Parse(CollectionsMarshal.AsSpan(bytes), written);
    }

    /// <summary>The log once it holds <paramref name="until"/>; the guest's handler must notify.</summary>
    public async Task<InterruptLog> ReadLogAsync(Func<InterruptLog, bool> until, string waitingFor)
    {
        while (true)
        {
            InterruptLog log = await ReadLogAsync();
            if (until(log))
            {
                return log;
            }

            await WaitAsync(_notified, $"did not log {waitingFor}; it logged {log}");
        }
    }

    /// <summary>Sets what the guest does on each vector; before it runs, or while it is stopped.</summary>
    public Task SetHandlersAsync(HandlerTable handlers) => WriteAsync(handlers.Encode(Area));

    public async Task<Errno> TrySetMpStateAsync(uint state) =>
        (await Session.IoctlAsync(Fd, KvmIoctl.KVM_SET_MP_STATE, new kvm_mp_state { mp_state = state }, $"{state}")).Outcome;

    public async Task<uint> GetMpStateAsync()
    {
        (Errno error, kvm_mp_state value) = await Session.TryGetAsync(Fd, KvmIoctl.KVM_GET_MP_STATE, default(kvm_mp_state), "");
        Vm.Expect(error, "KVM_GET_MP_STATE");
        return value.mp_state;
    }

    /// <summary>Stops the thread; the vCPU itself stays.</summary>
    public async Task StopAsync()
    {
        if (_thread is AgentVcpu thread)
        {
            _thread = null;
            await thread.StopAsync();
            await _pump!;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!Session.HasEnded)
        {
            await StopAsync();
            await Task.WhenAll(AskForRelease());
        }
    }

    /// <summary>Asks for the release of what a vCPU whose thread has been stopped still has.</summary>
    internal IEnumerable<Task> AskForRelease() => [_run?.UnmapAsync() ?? Task.CompletedTask, Fd.DisposeAsync().AsTask()];

    public override string ToString() => Name;

    private Task WriteAsync(IEnumerable<GuestWrite> writes) => Task.WhenAll(writes.Select(w => Vm.WriteMemoryAsync(w.Address, w.Bytes)));

    private AgentVcpu Thread => _thread ?? throw new InvalidOperationException($"{Name} has not been started.");

    private async Task WaitAsync(SemaphoreSlim signal, string what)
    {
        using CancellationTokenSource patience = Session.EventDeadline();
        try
        {
            await signal.WaitAsync(patience.Token);
        }
        catch (OperationCanceledException)
        {
            throw await MissingAsync(what);
        }
    }

    /// <summary>The run structure shared with the kernel.</summary>
    public async Task<Mapping> RunAsync() => _run ??= await Session.MapAsync(Fd, await Vm.System.VcpuMmapSizeAsync(), 0, $"{Name} run");

    private async Task StartThreadAsync()
    {
        Mapping run = await RunAsync();
        _thread = await Session.Agent.StartVcpuAsync(new VcpuStart
        {
            Fd = Fd.Number,
            Request = KvmIoctl.KVM_RUN.Number,
            Run = run.Address,
            KickOffset = 1,
            Ranges = Vm.Machine.Ranges,
            Marks =
            [
                new VcpuMark(NotifyMark, VcpuMarkAction.Notify, Vm.Machine.CallOutConditions((uint)CallOut.Notify)),
                new VcpuMark(HaltingMark, VcpuMarkAction.Notify, Vm.Machine.CallOutConditions((uint)CallOut.Halting)),
                .. Session.RepeatsVectoringErrors ? [s_vectoringError] : Array.Empty<VcpuMark>(),
            ],
        });
        _pump = PumpAsync(_thread);
    }

    private async Task PumpAsync(AgentVcpu thread)
    {
        try
        {
            await foreach (VcpuExit exit in thread.Exits.ReadAllAsync())
            {
                if (exit.Cause == VcpuCause.Marked)
                {
                    (exit.Mark == HaltingMark ? _halting : _notified).Release();
                    continue;
                }

                var reason = (KvmExit)BinaryPrimitives.ReadUInt32LittleEndian(exit.Data.Span[8..]);
                _exits.Writer.TryWrite(new GuestExit(this, reason, (Errno)exit.Errno, exit.Cause == VcpuCause.Kicked, exit.Data.ToArray()));
            }
        }
        catch (Exception e) when (e is AgentLostException or SessionEndedException)
        {
            _exits.Writer.TryComplete(e);
        }
    }

    private async Task ExpectReadyAsync(GuestExit exit, string doing)
    {
        if (Vm.Machine.CallOutOf(exit) != (uint)CallOut.Ready)
        {
            throw new UnexpectedExitException($"{exit} while {doing}; {await ReadControlAsync()}");
        }
    }

    // A kernel that still answers has lost an event: a broken claim. One that does not runs into the session's own deadline here.
    private async Task<Exception> MissingAsync(string what)
    {
        string stopped = _exits.Reader.TryPeek(out GuestExit? exit) ? $"; nobody answered its exit {exit}" : "";
        return new MissingEventException($"{Name} {what}{stopped}; {await ReadControlAsync()}");
    }
}

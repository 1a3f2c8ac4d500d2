// SPDX-License-Identifier: MIT
using System.Buffers.Binary;
using Conformance.Kvm;
using Conformance.Wire;

namespace Conformance.Vfio;

/// <summary>
/// An NVMe controller (NVM Express Base Specification 1.4): an MSI-X entry for each completion queue, and commands that write into memory. Entry
/// 0 is the admin queue's; a command of queue n, whatever comes of it, interrupts on entry n. It needs no namespace.
/// </summary>
/// <remarks>Attach the eventfds before <see cref="PrepareAsync"/>: the controller ties its queues to entries when it makes them.</remarks>
public sealed class NvmeDevice(VfioDevice vfio, uint queues = 0) : InterruptingDevice(vfio)
{
    // QEMU's.
    public const ushort Vendor = 0x1b36;
    public const ushort Device = 0x0010;

    /// <summary>Entries of a queue; one fewer commands fit.</summary>
    public const int Depth = 64;

    private const ulong Page = 4096;
    private const ulong Iova = 0x10000000;
    private const ulong AdminSubmission = 0;
    private const ulong AdminCompletion = Page;
    private const ulong Data = 2 * Page;
    // The commands of every queue are the same: they share one page.
    private const ulong Submission = 3 * Page;
    private const ulong Configuration = 0x14;
    private const ulong Status = 0x1c;
    private const ulong AdminSizes = 0x24;
    private const ulong AdminSubmissionBase = 0x28;
    private const ulong AdminCompletionBase = 0x30;
    private const uint Enable = 0x460001;
    private const byte Read = 2, CreateSubmission = 1, CreateCompletion = 5, Identify = 6;

    private readonly byte[] _admin = new byte[Page];
    private readonly uint[] _submitted = new uint[queues + 1];
    private Mapping? _memory;

    public override uint Raisable(IrqIndex index) => index == IrqIndex.Msix ? queues + 1 : 0;

    /// <summary>Resets and enables the controller, and makes its queues.</summary>
    public override async Task PrepareAsync(IrqIndex index)
    {
        await base.PrepareAsync(index);
        await WriteRegisterAsync(Configuration, 0);
        await UntilReadyAsync(false);
        ulong length = Submission + ((queues + 1) * Page);
        if (_memory is null)
        {
            _memory = await Session.MapAnonymousAsync(length, "queues");
            await Vfio.Container.MapAsync(Iova, _memory.Address, length);
        }

        Array.Clear(_submitted);
        await _memory.FillAsync(0, (int)length, 0);
        await _memory.WriteAsync(Submission, Enumerable.Repeat(Command(Read, nsid: 1), Depth).SelectMany(c => c).ToArray());
        await WriteRegisterAsync(AdminSizes, ((Depth - 1) << 16) | (Depth - 1));
        await WriteRegisterAsync(AdminSubmissionBase, (uint)(Iova + AdminSubmission));
        await WriteRegisterAsync(AdminSubmissionBase + 4, 0);
        await WriteRegisterAsync(AdminCompletionBase, (uint)(Iova + AdminCompletion));
        await WriteRegisterAsync(AdminCompletionBase + 4, 0);
        await WriteRegisterAsync(Configuration, Enable);
        await UntilReadyAsync(true);
        uint[] all = [.. Enumerable.Range(1, (int)queues).Select(q => (uint)q)];
        await CompleteAsync([.. all.Select(q => Command(CreateCompletion, prp: CompletionOf(q), dw10: Size(q), dw11: (q << 16) | 3))]);
        await CompleteAsync([.. all.Select(q => Command(CreateSubmission, prp: Submission, dw10: Size(q), dw11: (q << 16) | 1))]);
    }

    /// <summary>The page that <see cref="StartIdentifyAsync"/> fills.</summary>
    public Task<byte[]> ReadDataAsync() => _memory!.ReadAsync(Data, (int)Page);

    public Task FillDataAsync(byte value) => _memory!.FillAsync(Data, (int)Page, value);

    /// <summary>Has the controller write what it is into memory and interrupt on entry 0.</summary>
    public Task StartIdentifyAsync() => SubmitAsync([Command(Identify, prp: Data, dw10: 1)]);

    public override IReadOnlyList<(ulong Offset, uint Value)> RaisingWrites(IrqIndex index, uint entry = 0)
    {
        if (index != IrqIndex.Msix || entry == 0 || entry > queues)
        {
            throw new ArgumentOutOfRangeException(nameof(entry));
        }

        uint before = _submitted[entry]++;
        // What was completed before is taken, so that there is room.
        return [(CompletionDoorbell(entry), before % Depth), (SubmissionDoorbell(entry), (before + 1) % Depth)];
    }

    public override async Task RaiseAsync(IrqIndex index, uint entry = 0)
    {
        if (entry == 0)
        {
            await StartIdentifyAsync();
            return;
        }

        foreach ((ulong offset, uint value) in RaisingWrites(index, entry))
        {
            await WriteRegisterAsync(offset, value);
        }
    }

    // Interrupts are messages: there is nothing to take back.
    public override Task AcknowledgeAsync(IrqIndex index, uint entry = 0) => Task.CompletedTask;

    private static ulong SubmissionDoorbell(uint queue) => 0x1000 + (queue * 8);

    private static ulong CompletionDoorbell(uint queue) => 0x1004 + (queue * 8);

    private static ulong CompletionOf(uint queue) => queue == 0 ? AdminCompletion : Submission + (queue * Page);

    private static uint Size(uint queue) => ((Depth - 1) << 16) | queue;

    private static byte[] Command(byte opcode, uint nsid = 0, ulong prp = 0, uint dw10 = 0, uint dw11 = 0)
    {
        byte[] command = new byte[64];
        command[0] = opcode;
        BinaryPrimitives.WriteUInt32LittleEndian(command.AsSpan(4), nsid);
        BinaryPrimitives.WriteUInt64LittleEndian(command.AsSpan(24), Iova + prp);
        BinaryPrimitives.WriteUInt32LittleEndian(command.AsSpan(40), dw10);
        BinaryPrimitives.WriteUInt32LittleEndian(command.AsSpan(44), dw11);
        return command;
    }

    private async Task SubmitAsync(IReadOnlyList<byte[]> commands)
    {
        foreach (byte[] command in commands)
        {
            command.CopyTo(_admin, _submitted[0]++ % Depth * 64);
        }

        await _memory!.WriteAsync(AdminSubmission, _admin);
        await WriteRegisterAsync(SubmissionDoorbell(0), _submitted[0] % Depth);
    }

    // No more than a queue holds.
    private async Task CompleteAsync(IReadOnlyList<byte[]> commands)
    {
        if (commands.Count == 0)
        {
            return;
        }

        uint first = _submitted[0];
        await SubmitAsync(commands);
        uint last = _submitted[0] - 1;
        // The phase bit turns with every lap.
        ulong phase = last / Depth % 2 == 0 ? 0x10000ul : 0;
        (bool met, _) = await Session.Agent.AwaitAsync(
            _memory!.Address + AdminCompletion + (last % Depth * 16) + 12, 4, MemoryCondition.Equal, phase, Session.EventPatience, 0x10000);
        byte[] completions = await _memory.ReadAsync(AdminCompletion, Depth * 16);
        for (uint i = first; i <= last; i++)
        {
            int status = BinaryPrimitives.ReadUInt16LittleEndian(completions.AsSpan((int)(i % Depth * 16) + 14)) >> 1;
            if (!met || status != 0)
            {
                throw new InvalidOperationException($"NVMe command 0x{commands[(int)(i - first)][0]:x2} {(met ? $"ended with status 0x{status:x}" : "did not end")}.");
            }
        }

        await WriteRegisterAsync(CompletionDoorbell(0), _submitted[0] % Depth);
    }

    private async Task UntilReadyAsync(bool ready)
    {
        using var patience = new CancellationTokenSource(Session.EventPatience);
        while ((await ReadRegisterAsync(Status) & 1) != (ready ? 1u : 0))
        {
            if (patience.IsCancellationRequested)
            {
                throw new InvalidOperationException($"The NVMe controller did not become {(ready ? "ready" : "idle")}.");
            }
        }
    }
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.ArmRouting;

public sealed class CommandQueueTests(KernelUnderTest kernel)
{
    private const uint SmallQueue = 4096;
    private static readonly DeviceId s_device = new(0x12);
    private static readonly EventId s_event = new(5);
    private static readonly Lpi s_lpi = new(8200);

    [Fact]
    [Clause("arm-its/queue/wraps")]
    public async Task QueueWrapsAtItsEnd()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await UseSmallQueueAsync(vm.Its);
        // Everything but the last place, then one command in it and one in the first.
        await vm.Its.IssueAsync(Enumerable.Repeat(ItsCommand.Synchronise(), 127).ToArray());
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(127 * 32);
        await vm.Its.EnqueueAsync(ItsCommand.Raise(s_device, s_event));
        await vm.WriteMemoryAsync(vm.Its.Queue, ItsCommand.ClearEvent(s_device, s_event).Encode());
        await vm.Its.WriteAsync(Gits.Cwriter, 0);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(0);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "the command in the last place ran");

        await vm.WriteMemoryAsync(vm.Its.Queue, ItsCommand.Raise(s_device, s_event).Encode());
        await vm.Its.WriteAsync(Gits.Cwriter, 32);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(32);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal([s_lpi], "the command in the first place ran");
    }

    [Theory]
    [InlineData(0xfe0ul, 0xfe0ul)]
    [InlineData(0x1000ul, 0ul)]
    [InlineData(0x8000ul, 0ul)]
    [InlineData(0xf_ffe0ul, 0ul)]
    [Clause("arm-its/queue/cwriter-bound")]
    public async Task WritePointerBeyondTheQueueIsIgnored(ulong written, ulong expected)
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await UseSmallQueueAsync(vm.Its);
        (await vm.Its.TryWriteAsync(Gits.Cwriter, written)).Should().Be(Errno.None);
        (await vm.Its.ReadAsync(Gits.Cwriter)).Should().Be(expected);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(expected);
    }

    [Fact]
    [Clause("arm-its/queue/offset-bits")]
    public async Task OffsetsHaveOnlyTheirBits()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Cwriter, 0xffff_ffff_fff0_003f);
        (await vm.Its.ReadAsync(Gits.Cwriter)).Should().Be(0x20);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.WriteAsync(Gits.Creadr, 0xffff_ffff_fff0_007f);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(0x60);
    }

    [Fact]
    [Clause("arm-its/queue/creadr-from-user-space")]
    public async Task ReadPointerIsWritableWhileDisabled()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        (await vm.Its.TryWriteAsync(Gits.Creadr, 0x40)).Should().Be(Errno.EBUSY);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await UseSmallQueueAsync(vm.Its, enable: false);
        (await vm.Its.TryWriteAsync(Gits.Creadr, 0xfe0)).Should().Be(Errno.None);
        (await vm.Its.TryWriteAsync(Gits.Creadr, 0x1000)).Should().Be(Errno.EINVAL);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(0xfe0);
    }

    [Fact]
    [Clause("arm-its/queue/creadr-of-the-guest")]
    public async Task ReadPointerIsReadOnlyToTheGuest()
    {
        await using Vm vm = await kernel.CreateBlankItsVmAsync();
        await vm.Its.ConfigureAsync(enable: false);
        ScriptResults results = await vm.Vcpus[0].ExecuteAsync(new GuestScript()
            .Add(GuestCommand.Store(vm.Its.Address + Gits.Creadr, 0x40, AccessWidth.Qword))
            .Add(GuestCommand.Load(vm.Its.Address + Gits.Creadr, AccessWidth.Qword)));
        results[1].Value.Should().Be(0);
    }

    [Fact]
    [Clause("arm-its/queue/waits-while-disabled")]
    public async Task CommandsWaitUntilTheItsIsEnabled()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        uint before = vm.Its.Next;
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.IssueAsync(ItsCommand.Raise(s_device, s_event));
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(before);
        (await vm.Its.ReadAsync(Gits.Ctlr)).Should().Be(0, "not quiescent while a command waits");
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(vm.Its.Next);
        (await vm.Its.ReadAsync(Gits.Ctlr)).Should().Be(Gits.CtlrEnable | Gits.CtlrQuiescent);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    [Fact]
    [Clause("arm-its/queue/cbaser-resets-the-pointers")]
    public async Task WritingCbaserEmptiesTheQueue()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.IssueAsync(ItsCommand.Raise(s_device, s_event));
        await vm.Its.WriteAsync(Gits.Cbaser, vm.Its.QueueBase);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(0);
        (await vm.Its.ReadAsync(Gits.Cwriter)).Should().Be(0);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        (await vm.Vcpus[0].TakePendingAsync()).Should().BeEmpty();
    }

    [Fact]
    [Clause("arm-its/queue/outside-memory")]
    public async Task CommandsOutsideMemoryAreSkipped()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.WriteAsync(Gits.Cbaser, 0x20_0000_0000 | Gits.Valid);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Its.WriteAsync(Gits.Cwriter, 0x60);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(0x60);
    }

    [Fact]
    [Clause("arm-its/queue/fields-of-every-command")]
    public async Task QueueInTheMiddleOfMemoryIsReadWhereItIs()
    {
        await using Vm vm = await kernel.CreateItsVmAsync();
        await vm.Its.MapAsync(s_device, s_event, s_lpi);
        ulong other = vm.Its.SecondLevel(0);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        await vm.Its.WriteAsync(Gits.Cbaser, other | Gits.Valid);
        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.WriteMemoryAsync(other, ItsCommand.Raise(s_device, s_event).Encode());
        await vm.Its.WriteAsync(Gits.Cwriter, 32);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(s_lpi);
    }

    private static async Task UseSmallQueueAsync(Its its, bool enable = true)
    {
        await its.WriteAsync(Gits.Ctlr, 0);
        await its.WriteAsync(Gits.Cbaser, its.Queue | Gits.Valid);
        its.Next = 0;
        (await its.ReadAsync(Gits.Cbaser) & 0xff).Should().Be((SmallQueue / 4096) - 1);
        if (enable)
        {
            await its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        }
    }
}

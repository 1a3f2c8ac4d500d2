// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>
/// VFIO_DEVICE_SET_IRQS over the whole grid of its arguments, in every state a device can be in. <see cref="SetIrqsRules"/> says what is to come
/// out; what a call enabled is disabled before the next one.
/// </summary>
public sealed class SetIrqsErrorsTests(KernelUnderTest kernel)
{
    private static readonly uint[] Actions = [0, 8, 16, 32, 24, 40, 48, 56];

    [Fact]
    [Clause("vfio-irqs/set/argsz")]
    [Clause("vfio-irqs/set/index")]
    [Clause("vfio-irqs/set/range")]
    [Clause("vfio-irqs/set/range-overflow")]
    [Clause("vfio-irqs/set/unknown-flags")]
    [Clause("vfio-irqs/set/one-data-type")]
    [Clause("vfio-irqs/set/one-action")]
    [Clause("vfio-irqs/set/data-size")]
    [Clause("vfio-irqs/msi/no-mask-or-unmask")]
    [Clause("vfio-irqs/err-req/trigger-only")]
    [Clause("vfio-irqs/trigger/needs-the-index-enabled")]
    public async Task IdleDeviceAnswersTheWholeGridByTheRules()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        SetIrqsRules rules = await SetIrqsRules.OfAsync(device, kernel);
        await CompareAsync(device, rules, null, FullGrid(rules));
    }

    [Fact]
    [Clause("vfio-irqs/set/absent-index")]
    [Clause("vfio-irqs/set/range")]
    public async Task ConventionalDeviceAnswersTheWholeGridByTheRules()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        SetIrqsRules rules = await SetIrqsRules.OfAsync(edu.Vfio, kernel);
        await CompareAsync(edu.Vfio, rules, null, FullGrid(rules));
    }

    [Theory]
    [InlineData(IrqIndex.Intx)]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [Clause("vfio-irqs/set/one-index-at-a-time")]
    [Clause("vfio-irqs/set/refused-changes-nothing")]
    [Clause("vfio-irqs/trigger/beyond-the-enabled-set")]
    [Clause("vfio-irqs/intx/range")]
    [Clause("vfio-irqs/intx/mask-by-eventfd-is-absent")]
    public async Task DeviceInUseAnswersTheGridByTheRulesAndKeepsWhatItHas(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        EventFd[] eventfds = await kernel.CreateEventFdsAsync(index == IrqIndex.Intx ? 1 : 4);
        await device.AttachAsync(index, 0, eventfds);
        SetIrqsRules rules = await SetIrqsRules.OfAsync(device, kernel);
        rules = rules with { Active = index, Enabled = (uint)eventfds.Length };

        // Without the calls that would change what is attached: those have claims of their own.
        IEnumerable<IrqSet> refused = WellFormedGrid(rules).Where(s => rules.Answer(s) != Errno.None);
        await CompareAsync(device, rules, index, refused);

        await device.TriggerAsync(index, 0, (uint)eventfds.Length);
        (await eventfds.CountsAsync()).Should().Be(string.Join(' ', eventfds.Select(_ => "1")), "a refused call changes nothing");
    }

    [Theory]
    [InlineData(IrqIndex.Intx)]
    [InlineData(IrqIndex.Msi)]
    [InlineData(IrqIndex.Msix)]
    [Clause("vfio-irqs/set/data-size")]
    public async Task ArgszCountsOnlyWhatTheDataNeeds(IrqIndex index)
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        SetIrqsRules rules = await SetIrqsRules.OfAsync(device, kernel);
        var grid = new List<IrqSet>();
        foreach (uint count in new uint[] { 0, 1, 2, 16, 17 })
        {
            foreach (IrqData type in Enum.GetValues<IrqData>())
            {
                uint exact = 20 + (count * (type == IrqData.Eventfd ? 4u : type == IrqData.Bool ? 1u : 0));
                grid.AddRange(new uint[] { 0, 4, 19, 20, exact - 1, exact, exact + 1, exact + 1000, uint.MaxValue }.Distinct()
                    .Select(argsz => Request(index, 32 | (uint)type, 0, count) with { Argsz = argsz }));
            }
        }

        await CompareAsync(device, rules, null, grid);
    }

    [Fact]
    [Clause("vfio-irqs/set/unreadable")]
    public async Task UnreadableArgumentIsAFault()
    {
        await using VfioDevice device = await kernel.OpenXhciAsync();
        KernelSession session = device.Session;
        Mapping pages = await session.MapAnonymousAsync(8192, "argument");
        await pages.UnmapAsync(4096, 4096);
        byte[] set = IrqSet.Descriptors(IrqIndex.Msix, IrqAction.Trigger, 0, -1, -1).ToBytes();

        async Task<Errno> SetAtAsync(ulong offset)
        {
            await pages.WriteAsync(offset, set.AsMemory(0, (int)Math.Min((ulong)set.Length, 4096 - offset)));
            return (Errno)(await session.Agent.CallAsync(new SystemCall(session.Numbers.Ioctl, $"ioctl({device.Fd.Name}, VFIO_DEVICE_SET_IRQS, at {offset})")
                .Arg(device.Fd.Number).Arg(VfioIoctl.VFIO_DEVICE_SET_IRQS.Number).Arg(pages.Address + offset))).Errno;
        }

        (await SetAtAsync(4096 - 16)).Should().Be(Errno.EFAULT, "the header's end cannot be read");
        (await SetAtAsync(4096 - 20)).Should().Be(Errno.EFAULT, "the descriptors cannot be read");
        (await SetAtAsync(4096 - 24)).Should().Be(Errno.EFAULT, "the second descriptor cannot be read");
        (await device.TryTriggerAsync(IrqIndex.Msix)).Should().Be(Errno.EINVAL, "nothing was enabled");
        (await SetAtAsync(4096 - 28)).Should().Be(Errno.None);
    }

    private static IrqSet Request(IrqIndex index, uint flags, uint start, uint count) => new()
    {
        // Every byte set: descriptors are -1, booleans true.
        Index = (uint)index, Flags = flags, Start = start, Count = count, Data = [.. Enumerable.Repeat((byte)0xff, 80)],
    };

    private static IEnumerable<(uint Start, uint Count)> Ranges(uint n) => new (uint Start, uint Count)[]
    {
        (0, 0), (0, 1), (0, 2), (0, n), (0, n + 1), (1, 0), (1, 1), (1, n), (n - 1, 1), (n - 1, 2), (n, 0), (n, 1), (n + 1, 0),
        (0, uint.MaxValue), (0, uint.MaxValue - 1), (1, uint.MaxValue - 1), (1, uint.MaxValue - 2), (uint.MaxValue, 0), (uint.MaxValue, 1), (uint.MaxValue - 1, 1),
        (uint.MaxValue, uint.MaxValue), (0x80000000, 0x80000000), (0x80000000, 0x7fffffff),
    }.Distinct();

    // Every action with every data type; every range where one of each is asked for, which is where the range matters.
    private static IEnumerable<IrqSet> FullGrid(SetIrqsRules rules) =>
        from index in Enumerable.Range(0, 6)
        from action in Actions
        from data in Enumerable.Range(0, 8)
        let single = action is 8 or 16 or 32 && data is 1 or 2 or 4
        from extra in action == 32 && data is 1 or 4 ? new uint[] { 0, 64, 0x80000000 } : [0]
        from range in single && extra == 0 ? Ranges(Math.Max(rules.CountOf((uint)index), 1)) : [(0, 1), (0, 0)]
        select Request((IrqIndex)index, action | (uint)data | extra, range.Start, range.Count);

    private static IEnumerable<IrqSet> WellFormedGrid(SetIrqsRules rules) =>
        from index in Enumerable.Range(0, 5)
        from action in new uint[] { 8, 16, 32 }
        from data in new uint[] { 1, 2, 4 }
        from range in Ranges(Math.Max(rules.CountOf((uint)index), 1)).Concat(new (uint Start, uint Count)[] { (0, 4), (0, 5), (3, 1), (4, 1), (4, 0), (5, 0) }).Distinct()
        select Request((IrqIndex)index, action | data, range.Start, range.Count);

    private static async Task CompareAsync(VfioDevice device, SetIrqsRules rules, IrqIndex? active, IEnumerable<IrqSet> grid)
    {
        var wrong = new List<string>();
        int asked = 0;
        var refused = new List<(IrqSet Set, Task<Errno> Answer)>();
        foreach (IrqSet set in grid)
        {
            asked++;
            Errno wanted = rules.Answer(set);
            Task<Errno> answer = device.TrySetIrqsAsync(set);
            if (wanted != Errno.None || active is not null)
            {
                // Refusals change nothing: they need not wait for each other.
                refused.Add((set, answer));
                if (refused.Count == 64)
                {
                    await TakeAsync();
                }

                continue;
            }

            await TakeAsync();
            Note(set, await answer);
            if (await answer == Errno.None && set.Index <= (uint)IrqIndex.Msix)
            {
                await device.DisableAsync((IrqIndex)set.Index);
            }
        }

        await TakeAsync();
        asked.Should().BeGreaterThan(20);
        string.Join('\n', wrong.Take(20)).Should().BeEmpty($"{wrong.Count} of {asked} answers are not by the rules");

        async Task TakeAsync()
        {
            foreach ((IrqSet set, Task<Errno> answer) in refused)
            {
                Note(set, await answer);
            }

            refused.Clear();
        }

        void Note(IrqSet set, Errno seen)
        {
            if (rules.Answer(set) is Errno wanted && wanted != seen)
            {
                wrong.Add($"{set}: wanted {wanted}, seen {seen}");
            }
        }
    }
}

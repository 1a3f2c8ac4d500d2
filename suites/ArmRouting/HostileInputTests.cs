// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmArm64Const;

namespace Conformance.ArmRouting;

/// <summary>Input no sensible guest or VMM gives. The kernel's own warnings fail a test; afterwards everything must still work.</summary>
public sealed class HostileInputTests(KernelUnderTest kernel)
{
    private static readonly ulong[] s_awkward =
        [0, 1, 31, 32, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, uint.MaxValue, 1ul << 32, 1ul << 40, 1ul << 63, ulong.MaxValue, 0x4180_0000, 0x4180_0000 | (1ul << 63)];

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [Clause("arm-hostile/its-commands")]
    public async Task NoCommandBreaksTheIts(int seed)
    {
        var random = new Random(seed);
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        var commands = new List<ItsCommand>();
        for (int n = 0; n < 1000; n++)
        {
            ulong number = (ulong)random.Next(0, 17);
            ulong device = random.Next(3) == 0 ? Awkward(random) : (ulong)random.Next(4);
            ulong second = random.Next(3) == 0 ? Awkward(random) : (uint)random.Next(40) | ((ulong)(uint)random.Next(8190, 8230) << 32);
            ulong third = random.Next(3) == 0 ? Awkward(random) : (uint)random.Next(4) | ((ulong)(uint)random.Next(3) << 16) | ((ulong)(uint)random.Next(2) << 63) | (random.Next(2) == 0 ? 0 : 0x4190_0000ul);
            commands.Add(ItsCommand.Raw(number | (device << 32), second, third, (ulong)random.Next(3) << 16));
        }

        await vm.Its.IssueAsync(commands);
        (await vm.Its.ReadAsync(Gits.Creadr)).Should().Be(vm.Its.Next);
        if (kernel.Has("its-save-unmapped-collection"))
        {
            (await vm.Its.TrySaveTablesAsync()).Should().BeOneOf(Errno.None, Errno.EFAULT);
        }

        await vm.Gic.TrySavePendingTablesAsync();
        await vm.Its.ResetAsync();
        await vm.Its.ConfigureAsync();
        await vm.Vcpus[0].TakePendingAsync();
        await StillWorksAsync(vm);
    }

    [Theory]
    [InlineData(11)]
    [InlineData(12)]
    [Clause("arm-hostile/registers")]
    public async Task NoRegisterWriteOfTheGuestBreaksTheGic(int seed)
    {
        var random = new Random(seed);
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        AccessWidth[] widths = [AccessWidth.Byte, AccessWidth.Word, AccessWidth.Dword, AccessWidth.Dword, AccessWidth.Qword];
        var script = new GuestScript();
        for (int n = 0; n < 250; n++)
        {
            AccessWidth width = widths[random.Next(widths.Length)];
            ulong size = (ulong)width;
            ulong at = random.Next(3) switch
            {
                0 => Arm64Layout.Distributor + ((ulong)random.Next(0x1_0000) / size * size),
                1 => Arm64Layout.Redistributor(1) + ((ulong)random.Next(random.Next(2) == 0 ? 0x100 : 0x2_0000) / size * size),
                _ => vm.Its.Address + ((ulong)random.Next(0x180) / size * size),
            };
            script.Add(GuestCommand.Store(at, Awkward(random), width)).Add(GuestCommand.Load(at, width));
        }

        await vm.Vcpus[0].ExecuteAsync(script);
        // A new VM beside it is not concerned, and this one can be torn down.
        await using Vm other = await kernel.CreateItsVmAsync(vcpus: 2, name: "other vm");
        await StillWorksAsync(other);
    }

    [Theory]
    [InlineData(21)]
    [InlineData(22)]
    [Clause("arm-hostile/attributes")]
    public async Task NoAttributeBreaksTheDevices(int seed)
    {
        var random = new Random(seed);
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        Errno[] known =
            [Errno.None, Errno.EINVAL, Errno.ENXIO, Errno.EBUSY, Errno.EEXIST, Errno.E2BIG, Errno.ENOENT, Errno.ENODEV, Errno.EFAULT];
        for (int n = 0; n < 150; n++)
        {
            KvmDevice device = random.Next(2) == 0 ? vm.Gic : vm.Its;
            uint group = (uint)random.Next(0, 10);
            ulong attribute = random.Next(3) == 0 ? Awkward(random) : (uint)random.Next(0x200) * 4 | ((ulong)(uint)random.Next(3) << 32);
            Errno error = random.Next(2) == 0
                ? await device.TrySetUInt64Async(group, attribute, Awkward(random), $"group {group} 0x{attribute:x}")
                : (await device.TryGetAsync(group, attribute, 8, $"group {group} 0x{attribute:x}")).Error;
            error.Should().BeOneOf(known, $"group {group} attribute 0x{attribute:x}");
        }

        await using Vm other = await kernel.CreateItsVmAsync(vcpus: 2, name: "other vm");
        await StillWorksAsync(other);
    }

    [Theory]
    [InlineData(31)]
    [InlineData(32)]
    [Clause("arm-hostile/tables")]
    public async Task NoSavedTableBreaksARestore(int seed)
    {
        var random = new Random(seed);
        await using Vm vm = await kernel.CreateItsVmAsync(vcpus: 2);
        await vm.Its.WriteAsync(Gits.Ctlr, 0);
        for (int n = 0; n < 12; n++)
        {
            byte[] garbage = new byte[0x400];
            random.NextBytes(garbage);
            await vm.WriteMemoryAsync(vm.Its.DeviceTable, garbage);
            random.NextBytes(garbage);
            // Entries that are nearly right get further.
            for (int at = 0; at < garbage.Length; at += 8)
            {
                BitConverter.TryWriteBytes(garbage.AsSpan(at), (1ul << 63) | ((ulong)(uint)random.Next(3) << 16) | (uint)random.Next(4 * n + 4));
            }

            await vm.WriteMemoryAsync(vm.Its.CollectionTable, garbage);
            await vm.WriteMemoryAsync(vm.Its.DeviceTable + (ulong)random.Next(16) * 8, BitConverter.GetBytes(
                (1ul << 63) | ((ulong)(uint)random.Next(4) << 49) | (vm.Its.SecondLevel(0) >> 8 << 5) | (uint)random.Next(16)));
            (await vm.Its.TryRestoreTablesAsync()).Should().BeOneOf(Errno.None, Errno.EINVAL, Errno.EEXIST, Errno.EFAULT, Errno.ENOMEM);
            await vm.Its.ResetAsync();
            await vm.Its.ConfigureAsync(enable: false);
        }

        await vm.Its.WriteAsync(Gits.Ctlr, Gits.CtlrEnable);
        await vm.Vcpus[0].TakePendingAsync();
        await StillWorksAsync(vm);
    }

    private static ulong Awkward(Random random) => random.Next(4) == 0 ? (ulong)random.NextInt64() : s_awkward[random.Next(s_awkward.Length)];

    private static async Task StillWorksAsync(Vm vm)
    {
        var device = new DeviceId(0x77);
        await vm.Its.MapAsync(device, new EventId(3), new Lpi(8888));
        (await vm.SignalMsiAsync(device, new EventId(3))).Should().Be(1);
        (await vm.Vcpus[0].TakePendingAsync()).Should().Equal(new Lpi(8888));
    }
}

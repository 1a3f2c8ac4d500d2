// SPDX-License-Identifier: MIT
using Conformance.Guests;
using Conformance.Harness.Tests.Wire;
using Conformance.Kernels;
using Conformance.Kvm;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kvm;

/// <summary>The domain on this machine's own KVM, where it opens: a guest runs, takes interrupts and reports.</summary>
public sealed class VmTests
{
    private static readonly ApicVector s_vector = new(0x41);
    private static readonly ApicVector s_fence = new(0x31);

    [Fact]
    public async Task ASignalledIrqfdReachesTheGuestOnce()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using KernelSession session = await OpenAsync(agent);
        await using Vm vm = await Vm.CreateAsync(await KvmSystem.OpenAsync(session), VmOptions.Default);
        await using EventFd eventfd = await session.CreateEventFdAsync();

        await vm.SetGsiRoutingAsync(GsiRoute.Msi(24, MsiMessage.Fixed(0, s_vector)));
        await vm.AssignIrqfdAsync(24, eventfd);
        await vm.RunUntilHaltedAsync();
        await eventfd.SignalAsync();
        await vm.DeassignIrqfdAsync(24, eventfd);
        await vm.SignalMsiAsync(MsiMessage.Fixed(0, s_fence));

        ApicVector[] taken = await vm.ReadInterruptLogAsync(until: s_fence);
        taken.Should().Equal(s_vector, s_fence);
    }

    [Fact]
    public async Task AScriptReportsWhatEachCommandDid()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using KernelSession session = await OpenAsync(agent);
        await using Vm vm = await Vm.CreateAsync(await KvmSystem.OpenAsync(session), VmOptions.Default with { Vcpus = 2 });
        ScriptResults results = await vm.Vcpus[1].ExecuteAsync(new GuestScript()
            .Add(GuestCommand.Store(GuestLayout.Scratch, 0x1234))
            .Add(GuestCommand.Load(GuestLayout.Scratch)));
        results[1].Value.Should().Be(0x1234);
        (await vm.Vcpus[1].ReadControlAsync()).Index.Should().Be(1);
    }

    [Fact]
    public async Task AnInterruptThatNeverComesIsAMissingEvent()
    {
        await using LocalAgent agent = await LocalAgent.StartAsync();
        await using KernelSession session = await OpenAsync(agent, TimeSpan.FromMilliseconds(200));
        await using Vm vm = await Vm.CreateAsync(await KvmSystem.OpenAsync(session), VmOptions.Default);
        await vm.RunUntilHaltedAsync();
        Func<Task> wait = () => vm.ReadInterruptLogAsync(until: s_fence);
        (await wait.Should().ThrowAsync<MissingEventException>()).Which.Message.Should().Contain("0x31");
    }

    private static async Task<KernelSession> OpenAsync(LocalAgent agent, TimeSpan? patience = null)
    {
        string reason = "";
        try
        {
            using FileStream kvm = File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            reason = e.Message;
        }

        Assert.SkipWhen(reason.Length > 0, $"/dev/kvm does not open: {reason}");
        return new KernelSession(await agent.Connection.OpenSessionAsync(default), KernelArchitecture.X86_64, name => $"{LocalAgent.Build}/guests/{name}")
        {
            EventPatience = patience ?? TimeSpan.FromSeconds(10),
        };
    }
}

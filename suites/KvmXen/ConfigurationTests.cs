// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Guests;
using Conformance.Kvm;
using Conformance.Uapi;
using Conformance.Wire;
using FluentAssertions;
using Xunit;
using static Conformance.Uapi.KvmXenConst;

namespace Conformance.KvmXen;

/// <summary>KVM_XEN_HVM_CONFIG.</summary>
public sealed class ConfigurationTests(KernelUnderTest kernel)
{
    private const uint Permitted = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND | KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE;

    private Task<Vm> CreateBareVmAsync() => kernel.CreateVmAsync(VmOptions.Default with { Bare = true });

    [Fact]
    [Clause("kvm-xen/config/capability")]
    public async Task CapabilityAdvertisesEveryFlagBelowTheNewestOne()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        uint flags = (uint)await kernel.CapabilityAsync(KvmCap.XenHvm);

        // Later flags came on top of earlier ones; a hole means that a capability was lost. The two of runstate come and go together, with
        // the scheduler's statistics, which a kernel may be built without.
        uint newest = uint.MaxValue >> System.Numerics.BitOperations.LeadingZeroCount(flags);
        const uint Runstate = KVM_XEN_HVM_CONFIG_RUNSTATE | KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG;
        flags.Should().BeOneOf(newest, newest & ~Runstate);
    }

    [Fact]
    [Clause("kvm-xen/config/flags")]
    public async Task OnlyFlagsThatUserSpaceEnablesAreAccepted()
    {
        await kernel.RequireXenAsync(Permitted);
        await using Vm vm = await CreateBareVmAsync();

        var accepted = new List<uint>();
        for (int bit = 0; bit < 32; bit++)
        {
            Errno error = await vm.Xen.TryConfigureAsync(1u << bit);
            error.Should().BeOneOf(Errno.None, Errno.EINVAL);
            if (error == Errno.None)
            {
                accepted.Add(1u << bit);
            }
        }

        accepted.Should().Equal(
            KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, KVM_XEN_HVM_CONFIG_EVTCHN_SEND, KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE);
        (await vm.Xen.TryConfigureAsync(Permitted)).Should().Be(Errno.None);
        (await vm.Xen.TryConfigureAsync(Permitted | KVM_XEN_HVM_CONFIG_HYPERCALL_MSR)).Should().Be(Errno.EINVAL);
    }

    [Fact]
    [Clause("kvm-xen/config/blob-excludes-interception")]
    public async Task InterceptionWithAnyPartOfABlobIsRefused()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        await using Vm vm = await CreateBareVmAsync();
        (string Field, kvm_xen_hvm_config Config)[] parts =
        [
            ("blob_addr_32", new kvm_xen_hvm_config { msr = 0x40000000, blob_addr_32 = 0x1000 }),
            ("blob_addr_64", new kvm_xen_hvm_config { msr = 0x40000000, blob_addr_64 = 0x1000 }),
            ("blob_size_32", new kvm_xen_hvm_config { msr = 0x40000000, blob_size_32 = 1 }),
            ("blob_size_64", new kvm_xen_hvm_config { msr = 0x40000000, blob_size_64 = 1 }),
        ];

        foreach ((string field, kvm_xen_hvm_config config) in parts)
        {
            kvm_xen_hvm_config intercepting = config with { flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL };
            (await vm.Xen.TryConfigureAsync(intercepting)).Should().Be(Errno.EINVAL, $"{field} is given with INTERCEPT_HCALL");
            (await vm.Xen.TryConfigureAsync(config)).Should().Be(Errno.None, $"{field} is given without INTERCEPT_HCALL");
        }
    }

    [Fact]
    [Clause("kvm-xen/config/msr-range")]
    [FixedBy("5c17848134ab", "KVM: x86/xen: Restrict hypercall MSR to unofficial synthetic range")]
    public async Task MsrOutsideTheSyntheticRangeIsRefused()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        kernel.RequireChange("xen-hypercall-msr-range");
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint msr in new uint[] { 1, 0x10, 0x3fffffff, 0x50000000, 0xc0000080, uint.MaxValue })
        {
            (await vm.Xen.TryConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, msr)).Should().Be(Errno.EINVAL, $"the MSR is 0x{msr:x}");
        }
    }

    [Fact]
    [Clause("kvm-xen/config/msr-range")]
    public async Task MsrInTheSyntheticRangeIsAccepted()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        await using Vm vm = await CreateBareVmAsync();

        foreach (uint msr in new uint[] { 0x40000000, 0x40000001, 0x40000200, 0x4ffffffe, 0x4fffffff, 0 })
        {
            (await vm.Xen.TryConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, msr)).Should().Be(Errno.None, $"the MSR is 0x{msr:x}");
        }
    }

    [Theory]
    [InlineData(0x40000000u)]
    [InlineData(0x40000200u)]
    [InlineData(0x4fffffffu)]
    [Clause("kvm-xen/config/msr-selects")]
    public async Task OnlyTheConfiguredMsrFillsAPage(uint msr)
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, msr);

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.WriteMsr(msr ^ 0x100, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int other)
            .Add(GuestCommand.Load(XenDomain.HypercallPageGpa, AccessWidth.Byte), out int before)
            .Add(GuestCommand.WriteMsr(msr, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int own)
            .Add(GuestCommand.Load(XenDomain.HypercallPageGpa, AccessWidth.Byte), out int after));

        results[other].Status.Should().Be(CommandStatus.Faulted, "the MSR is not the configured one");
        results[before].Value.Should().Be(0);
        results[own].Status.Should().Be(CommandStatus.Done, "the MSR is the configured one");
        results[after].Value.Should().Be(0xb8);
    }

    [Fact]
    [Clause("kvm-xen/config/msr-zero-disables")]
    public async Task ZeroMsrTurnsHypercallPagesOff()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000200);
        await domain.Xen.ConfigureAsync(0, 0);

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.WriteMsr(0x40000200, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int write)
            .Add(GuestCommand.Load(XenDomain.HypercallPageGpa, AccessWidth.Byte), out int page));

        results[write].Status.Should().Be(CommandStatus.Faulted);
        results[page].Value.Should().Be(0);
    }

    [Fact]
    [Clause("kvm-xen/config/refused-changes-nothing")]
    public async Task RefusedConfigurationLeavesTheOldOne()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000200);

        (await domain.Xen.TryConfigureAsync(KVM_XEN_HVM_CONFIG_HYPERCALL_MSR, 0x40000300)).Should().Be(Errno.EINVAL);
        (await domain.Xen.TryConfigureAsync(new kvm_xen_hvm_config { flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, msr = 0x40000300, blob_size_64 = 1 }))
            .Should().Be(Errno.EINVAL);

        IReadOnlyList<CommandResult> results = await domain.Vcpu.ExecuteAsync(domain.Script()
            .Add(GuestCommand.WriteMsr(0x40000300, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int refused)
            .Add(GuestCommand.WriteMsr(0x40000200, XenDomain.HypercallPageGpa).Expecting(X86Exception.GeneralProtection), out int old));
        results[refused].Status.Should().Be(CommandStatus.Faulted);
        results[old].Status.Should().Be(CommandStatus.Done);
    }

    [Fact]
    [Clause("kvm-xen/config/steal-time-of-others")]
    public async Task VmWithoutTheMsrKeepsKvmsStealTime()
    {
        const uint StealTimeMsr = 0x4b564d03;
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        await XenDomain.CreateAsync(kernel);
        await using Vm vm = await kernel.CreateVmAsync();
        Vcpu vcpu = vm.Vcpus[0];
        (await vcpu.TrySetMsrAsync(StealTimeMsr, GuestLayout.Scratch | 1)).Should().BeTrue("user space may turn KVM's steal time on");

        await vcpu.ExecuteAsync(new GuestScript().Add(GuestCommand.Nop));

        // struct kvm_steal_time: the steal time, then a version that becomes even and above zero with the first record.
        (await vm.ReadMemoryAsync(GuestLayout.Scratch + 8, 4)).Should().NotEqual(new byte[4]);
    }

    [Fact]
    [Clause("kvm-xen/config/toggle")]
    public async Task ConfiguringOnAndOffLeavesOtherVmsAlone()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain other = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default with { Name = "other" });
        await other.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);

        // Once per transition, whatever comes between: a count that is off by one shows in the kernel log or in the other VM.
        await using (Vm vm = await CreateBareVmAsync())
        {
            for (int round = 0; round < 20; round++)
            {
                await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000000);
                await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000001);
                await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0);
                await vm.Xen.ConfigureAsync(0, 0);
            }
        }

        // Closing a VM that is configured takes its part back, too.
        await using (Vm vm = await CreateBareVmAsync())
        {
            await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        }

        GuestExit exit = await other.CallToUserSpaceAsync(7, 55);
        exit.Reason.Should().Be(KvmExit.KVM_EXIT_XEN);
    }

    [Fact]
    [Clause("kvm-xen/config/toggle-balanced")]
    public async Task KvmCanBeUnloadedOnceItsLastVmIsGone()
    {
        const uint NonBlocking = 0x800;
        const string Name = "kvm_amd", File = "/modules/kvm-amd.ko";
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        // The first test of a kernel asks it for the capability, and who has /dev/kvm open keeps KVM loaded.
        await (await kernel.OpenKvmAsync()).Fd.CloseAsync();
        KernelSession session = await kernel.SessionAsync();
        (Errno missing, KernelFd? module) = await session.TryOpenAsync(File, writable: false);
        Skipping.UnlessHardware(module is not null, "KVM as a module that this test may unload", $"{File}: {missing}");
        await using KernelFd image = module!;

        // Every way to turn Xen on and off, and a VM that is closed with it on, in a process of their own.
        await using (KernelSession user = await kernel.CreateSessionAsync())
        {
            KvmSystem kvm = await KvmSystem.OpenAsync(user);
            Vm vm = await Vm.CreateAsync(kvm, VmOptions.Default with { Bare = true, Name = "on and off" });
            await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000000);
            await vm.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, 0x40000200);
            await vm.Xen.ConfigureAsync(0, 0);
            await vm.Xen.ConfigureAsync(0, 0);
            Vm on = await Vm.CreateAsync(kvm, VmOptions.Default with { Bare = true, Name = "left on" });
            await on.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        }

        byte[] name = [.. System.Text.Encoding.ASCII.GetBytes(Name), 0];
        CallResult unload = await session.Agent.CallAsync(new SystemCall(session.Numbers.DeleteModule, $"delete_module({Name})").In(name).Arg(NonBlocking));
        if (unload.Errno == 0)
        {
            CallResult load = await session.Agent.CallAsync(new SystemCall(session.Numbers.FinitModule, $"finit_module({File})").Arg(image.Number).In("\0"u8).Arg(0));
            ((Errno)load.Errno).Should().Be(Errno.None, "it was loaded before");
        }

        // The kernel itself looks when it unloads; what it finds it prints, and that fails this test.
        ((Errno)unload.Errno).Should().Be(Errno.None, "nothing uses KVM any more");
    }

    [Fact]
    [Clause("kvm-xen/config/interception-off")]
    public async Task WithoutInterceptionHypercallsAreKvmsOwn()
    {
        await kernel.RequireXenAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        XenDomain domain = await XenDomain.CreateBareAsync(kernel, XenDomainOptions.Default);
        await domain.Xen.ConfigureAsync(0);

        // KVM knows no hypercall 55 and says so itself (-KVM_ENOSYS).
        (await domain.CallAsync(55)).Should().Be(unchecked((ulong)-1000L));

        await domain.Xen.ConfigureAsync(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
        (await domain.CallToUserSpaceAsync(0, 55)).Reason.Should().Be(KvmExit.KVM_EXIT_XEN);
    }
}

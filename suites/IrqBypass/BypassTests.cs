// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.IrqBypass;

/// <summary>
/// The consumer side of the bypass manager, without a producer: a VFIO device is the Vfio suite's. What the kernel did is counted by kprobes.
/// </summary>
public sealed class BypassTests(KernelUnderTest kernel)
{
    private const uint Gsi = 24;
    private const string Register = "irq_bypass_register_consumer";
    private const string Unregister = "irq_bypass_unregister_consumer";

    private static async Task<string> HardwareAsync(KernelSession session)
    {
        var seen = new List<string>();
        foreach ((string module, string parameter) in new[] { ("kvm_amd", "avic"), ("kvm_intel", "enable_apicv") })
        {
            if (await session.ReadFileAsync($"/sys/module/{module}/parameters/{parameter}") is string value)
            {
                seen.Add($"{module}.{parameter} = {value.Trim()}");
            }
        }

        return seen.Count == 0 ? "neither kvm_amd nor kvm_intel is loaded" : string.Join(", ", seen);
    }

    private async Task<(int Registered, int Unregistered)> CountAsync(Vm vm, Func<Task> body)
    {
        await using KernelProbes? probes = await KernelProbes.OpenAsync(vm.Session, Register, Unregister);
        Skipping.UnlessCapability(probes is not null, "kprobes through tracefs", "no kprobe_events");
        int? before = await probes.CountAsync(Register);
        Skipping.UnlessCapability(before is not null, Register, "the function cannot be probed");
        await body();
        return (await probes.CountAsync(Register) ?? 0, await probes.CountAsync(Unregister) ?? 0);
    }

    private async Task<Vm> CreateAsync()
    {
        Vm vm = await kernel.CreateVmAsync();
        await vm.EnableLocalApicsAsync();
        await vm.SetGsiRoutingAsync(GsiRoute.Msi(Gsi, MsiMessage.Fixed(0, Vectors.A)));
        return vm;
    }

    [Fact]
    [Clause("irq-bypass/consumer/unregistered-at-deassign")]
    [Clause("irq-bypass/consumer/any-order")]
    [Clause("irq-bypass/absent-hardware-delivers")]
    public async Task ConsumerIsUnregisteredWithItsIrqfdAndEverySignalArrives()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (int registered, int unregistered) = await CountAsync(vm, async () =>
        {
            for (int round = 0; round < 4; round++)
            {
                await vm.AssignIrqfdAsync(Gsi, eventfd);
                await eventfd.SignalAsync();
                await vm.DeassignIrqfdAsync(Gsi, eventfd);
                (await vm.DrainPendingAsync()).Should().Be("0x41");
            }
        });

        registered.Should().BeOneOf(0, 4);
        // A consumer that was never registered is unregistered in vain.
        unregistered.Should().Be(4);
    }

    [Fact]
    [Clause("irq-bypass/consumer/registered-at-assign")]
    public async Task ConsumerIsRegisteredWithItsIrqfd()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (int registered, _) = await CountAsync(vm, () => vm.AssignIrqfdAsync(Gsi, eventfd));

        Skipping.UnlessHardware(registered > 0, "posted interrupts", await HardwareAsync(vm.Session));
        registered.Should().Be(1);
    }

    [Fact]
    [Clause("irq-bypass/consumer/not-without-hardware")]
    public async Task WithoutVirtualLocalApicsNoConsumerIsRegistered()
    {
        kernel.RequireChange("irq-bypass-needs-hardware");
        await using Vm vm = await CreateAsync();
        string hardware = await HardwareAsync(vm.Session);
        Skipping.UnlessHardware(hardware.EndsWith(" = N", StringComparison.Ordinal), "a processor or a kernel without them", hardware);
        await using EventFd eventfd = await kernel.CreateEventFdAsync();

        (int registered, _) = await CountAsync(vm, () => vm.AssignIrqfdAsync(Gsi, eventfd));

        registered.Should().Be(0);
    }

    [Fact]
    [Clause("irq-bypass/consumer/registered-at-assign")]
    [Clause("irq-bypass/consumer/not-without-hardware")]
    public async Task RefusedAssignRegistersNoConsumer()
    {
        await using Vm vm = await CreateAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await vm.AssignIrqfdAsync(Gsi, eventfd);

        (int registered, int unregistered) = await CountAsync(vm, async () => (await vm.TryAssignIrqfdAsync(Gsi + 1, eventfd)).Should().Be(Uapi.Errno.EBUSY));

        (registered, unregistered).Should().Be((0, 0));
    }
}

// SPDX-License-Identifier: MIT
using System.Text.Json;
using Conformance.Fixtures;
using Conformance.Kvm;
using Conformance.Targets;

namespace Conformance.Vfio;

/// <summary>A device in the machine's spare slot. Disposing of it empties the slot; its users close it before.</summary>
internal sealed class PluggedDevice : IAsyncDisposable
{
    private const string Id = "plugged";
    private const string Slot = "spare0";

    private readonly QmpClient _machine;
    private readonly KernelSession _session;
    private Task? _gone;

    private PluggedDevice(QmpClient machine, KernelSession session)
    {
        _machine = machine;
        _session = session;
    }

    /// <summary>Whether the kernel has let it go.</summary>
    public bool IsGone => _gone is { IsCompleted: true };

    /// <summary>Plugs a device in and returns once the kernel has found it.</summary>
    /// <param name="device">QEMU's name of it: <c>edu</c>.</param>
    public static async Task<PluggedDevice> PlugAsync(KernelUnderTest kernel, string device)
    {
        QmpClient? machine = (await kernel.TargetAsync()).Qmp;
        Skipping.UnlessHardware(machine is not null, "a slot that the test may fill", "a kernel on hardware of its own");
        KernelSession session = await kernel.SessionAsync();
        await machine.ExecuteAsync("device_add", json =>
        {
            json.WriteString("driver", device);
            json.WriteString("id", Id);
            json.WriteString("bus", Slot);
        }, CancellationToken.None);

        // The kernel may be told by ACPI or by the port; a scan does not return before what is there is found.
        await PciFunction.RescanAsync(session);
        return new PluggedDevice(machine, session);
    }

    /// <summary>Asks the kernel for the device.</summary>
    public async Task UnplugAsync()
    {
        _gone = _machine.NextEventAsync("DEVICE_DELETED", data => data.TryGetProperty("device", out JsonElement device) && device.GetString() == Id);
        await _machine.ExecuteAsync("device_del", json => json.WriteString("id", Id), CancellationToken.None);
    }

    /// <exception cref="MissingEventException">The kernel keeps it.</exception>
    public async Task WaitUntilGoneAsync()
    {
        try
        {
            await _gone!.WaitAsync(_session.EventPatience);
        }
        catch (TimeoutException)
        {
            throw new MissingEventException("The kernel did not let the unplugged device go.");
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_gone is null)
        {
            await UnplugAsync();
        }

        await WaitUntilGoneAsync();
    }
}

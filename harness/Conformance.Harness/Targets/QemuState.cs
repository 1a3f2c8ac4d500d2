// SPDX-License-Identifier: MIT
using System.Net.Sockets;
using System.Text.Json;

namespace Conformance.Targets;

/// <summary>
/// Takes the state of a machine out of QEMU and puts it in, but for its memory: with x-ignore-shared a migration leaves out memory that is a
/// shared file. The machine that is restored maps the same file privately, which the incoming side accepts (QEMU 7.2 and 10).
/// </summary>
internal static class QemuState
{
    private const string SocketName = "m";

    /// <summary>Stops the machine for good and returns its state.</summary>
    /// <exception cref="QmpException">QEMU cannot save it.</exception>
    /// <exception cref="IOException">The state did not arrive.</exception>
    public static async Task<byte[]> SaveAsync(QemuProcess qemu, CancellationToken cancellation)
    {
        Socket listener = qemu.Sockets.Listen(SocketName);
        await EnableAsync(qemu, cancellation).ConfigureAwait(false);
        Task<QmpEvent> ended = qemu.Qmp.NextEventAsync("MIGRATION", HasEnded);
        await qemu.WhileItLivesAsync(qemu.Qmp.ExecuteAsync("migrate", json => json.WriteString("uri", $"unix:{qemu.Sockets[SocketName]}"), cancellation)).ConfigureAwait(false);
        using MemoryStream state = new();
        await using (NetworkStream stream = new(await listener.AcceptAsync(cancellation).ConfigureAwait(false), ownsSocket: true))
        {
            await qemu.WhileItLivesAsync(CopyAsync(stream, state, cancellation)).ConfigureAwait(false);
        }

        JsonElement data = (await qemu.WhileItLivesAsync(ended).WaitAsync(cancellation).ConfigureAwait(false)).Data;
        return data.GetProperty("status").GetString() == "completed" ? state.ToArray() : throw new IOException("QEMU did not finish saving the machine.");
    }

    /// <summary>Gives a QEMU that was started to wait for it the state of a machine; the machine runs when this returns.</summary>
    public static async Task<bool> RestoreAsync(QemuProcess qemu, byte[] state, CancellationToken cancellation)
    {
        await EnableAsync(qemu, cancellation).ConfigureAwait(false);
        Task<QmpEvent> ended = qemu.Qmp.NextEventAsync("MIGRATION", HasEnded);
        await qemu.Qmp.ExecuteAsync("migrate-incoming", json => json.WriteString("uri", $"unix:{qemu.Sockets[SocketName]}"), cancellation).ConfigureAwait(false);
        await using (NetworkStream stream = await qemu.Sockets.ConnectAsync(SocketName, cancellation).ConfigureAwait(false))
        {
            await stream.WriteAsync(state, cancellation).ConfigureAwait(false);
        }

        JsonElement data = (await ended.WaitAsync(cancellation).ConfigureAwait(false)).Data;
        return data.GetProperty("status").GetString() == "completed" ? true : throw new IOException("QEMU did not accept the saved machine.");
    }

    private static bool HasEnded(JsonElement data) => data.GetProperty("status").GetString() is "completed" or "failed" or "cancelled";

    private static async Task<bool> CopyAsync(Stream from, Stream to, CancellationToken cancellation)
    {
        await from.CopyToAsync(to, cancellation).ConfigureAwait(false);
        return true;
    }

    private static async Task EnableAsync(QemuProcess qemu, CancellationToken cancellation) =>
        await qemu.Qmp.ExecuteAsync("migrate-set-capabilities", json =>
        {
            json.WriteStartArray("capabilities");
            foreach (string capability in new[] { "events", "x-ignore-shared" })
            {
                json.WriteStartObject();
                json.WriteString("capability", capability);
                json.WriteBoolean("state", true);
                json.WriteEndObject();
            }

            json.WriteEndArray();
        }, cancellation).ConfigureAwait(false);
}

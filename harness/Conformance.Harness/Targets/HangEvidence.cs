// SPDX-License-Identifier: MIT
using System.Text;
using System.Text.Json;

namespace Conformance.Targets;

/// <summary>What can be learned from outside of a kernel that does not answer: its processors' registers, and what it still tells its console.</summary>
internal sealed class HangEvidence(QemuProcess qemu, KernelLog log)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(3);

    /// <summary>Magic SysRq keys (Documentation/admin-guide/sysrq.rst) in order, and the line each answers with; the last is there to know that the others are done.</summary>
    private static readonly (char Key, string Answer)[] s_questions =
        [('9', "sysrq: "), ('l', "sysrq: Show backtrace"), ('w', "sysrq: Show Blocked State"), ('h', "sysrq: HELP")];

    /// <summary>Never fails: what could not be learned is said.</summary>
    public async Task<string> CollectAsync()
    {
        StringBuilder evidence = new();
        using CancellationTokenSource patience = new(s_patience);
        LogMark before = log.Here;
        string status = await AskAsync(StatusAsync, patience.Token).ConfigureAwait(false);
        evidence.Append("machine: ").AppendLine(status);
        evidence.AppendLine(await AskAsync(token => qemu.Qmp.HumanAsync("info registers -a", token), patience.Token).ConfigureAwait(false));
        if (status == "running")
        {
            evidence.Append("console: ").AppendLine(await AskAsync(AskKernelAsync, patience.Token).ConfigureAwait(false));
            evidence.Append(log.TextSince(before));
        }

        return evidence.ToString();
    }

    private static async Task<string> AskAsync(Func<CancellationToken, Task<string>> question, CancellationToken cancellation)
    {
        try
        {
            return await question(cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or QmpException)
        {
            return $"no answer ({e.Message})";
        }
    }

    private async Task<string> StatusAsync(CancellationToken cancellation)
    {
        JsonElement status = await qemu.Qmp.ExecuteAsync("query-status", null, cancellation).ConfigureAwait(false);
        return status.GetProperty("status").GetString() ?? "";
    }

    /// <summary>A break on the serial line makes the next character a SysRq key.</summary>
    private async Task<string> AskKernelAsync(CancellationToken cancellation)
    {
        foreach ((char key, string answer) in s_questions)
        {
            Task seen = log.WaitForAsync(answer, cancellation);
            await qemu.Qmp.ExecuteAsync("chardev-send-break", json => json.WriteString("id", "console"), cancellation).ConfigureAwait(false);
            await qemu.Console.WriteAsync(new[] { (byte)key }, cancellation).ConfigureAwait(false);
            await seen.ConfigureAwait(false);
        }

        return "answers to SysRq";
    }
}

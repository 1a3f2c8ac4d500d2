// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Net.Http.Json;
using System.Net.WebSockets;
using System.Text.Json.Nodes;
using Conformance.Harness.Tests.Wire;

namespace Conformance.Harness.Tests.Results;

/// <summary>A page in a Chromium of this machine, headless, spoken to over its debugging port.</summary>
internal sealed class Browser : IAsyncDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TemporaryFolder _profile;
    private readonly ClientWebSocket _socket = new();
    private readonly Process _process;
    private int _last;

    private Browser(Process process, TemporaryFolder profile)
    {
        _process = process;
        _profile = profile;
    }

    /// <summary>The program; null when there is none.</summary>
    public static string? Program { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .SelectMany(d => new[] { "chromium", "chromium-browser", "google-chrome" }.Select(n => Path.Combine(d, n))).FirstOrDefault(File.Exists);

    /// <summary>What the page complained of: exceptions, errors on its console, resources that were not there.</summary>
    public List<string> Complaints { get; } = [];

    public static async Task<Browser> StartAsync()
    {
        TemporaryFolder profile = new();
        ProcessStartInfo start = new(Path.Combine(LocalAgent.Build, "tether"))
        {
            RedirectStandardInput = true,
            RedirectStandardError = true,
            RedirectStandardOutput = true,
            ArgumentList =
            {
                Program!, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--disable-background-networking", "--disable-breakpad",
                "--remote-debugging-port=0", $"--user-data-dir={profile.Path}", "--window-size=1200,900", "about:blank",
            },
        };
        Browser browser = new(Process.Start(start)!, profile);
        try
        {
            await browser.ConnectAsync();
            return browser;
        }
        catch
        {
            await browser.DisposeAsync();
            throw;
        }
    }

    private async Task ConnectAsync()
    {
        using CancellationTokenSource patience = new(s_patience);
        string? line;
        do
        {
            line = await _process.StandardError.ReadLineAsync(patience.Token) ?? throw new InvalidOperationException($"{Program} ended before it listened.");
        }
        while (!line.Contains("DevTools listening on ", StringComparison.Ordinal));

        // A full pipe would stop it. Nobody waits for the ends of these: a helper that outlives the browser holds them open.
        _ = _process.StandardOutput.BaseStream.CopyToAsync(Stream.Null, CancellationToken.None);
        _ = _process.StandardError.BaseStream.CopyToAsync(Stream.Null, CancellationToken.None);
        Uri listening = new(line[(line.IndexOf("ws://", StringComparison.Ordinal))..]);
        using HttpClient http = new();
        JsonArray pages = (await http.GetFromJsonAsync<JsonArray>($"http://127.0.0.1:{listening.Port}/json/list", patience.Token))!;
        await _socket.ConnectAsync(new Uri(pages.First(p => (string?)p!["type"] == "page")!["webSocketDebuggerUrl"]!.GetValue<string>()), patience.Token);
        foreach (string domain in new[] { "Page", "Runtime", "Log" })
        {
            await CallAsync($"{domain}.enable");
        }
    }

    public async Task OpenAsync(string file)
    {
        Complaints.Clear();
        await CallAsync("Page.navigate", new JsonObject { ["url"] = "file://" + file }, until: "Page.loadEventFired");
    }

    public Task ScriptsAsync(bool on) => CallAsync("Emulation.setScriptExecutionDisabled", new JsonObject { ["value"] = !on });

    public Task MediaAsync(string media, string scheme = "light") => CallAsync("Emulation.setEmulatedMedia", new JsonObject
    {
        ["media"] = media,
        ["features"] = new JsonArray(new JsonObject { ["name"] = "prefers-color-scheme", ["value"] = scheme }),
    });

    public Task WidthAsync(int width) => CallAsync("Emulation.setDeviceMetricsOverride", new JsonObject { ["width"] = width, ["height"] = 900, ["deviceScaleFactor"] = 1, ["mobile"] = false });

    public async Task PressAsync(string key, int code)
    {
        foreach (string type in new[] { "rawKeyDown", "char", "keyUp" })
        {
            JsonObject pressed = new() { ["type"] = type, ["key"] = key, ["code"] = key, ["windowsVirtualKeyCode"] = code };
            if (type != "char")
            {
                await CallAsync("Input.dispatchKeyEvent", pressed);
            }
            else if (key == "Enter")
            {
                pressed["text"] = "\r";
                await CallAsync("Input.dispatchKeyEvent", pressed);
            }
        }
    }

    /// <summary>The value of an expression, as text.</summary>
    public async Task<string> AskAsync(string expression)
    {
        JsonNode answer = await CallAsync("Runtime.evaluate", new JsonObject { ["expression"] = $"String({expression})", ["returnByValue"] = true });
        return answer["result"]!["value"]?.GetValue<string>() ?? throw new InvalidOperationException($"{expression}: {answer["exceptionDetails"]?.ToJsonString()}");
    }

    public async Task ShootAsync(string file) =>
        await File.WriteAllBytesAsync(file, Convert.FromBase64String((await CallAsync("Page.captureScreenshot", new JsonObject { ["format"] = "png" }))["data"]!.GetValue<string>()));

    public async ValueTask DisposeAsync()
    {
        _socket.Dispose();
        _process.StandardInput.Close();
        await _process.WaitForExitAsync();
        _process.Dispose();
        try
        {
            _profile.Dispose();
        }
        catch (IOException)
        {
            // A helper of the browser may still be writing there.
        }
    }

    private async Task<JsonNode> CallAsync(string method, JsonObject? parameters = null, string? until = null)
    {
        int id = ++_last;
        using CancellationTokenSource patience = new(s_patience);
        byte[] request = System.Text.Encoding.UTF8.GetBytes(new JsonObject { ["id"] = id, ["method"] = method, ["params"] = parameters ?? [] }.ToJsonString());
        await _socket.SendAsync(request, WebSocketMessageType.Text, true, patience.Token);
        JsonNode? result = null;
        bool reached = until is null;
        while (result is null || !reached)
        {
            JsonNode message = await ReadAsync(patience.Token);
            if ((int?)message["id"] == id)
            {
                result = message["result"] ?? throw new InvalidOperationException($"{method}: {message.ToJsonString()}");
            }

            reached |= (string?)message["method"] == until;
            Note(message);
        }

        return result;
    }

    private void Note(JsonNode message)
    {
        bool bad = (string?)message["method"] switch
        {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => (string?)message["params"]!["type"] is "error" or "assert",
            "Log.entryAdded" => (string?)message["params"]!["entry"]!["level"] == "error",
            _ => false,
        };
        if (bad)
        {
            Complaints.Add(message["params"]!.ToJsonString());
        }
    }

    private async Task<JsonNode> ReadAsync(CancellationToken cancellation)
    {
        using MemoryStream text = new();
        byte[] part = new byte[65536];
        WebSocketReceiveResult received;
        do
        {
            received = await _socket.ReceiveAsync(part, cancellation);
            text.Write(part, 0, received.Count);
        }
        while (!received.EndOfMessage);
        return JsonNode.Parse(text.ToArray())!;
    }
}

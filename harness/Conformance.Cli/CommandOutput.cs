// SPDX-License-Identifier: MIT
namespace Conformance.Cli;

/// <summary>Where a command writes, and what it may assume about who reads.</summary>
/// <param name="Out">Results.</param>
/// <param name="Error">Everything else.</param>
/// <param name="Interactive">Whether <paramref name="Out"/> is a terminal that may be redrawn.</param>
/// <param name="Width">Columns of the terminal.</param>
/// <param name="Colour">Whether colours are welcome.</param>
internal sealed record CommandOutput(TextWriter Out, TextWriter Error, bool Interactive, int Width, bool Colour)
{
    private const int WidthWithoutTerminal = 100;

    public static CommandOutput OfThisProcess()
    {
        // A CI log and a dumb terminal show redrawn lines as rubbish.
        bool interactive = !Console.IsOutputRedirected
            && Environment.GetEnvironmentVariable("TERM") is { Length: > 0 } and not "dumb"
            && Environment.GetEnvironmentVariable("CI") is null or "" or "false";
        bool colour = interactive && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"));
        int width = interactive ? Console.WindowWidth : WidthWithoutTerminal;
        return new CommandOutput(Console.Out, Console.Error, interactive, width > 0 ? width : WidthWithoutTerminal, colour);
    }
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.RegularExpressions;
using Conformance.Guests;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Guests;

/// <summary>The numbers the harness uses are those the guests were compiled with.</summary>
public sealed partial class GuestLayoutTests
{
    private static readonly string s_guests = Path.GetFullPath(Path.Combine(Path.GetDirectoryName(ThisFile())!, "../../../guests"));

    private static readonly (Type Type, string Prefix)[] s_mirrored =
    [
        (typeof(GuestProtocol), ""),
        (typeof(GuestOp), "OP_"),
        (typeof(CallOut), "CALLOUT_"),
        (typeof(GuestState), "STATE_"),
        (typeof(CommandStatus), "STATUS_"),
        (typeof(LogRecordKind), "RECORD_"),
        (typeof(Comparison), "CONDITION_"),
        (typeof(LockedOperation), "RMW_"),
        (typeof(HypercallInstruction), "HYPERCALL_"),
        (typeof(ActionKind), "ACTION_"),
        (typeof(CommandFlag), ""),
        (typeof(PolicyBit), ""),
        (typeof(GuestLayout), "LAYOUT_"),
    ];

    // C# has words where the header has a number's whole name, and the other way round.
    private static readonly Dictionary<string, string> s_otherNames = new()
    {
        ["LAYOUT_SMALL_TABLES32"] = "LAYOUT_SMALL_TABLES_32",
        ["LAYOUT_AREA_GDT"] = "AREA_GDT",
        ["LAYOUT_AREA_TSS"] = "AREA_TSS",
        ["LAYOUT_AREA_STACK_END"] = "AREA_STACK_END",
        ["LAYOUT_SEL_KERNEL_CODE"] = "SEL_KERNEL_CODE",
        ["LAYOUT_SEL_KERNEL_DATA"] = "SEL_KERNEL_DATA",
        ["LAYOUT_SEL_TSS"] = "SEL_TSS",
        ["LAYOUT_GDT_LIMIT"] = "GDT_LIMIT",
        ["LAYOUT_TSS_LIMIT"] = "TSS_LIMIT",
    };

    private static readonly (string C, ulong Value)[] s_named =
    [
        ("XEN_32BIT", (ulong)XenUpcall.Layout32),
        ("XEN_KEEP_UPCALL", (ulong)XenUpcall.KeepUpcallPending),
        ("XEN_KEEP_SELECTOR", (ulong)XenUpcall.KeepSelector),
        ("XEN_KEEP_PENDING", (ulong)XenUpcall.KeepPending),
        ("XEN_MASK_PORTS", (ulong)XenUpcall.MaskPorts),
        ("HYPERCALL_CPL3", (ulong)HypercallMode.User64),
        ("HYPERCALL_32BIT", (ulong)HypercallMode.Kernel32),
        ("sizeof(struct control)", GuestProtocol.ControlSize),
        ("sizeof(struct record)", GuestProtocol.RecordSize),
        ("sizeof(struct command)", GuestProtocol.CommandSize),
        ("sizeof(struct action)", GuestProtocol.ActionSize),
        ("sizeof(struct image_header)", GuestProtocol.HeaderSize),
        ("offsetof(struct control, records)", GuestLayout.Records(0) - GuestLayout.Areas),
    ];

    [Fact]
    public void EveryNumberEqualsTheGuestsHeaders()
    {
        string program = Program();
        program.Should().Contain("OP_HALT_UNTIL == 13").And.Contain("LAYOUT_SCRATCH == 16777216");
        Compile(program).Should().BeEmpty("guests/lib/protocol.h, guests/x86/layout.h and Guests/ must agree");
    }

    [Fact]
    public void AWrongNumberDoesNotCompile() =>
        Compile(Program().Replace("OP_HALT_UNTIL == 13", "OP_HALT_UNTIL == 14")).Should().Contain("static assertion failed");

    [Theory]
    [InlineData("OP_", typeof(GuestOp))]
    [InlineData("CALLOUT_", typeof(CallOut))]
    [InlineData("STATE_", typeof(GuestState))]
    [InlineData("STATUS_", typeof(CommandStatus))]
    [InlineData("RECORD_", typeof(LogRecordKind))]
    [InlineData("ACTION_", typeof(ActionKind))]
    public void EveryNumberOfTheHeaderHasItsName(string prefix, Type type)
    {
        string header = File.ReadAllText(Path.Combine(s_guests, "lib/protocol.h"));
        IEnumerable<string> inHeader = Define().Matches(header).Select(m => m.Groups[1].Value)
            .Where(n => n.StartsWith(prefix, StringComparison.Ordinal) && n is not ("CALLOUT_PORT" or "CALLOUT_ADDRESS"));
        inHeader.Should().BeEquivalentTo(Enum.GetNames(type).Select(n => prefix + CName(n)));
    }

    [Fact]
    public void AreasAreAlignedToTheirSize()
    {
        for (int n = 0; n < 112; n++)
        {
            (GuestLayout.Area(n) % GuestProtocol.AreaSize).Should().Be(0);
        }

        FluentActions.Invoking(() => GuestLayout.Area(112)).Should().Throw<ArgumentOutOfRangeException>();
        FluentActions.Invoking(() => GuestLayout.Area(-1)).Should().Throw<ArgumentOutOfRangeException>();
    }

    [Fact]
    public void AVcpuStartsInTheModeOfItsImage()
    {
        kvm_sregs sregs = new() { apic_base = 0xfee00900 };
        kvm_regs regs = default;
        GuestLayout.X86_64.Start(1, ref sregs, ref regs);
        (sregs.cs.l, sregs.cs.db, sregs.efer, sregs.cr3, sregs.apic_base).Should().Be((1, 0, 0x500, GuestLayout.PageTables, 0xfee00900));
        (regs.rip, regs.rdi, regs.rsi, regs.rsp).Should().Be((GuestLayout.Entry, 0x220000, 1, 0x230000));

        GuestLayout.X86_32.Start(0, ref sregs, ref regs);
        (sregs.cs.l, sregs.cs.db, sregs.efer, sregs.cr0 >> 31).Should().Be((0, 1, 0, 0));
        (regs.rbx, regs.rcx).Should().Be((0x200000, 0));

        GuestLayout.X86_32Paging.Start(0, ref sregs, ref regs);
        (sregs.efer, sregs.cr0 >> 31).Should().Be((0, 1));
    }

    [Fact]
    public void AnImageOfAnotherVersionIsRefused()
    {
        var image = new byte[64];
        FluentActions.Invoking(() => GuestImage.Parse(image)).Should().Throw<InvalidDataException>().WithMessage("*CFG1*");
        "CFG1"u8.CopyTo(image);
        image[4] = 2;
        FluentActions.Invoking(() => GuestImage.Parse(image)).Should().Throw<InvalidDataException>().WithMessage("*version 2*");
    }

    private static string Program()
    {
        var c = new StringBuilder("#include \"protocol.h\"\n#include \"layout.h\"\n");
        foreach ((Type type, string prefix) in s_mirrored)
        {
            IEnumerable<(string Name, ulong Value)> numbers = type.IsEnum
                ? Enum.GetValues(type).Cast<object>().Select(v => (v.ToString()!, Convert.ToUInt64(v, CultureInfo.InvariantCulture)))
                : type.GetFields(BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Static).Where(f => f.IsLiteral && !f.IsPrivate && !f.Name.EndsWith("Size", StringComparison.Ordinal))
                    .Select(f => (f.Name, Convert.ToUInt64(f.GetRawConstantValue(), CultureInfo.InvariantCulture)));
            foreach ((string name, ulong value) in numbers)
            {
                string macro = prefix + CName(name);
                macro = s_otherNames.GetValueOrDefault(macro, macro);
                c.AppendLine(CultureInfo.InvariantCulture, $"_Static_assert({macro} == {value}, \"{macro}\");");
            }
        }

        foreach ((string name, ulong value) in s_named)
        {
            c.AppendLine(CultureInfo.InvariantCulture, $"_Static_assert({name} == {value}, \"{name}\");");
        }

        return c.ToString();
    }

    private static string CName(string name) => Hump().Replace(name, "_$1").ToUpperInvariant();

    private static string Compile(string program)
    {
        var start = new ProcessStartInfo("gcc", ["-x", "c", "-std=gnu11", "-Wall", "-Werror", "-ffreestanding", "-fsyntax-only", $"-I{s_guests}/lib", $"-I{s_guests}/x86", "-"])
        {
            RedirectStandardInput = true,
            RedirectStandardError = true,
        };
        using Process gcc = Process.Start(start)!;
        gcc.StandardInput.Write(program);
        gcc.StandardInput.Close();
        string errors = gcc.StandardError.ReadToEnd();
        gcc.WaitForExit();
        return errors;
    }

    private static string ThisFile([CallerFilePath] string path = "") => path;

    [GeneratedRegex(@"^#define\s+(\w+)", RegexOptions.Multiline)]
    private static partial Regex Define();

    [GeneratedRegex(@"(?<=[a-z0-9])([A-Z])")]
    private static partial Regex Hump();
}

// SPDX-License-Identifier: MIT
using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using Conformance.Uapi;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Uapi;

/// <summary>Every structure and constant of Uapi/ equals the machine's kernel headers: a generated C program of static assertions compiles.</summary>
public sealed class LayoutTests
{
    private static readonly string[] s_headers = ["errno.h", "linux/hw_breakpoint.h", "linux/kvm.h", "linux/perf_event.h", "linux/userfaultfd.h", "linux/vfio.h", "sys/syscall.h", "stddef.h"];

    [Fact]
    public void EveryLayoutAndConstantEqualsTheKernelHeaders()
    {
        string program = Program();
        program.Should().Contain("sizeof(struct kvm_irqfd) == 32").And.Contain("KVM_XEN_HVM_EVTCHN_SEND == 0x400caed0");
        Compile(program).Should().BeEmpty("the headers and Uapi/ must agree");
    }

    [Fact]
    public void EveryLayoutAndConstantEqualsTheArm64Headers()
    {
        const string Compiler = "aarch64-linux-gnu-gcc";
        bool present = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(Path.Combine(folder, Compiler)));
        Assert.SkipUnless(present, $"{Compiler} is not installed");
        Compile(Program("aarch64"), Compiler).Should().BeEmpty("the headers and Uapi/ must agree");
    }

    [Theory]
    [InlineData("sizeof(struct kvm_irqfd) == 32", "sizeof(struct kvm_irqfd) == 31")]
    [InlineData("offsetof(struct kvm_msi, devid) == 16", "offsetof(struct kvm_msi, devid) == 20")]
    [InlineData("KVM_IRQFD == 0x4020ae76", "KVM_IRQFD == 0x4020ae77")]
    public void AWrongLayoutDoesNotCompile(string right, string wrong)
    {
        string program = Program();
        program.Should().Contain(right);
        Compile(program.Replace(right, wrong)).Should().Contain("static assertion failed");
    }

    private static string Program(string machine = "x86_64")
    {
        var c = new StringBuilder();
        foreach (string header in s_headers)
        {
            c.AppendLine($"#include <{header}>");
        }

        // asm/kvm.h counts in it, and linux/sizes.h is not exported.
        c.AppendLine("#define SZ_64K 0x10000");
        foreach (Type type in typeof(KvmIoctl).Assembly.GetTypes()
            .Where(t => t.Namespace == "Conformance.Uapi" && t.GetCustomAttribute<CHeaderAttribute>() is not null)
            .OrderBy(t => t.Name, StringComparer.Ordinal))
        {
            if (type.GetCustomAttribute<CHeaderAttribute>()!.Only is string only && only != machine)
            {
                continue;
            }

            if (type.IsEnum)
            {
                foreach (object value in Enum.GetValues(type))
                {
                    Constant(c, value.ToString()!, Convert.ToUInt64(value));
                }
            }
            else if (type.IsValueType)
            {
                Structure(c, type);
            }
            else
            {
                foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Static))
                {
                    object value = field.GetValue(null)!;
                    Constant(c, field.Name, value is Ioctl ioctl ? ioctl.Number : Convert.ToUInt64(value));
                }
            }
        }

        foreach (PropertyInfo call in typeof(SystemCalls).GetProperties(BindingFlags.Public | BindingFlags.Instance))
        {
            string name = string.Concat(call.Name.Select((ch, i) => i > 0 && char.IsUpper(ch) ? "_" + char.ToLowerInvariant(ch) : char.ToLowerInvariant(ch).ToString()));
            c.AppendLine($"_Static_assert(SYS_{name} == {call.GetValue(machine == "x86_64" ? SystemCalls.X86_64 : SystemCalls.Arm64)}, \"{name}\");");
        }

        foreach (KvmCap cap in Enum.GetValues<KvmCap>())
        {
            Constant(c, cap.CName(), (ulong)cap);
        }

        return c.ToString();
    }

    private static void Constant(StringBuilder c, string name, ulong value)
    {
        if (name == "None")
        {
            return;
        }

        // Headers older than an addition do not know it: the rule is equality where both do.
        c.AppendLine($"#ifdef {name}\n_Static_assert({name} == 0x{value:x}, \"{name}\");\n#endif");
    }

    private static void Structure(StringBuilder c, Type type)
    {
        string name = $"struct {type.Name}";
        // Only their heads are mirrored, and they grow with releases.
        if (type.Name is not ("kvm_run" or "perf_event_attr"))
        {
            c.AppendLine($"_Static_assert(sizeof({name}) == {Marshal.SizeOf(type)}, \"{name}\");");
        }

        foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Instance))
        {
            var named = field.GetCustomAttribute<CFieldAttribute>();
            string path = named?.Path ?? field.Name;
            int offset = (int)Marshal.OffsetOf(type, field.Name);
            string assertion = $"_Static_assert(offsetof({name}, {path}) == {offset}, \"{name}.{path}\");";
            c.AppendLine(named?.Since is string since ? $"#ifdef {since}\n{assertion}\n#endif" : assertion);
        }
    }

    private static string Compile(string program, string compiler = "gcc")
    {
        var start = new ProcessStartInfo(compiler, "-x c -std=gnu11 -Wall -Werror -fsyntax-only -")
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
}

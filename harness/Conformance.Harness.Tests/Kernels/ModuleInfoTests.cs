// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class ModuleInfoTests
{
    [Fact]
    public void ModuleTellsItsNameReleaseAndNeeds()
    {
        byte[] module = TinyModule.Build("kvm_amd", "6.12.1", depends: "kvm,ccp", more: ["softdep=pre: irqbypass post: vfio-pci", "softdep=pre: msr"]);

        ModuleInfo info = ModuleInfo.Parse(module);

        info.Name.Should().Be("kvm_amd");
        info.Release.Should().Be("6.12.1");
        info.Vermagic.Should().Be("6.12.1 SMP preempt mod_unload modversions");
        info.Machine.Should().Be(62);
        info.Depends.Should().Equal("kvm", "ccp");
        info.LoadBefore.Should().Equal("irqbypass", "msr");
        info.LoadAfter.Should().Equal("vfio_pci");
    }

    [Fact]
    public void ModuleOnItsOwnNeedsNothing() => ModuleInfo.Parse(TinyModule.Build("msr", "6.1")).Depends.Should().BeEmpty();

    [Fact]
    public void LayoutOfStructModuleIsRead() =>
        ModuleInfo.Parse(TinyModule.BuildWithStructModule("kvm", "6.12.1", 0x500, 0x138)).Layout.Should().Be(new StructModule(0x500, 0x138, null));

    [Theory]
    [InlineData(0x500, 0x138ul, true)]
    [InlineData(0x500, null, true)]
    [InlineData(0x4c0, 0x138ul, false)]
    [InlineData(0x500, 0x130ul, false)]
    public void LayoutFitsWhereBothAgree(int size, ulong? init, bool fits) =>
        new StructModule(0x500, 0x138, 0x4b0).Fits(new StructModule(size, init, null)).Should().Be(fits);

    [Theory]
    [MemberData(nameof(OtherFiles))]
    public void AnythingElseIsNamedForWhatItIs(byte[] file, string message)
    {
        Action parse = () => ModuleInfo.Parse(file);

        parse.Should().Throw<InvalidDataException>().WithMessage(message);
    }

    public static TheoryData<byte[], string> OtherFiles()
    {
        byte[] program = TinyModule.Build("x", "1");
        program[16] = 2;
        byte[] narrow = TinyModule.Build("x", "1");
        narrow[4] = 1;
        byte[] module = TinyModule.Build("x", "1");
        return new()
        {
            { [], "is not an ELF file" },
            { "#!/bin/sh and some more text so that it is longer than an ELF header"u8.ToArray(), "is not an ELF file" },
            { program, "*not a relocatable one*" },
            { narrow, "is not a 64-bit little-endian ELF file" },
            { TinyModule.Elf(62, (".text", 6, [1])), "*no .modinfo section*" },
            { module[..^200], "is a truncated or damaged ELF file" },
        };
    }
}

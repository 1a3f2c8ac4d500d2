// SPDX-License-Identifier: MIT
using Conformance.Kernels;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Kernels;

public sealed class AptSourceTests
{
    private const string Keyring = "/proc/version"; // Any file that is there.

    [Fact]
    public void Deb822NamesTheMirror()
    {
        IReadOnlyList<AptSource> sources = [.. AptSource.ParseDeb822("""
            # The comment is skipped.
            Types: deb deb-src
            URIs: http://mirror.example/debian
            Suites: bookworm bookworm-updates
            Components: main contrib
            Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

            Types: deb
            URIs: http://mirror.example/debian-security/
            Suites: bookworm-security
            Components: main
            """)];

        AptSource.FindMirror(sources, security: false)!.Uri.Should().Be("http://mirror.example/debian/");
        AptSource.FindMirror(sources, security: true)!.Uri.Should().Be("http://mirror.example/debian-security/");
    }

    [Fact]
    public void OneLineFormNamesTheMirror()
    {
        IReadOnlyList<AptSource> sources = [.. AptSource.ParseList("""
            # deb http://commented.example/debian bookworm main
            deb [arch=amd64 signed-by=/etc/key.gpg] https://mirror.example/debian bookworm main non-free # trailing
            deb-src http://source.example/debian bookworm main
            deb http://mirror.example/debian-security bookworm-security main
            deb http://old.example/debian-security buster/updates main
            """)];

        AptSource main = AptSource.FindMirror(sources, security: false)!;
        main.Uri.Should().Be("https://mirror.example/debian/");
        main.Options.Should().Equal(new Dictionary<string, string> { ["signed-by"] = "/etc/key.gpg" });
        AptSource.FindMirror(sources, security: true)!.Uri.Should().Be("http://mirror.example/debian-security/");
    }

    [Fact]
    public void ThirdPartyWithDebiansSuiteNamesIsNotTheMirror()
    {
        IReadOnlyList<AptSource> sources =
        [
            .. AptSource.ParseList("deb https://packages.example/vendor/12/prod bookworm main"),
            .. AptSource.ParseList("deb https://mirror.example/debian bookworm main"),
            .. AptSource.ParseList("deb https://deb.nodesource.com/node_20.x nodistro main"),
        ];

        AptSource.FindMirror(sources, security: false)!.Uri.Should().Be("https://mirror.example/debian/");
    }

    [Theory]
    [InlineData("Enabled: no\nTypes: deb\nURIs: http://m/debian\nSuites: sid\nComponents: main\n")]
    [InlineData("Types: deb-src\nURIs: http://m/debian\nSuites: sid\nComponents: main\n")]
    [InlineData("Types: deb\nURIs: http://m/debian\nSuites: noble\nComponents: main\n")]
    [InlineData("Types: deb\nURIs: http://m/debian\nSuites: sid\nComponents: contrib\n")]
    public void SourceThatServesNoDebianIsPassedOver(string text) =>
        AptSource.FindMirror(AptSource.ParseDeb822(text), security: false).Should().BeNull();

    [Fact]
    public void FilesAreReadAsAptReadsThem()
    {
        using TemporaryFolder folder = new();
        Directory.CreateDirectory(folder["sources.list.d"]);
        File.WriteAllText(folder["sources.list"], "deb http://one/debian sid main\n");
        File.WriteAllText(folder["sources.list.d/two.list"], "deb http://two/debian sid main\n");
        File.WriteAllText(folder["sources.list.d/three.sources"], "Types: deb\nURIs: http://three/debian\nSuites: sid\nComponents: main\n");
        File.WriteAllText(folder["sources.list.d/four.sources.disabled"], "Types: deb\nURIs: http://four/debian\nSuites: sid\nComponents: main\n");

        AptSource.ReadAll(folder.Path).Select(s => s.Uri).Should().Equal("http://one/debian/", "http://three/debian/", "http://two/debian/");
    }

    [Fact]
    public void MachineWithoutADebianMirrorIsToldToNameOne()
    {
        Action sources = () => AptArchive.Sources([], Keyring);
        sources.Should().Throw<MachineFaultException>().Which.Message.Should().Contain("no Debian mirror");
    }

    [Fact]
    public void TrustOfTheMachinesMirrorIsCarriedOver()
    {
        string text = AptArchive.Sources([.. AptSource.ParseList("deb [trusted=yes signed-by=/etc/corp.gpg] http://corp/debian sid main")], Keyring);

        text.Should().StartWith("Types: deb\nURIs: http://corp/debian/\n").And.Contain("signed-by: /etc/corp.gpg\n").And.Contain("trusted: yes\n");
        text.Split("\n\n")[0].Should().NotContain(Keyring);
    }

    [Fact]
    public void InlineKeyKeepsItsLines()
    {
        string text = AptArchive.Sources([.. AptSource.ParseDeb822("Types: deb\nURIs: http://corp/debian\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n")], Keyring);

        text.Should().Contain("Signed-By: \n -----BEGIN\n .\n abc\n");
    }
}

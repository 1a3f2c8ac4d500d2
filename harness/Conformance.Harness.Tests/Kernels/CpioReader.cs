// SPDX-License-Identifier: MIT
using System.Globalization;
using System.Text;

namespace Conformance.Harness.Tests.Kernels;

internal sealed record CpioEntry(string Name, uint Inode, uint Mode, uint Links, uint Time, uint Major, uint Minor, byte[] Content);

/// <summary>Reads a newc archive, strictly: fixed header of thirteen hexadecimal fields, names and data padded to four bytes.</summary>
internal static class CpioReader
{
    public static IReadOnlyList<CpioEntry> Read(byte[] archive)
    {
        List<CpioEntry> entries = [];
        int at = 0;
        while (true)
        {
            if (Encoding.ASCII.GetString(archive, at, 6) != "070701")
            {
                throw new InvalidDataException($"no header at {at}");
            }

            uint[] fields = [.. Enumerable.Range(0, 13).Select(i => uint.Parse(Encoding.ASCII.GetString(archive, at + 6 + (i * 8), 8), NumberStyles.AllowHexSpecifier))];
            int nameSize = (int)fields[11];
            string name = Encoding.UTF8.GetString(archive, at + 110, nameSize - 1);
            if (archive[at + 110 + nameSize - 1] != 0)
            {
                throw new InvalidDataException($"name at {at} does not end");
            }

            int content = Align(at + 110 + nameSize);
            if (name == "TRAILER!!!")
            {
                return entries;
            }

            entries.Add(new CpioEntry(name, fields[0], fields[1], fields[4], fields[5], fields[9], fields[10], archive[content..(content + (int)fields[6])]));
            at = Align(content + (int)fields[6]);
        }
    }

    private static int Align(int position) => (position + 3) & ~3;
}

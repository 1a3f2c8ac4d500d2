// SPDX-License-Identifier: MIT

namespace Conformance.Kernels;

/// <summary>The loadable modules of one kernel, where they lie, and what is built in.</summary>
internal sealed class ModuleTree
{
    private ModuleTree(string directory, IReadOnlyDictionary<string, string> files, IReadOnlySet<string> listed, IReadOnlySet<string>? builtIn)
    {
        Directory = directory;
        Files = files;
        Listed = listed;
        BuiltIn = builtIn;
    }

    /// <summary>A kernel without any.</summary>
    public static ModuleTree Empty { get; } =
        new("", new Dictionary<string, string>(), new HashSet<string>(), builtIn: null);

    /// <summary>Where it was read from; empty for <see cref="Empty"/>.</summary>
    public string Directory { get; }

    /// <summary>Canonical name to the path of a .ko file, perhaps compressed.</summary>
    public IReadOnlyDictionary<string, string> Files { get; }

    /// <summary>Every module the kernel was built with, also those whose files are not here (modules.order).</summary>
    public IReadOnlySet<string> Listed { get; }

    /// <summary>What is part of the image (modules.builtin); null when that is not known.</summary>
    public IReadOnlySet<string>? BuiltIn { get; }

    /// <summary>Reads <c>/lib/modules/RELEASE</c>, or what <c>make modules_install</c> or a package put in its place.</summary>
    public static ModuleTree ReadInstalled(string directory)
    {
        // depmod has decided which of two files of one name counts; where it has not run, updates/ comes before the rest.
        Dictionary<string, string> files = new(StringComparer.Ordinal);
        foreach (string line in Lines(directory, "modules.dep"))
        {
            int colon = line.IndexOf(':');
            if (colon > 0)
            {
                string path = Path.Combine(directory, line[..colon]);
                if (File.Exists(path))
                {
                    files.TryAdd(ModuleName.Canonical(path), path);
                }
            }
        }

        foreach (string path in Find(directory).OrderBy(p => !Path.GetRelativePath(directory, p).StartsWith("updates", StringComparison.Ordinal)).ThenBy(p => p, StringComparer.Ordinal))
        {
            files.TryAdd(ModuleName.Canonical(path), path);
        }

        return Create(directory, files);
    }

    /// <summary>Reads a build tree: the modules lie where they were linked.</summary>
    public static ModuleTree ReadBuildTree(string directory)
    {
        Dictionary<string, string> files = new(StringComparer.Ordinal);
        foreach (string line in Lines(directory, "modules.order"))
        {
            // kernel/fs/ext4/ext4.ko up to 6.2, fs/ext4/ext4.o since.
            string relative = line.StartsWith("kernel/", StringComparison.Ordinal) && !File.Exists(Path.Combine(directory, line)) ? line["kernel/".Length..] : line;
            string path = Path.Combine(directory, Path.ChangeExtension(relative, ".ko"));
            if (File.Exists(path))
            {
                files.TryAdd(ModuleName.Canonical(path), path);
            }
        }

        if (files.Count == 0)
        {
            foreach (string path in Find(directory).Order(StringComparer.Ordinal))
            {
                files.TryAdd(ModuleName.Canonical(path), path);
            }
        }

        return Create(directory, files);
    }

    /// <summary>
    /// Finds the module directory a user meant: itself, or the one for <paramref name="release"/> below it
    /// (<c>/lib/modules</c>, or what INSTALL_MOD_PATH named).
    /// </summary>
    /// <exception cref="UsageException">There are no modules in it, or only some for other releases.</exception>
    public static ModuleTree Locate(string directory, string? release)
    {
        string[] parents =
        [
            Path.Combine(directory, "lib", "modules"),
            Path.Combine(directory, "usr", "lib", "modules"),
            directory,
        ];
        List<string> others = [];
        if (!IsModuleDirectory(directory))
        {
            foreach (string parent in parents.Where(System.IO.Directory.Exists))
            {
                string[] candidates = [.. System.IO.Directory.EnumerateDirectories(parent).Where(IsModuleDirectory).Order(StringComparer.Ordinal)];
                if (candidates.FirstOrDefault(c => Path.GetFileName(c) == release) is { } exact)
                {
                    return ReadInstalled(exact);
                }

                if (release is null && candidates.Length == 1)
                {
                    return ReadInstalled(candidates[0]);
                }

                others.AddRange(candidates.Select(c => Path.GetFileName(c)));
            }
        }

        if (others.Count > 0)
        {
            throw new UsageException($"{directory} has modules for {string.Join(", ", others)}, but the kernel is {release ?? "of an unknown release"}. Give the directory of that release.");
        }

        ModuleTree tree = ReadInstalled(directory);
        return tree.Files.Count > 0
            ? tree
            : throw new UsageException($"{directory} holds no modules (*.ko). Give the directory that 'make modules_install' filled, or leave ',modules=' out if everything is built in.");
    }

    /// <summary>Names like <paramref name="name"/>, nearest first, for "did you mean".</summary>
    public IReadOnlyList<string> Near(string name)
    {
        string wanted = ModuleName.Canonical(name);
        return
        [
            .. Files.Keys.Concat(Listed).Distinct()
                .Select(known => (Name: known, Distance: Distance(wanted, known)))
                .Where(c => c.Distance <= Math.Max(2, wanted.Length / 3) || c.Name.Contains(wanted, StringComparison.Ordinal))
                .OrderBy(c => c.Distance)
                .ThenBy(c => c.Name, StringComparer.Ordinal)
                .Take(5)
                .Select(c => c.Name),
        ];
    }

    private static bool IsModuleDirectory(string directory) =>
        File.Exists(Path.Combine(directory, "modules.order"))
        || File.Exists(Path.Combine(directory, "modules.dep"))
        || System.IO.Directory.Exists(Path.Combine(directory, "kernel"));

    private static ModuleTree Create(string directory, Dictionary<string, string> files)
    {
        HashSet<string> listed = [.. Lines(directory, "modules.order").Select(ModuleName.Canonical)];
        string builtIn = Path.Combine(directory, "modules.builtin");
        return new ModuleTree(
            directory,
            files,
            listed,
            File.Exists(builtIn) ? Lines(directory, "modules.builtin").Select(ModuleName.Canonical).ToHashSet(StringComparer.Ordinal) : null);
    }

    private static IEnumerable<string> Lines(string directory, string file)
    {
        string path = Path.Combine(directory, file);
        return File.Exists(path) ? File.ReadLines(path).Select(line => line.Trim()).Where(line => line.Length > 0) : [];
    }

    private static IEnumerable<string> Find(string directory) =>
        System.IO.Directory.EnumerateFiles(
            directory,
            "*.ko*",
            // Not through links: /lib/modules/RELEASE/build leads to a whole kernel tree.
            new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true, AttributesToSkip = FileAttributes.ReparsePoint })
        .Where(ModuleFile.HasModuleName);

    private static int Distance(string a, string b)
    {
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int above = row[j];
                row[j] = Math.Min(Math.Min(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }

        return row[b.Length];
    }
}

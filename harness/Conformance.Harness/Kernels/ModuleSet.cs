// SPDX-License-Identifier: MIT
using System.Security.Cryptography;

namespace Conformance.Kernels;

/// <summary>A module that goes into the initramfs.</summary>
/// <param name="Content">What the kernel loads: uncompressed, without debug information.</param>
/// <param name="Sha256">Of the uncompressed module as it was built.</param>
internal sealed record SelectedModule(string Name, string FileName, byte[] Content, string Sha256, bool Overridden, ModuleInfo Info);

/// <summary>The modules wanted from a kernel with all they need, in an order in which they load.</summary>
internal sealed class ModuleSet
{
    private readonly ModuleTree _tree;
    private readonly Dictionary<string, Override> _overrides;
    private readonly string? _release;
    private readonly KernelArchitecture _architecture;
    private readonly Dictionary<string, SelectedModule> _selected = new(StringComparer.Ordinal);
    private readonly List<SelectedModule> _modules = [];
    private readonly Dictionary<string, IReadOnlyList<string>> _closures = new(StringComparer.Ordinal);
    private readonly HashSet<string> _missing = new(StringComparer.Ordinal);
    private readonly List<string> _notes = [];

    private ModuleSet(ModuleTree tree, Dictionary<string, Override> overrides, string? release, KernelArchitecture architecture)
    {
        _tree = tree;
        _overrides = overrides;
        _release = release;
        _architecture = architecture;
    }

    /// <summary>Each module after those it needs.</summary>
    public IReadOnlyList<SelectedModule> Modules => _modules;

    /// <summary>Root to load order: empty when built in (or when nobody can tell), absent when the kernel does not have it.</summary>
    public IReadOnlyDictionary<string, IReadOnlyList<string>> Closures => _closures;

    /// <summary>Modules the kernel was built with that are needed and whose files are not here.</summary>
    public IReadOnlySet<string> Missing => _missing;

    /// <summary>Roots that could not be had although the kernel has them, and why.</summary>
    public IReadOnlyList<string> Notes => _notes;

    /// <summary>Chooses modules.</summary>
    /// <param name="roots">Wanted names.</param>
    /// <param name="overrides">Module name to a file that takes its place.</param>
    /// <param name="release">The kernel's release, against which every module is checked; null when it is not known.</param>
    /// <exception cref="UsageException">An override, or the module directory, does not fit the kernel.</exception>
    public static async Task<ModuleSet> ResolveAsync(
        ModuleTree tree,
        IEnumerable<string> roots,
        IReadOnlyDictionary<string, string> overrides,
        string? release,
        KernelArchitecture architecture,
        CancellationToken cancellation)
    {
        Dictionary<string, Override> replaced = new(StringComparer.Ordinal);
        foreach ((string name, string path) in overrides)
        {
            string canonical = ModuleName.Canonical(name);
            Override replacement = new($"--module {name}={path}", path);
            CheckOverridable(tree, canonical, replacement);
            if (!replaced.TryAdd(canonical, replacement))
            {
                throw new UsageException($"{replacement.Text}: {canonical} is replaced twice.");
            }
        }

        ModuleSet set = new(tree, replaced, release, architecture);
        foreach (string root in roots.Concat(replaced.Keys).Select(ModuleName.Canonical).Distinct())
        {
            await set.AddRootAsync(root, cancellation).ConfigureAwait(false);
        }

        return set;
    }

    private static void CheckOverridable(ModuleTree tree, string canonical, Override replacement)
    {
        if (!File.Exists(replacement.Path))
        {
            throw new UsageException($"{replacement.Text}: there is no such file.");
        }

        if (tree.BuiltIn?.Contains(canonical) == true)
        {
            throw new UsageException($"{replacement.Text}: {canonical} is built into this kernel, so there is no module to swap. Give the kernel image you built with --kernel instead.");
        }

        if (tree.Files.ContainsKey(canonical) || tree.Listed.Contains(canonical))
        {
            return;
        }

        if (tree.Files.Count == 0 && tree.Listed.Count == 0)
        {
            throw new UsageException($"{replacement.Text}: this kernel came without modules, so there is none to swap. Give its modules too: --kernel IMAGE,modules=DIR.");
        }

        IReadOnlyList<string> near = tree.Near(canonical);
        throw new UsageException(
            near.Count == 0
                ? $"{replacement.Text}: this kernel has no module {canonical}."
                : $"{replacement.Text}: this kernel has no module {canonical}. Did you mean {string.Join(", ", near.Select(n => n + ".ko"))}?");
    }

    private async Task AddRootAsync(string root, CancellationToken cancellation)
    {
        List<string> order = [];
        string? obstacle = await VisitAsync(root, order, [], cancellation).ConfigureAwait(false);
        if (obstacle is not null)
        {
            if (_overrides.TryGetValue(root, out Override? replacement))
            {
                throw new UsageException($"{replacement.Text}: {obstacle}.");
            }

            bool known = _tree.Files.ContainsKey(root) || _tree.Listed.Contains(root);
            if (known)
            {
                _notes.Add($"module {root} is left out: {obstacle}");
            }
            else if (_tree.BuiltIn is null)
            {
                // Nobody can tell: a test that asks the kernel itself will find out.
                _closures[root] = [];
            }

            return;
        }

        _closures[root] = order;
        foreach (string name in order.Where(name => !_modules.Exists(m => m.Name == name)))
        {
            _modules.Add(_selected[name]);
        }
    }

    /// <returns>Null, or why the module cannot be loaded.</returns>
    private async Task<string?> VisitAsync(string name, List<string> order, HashSet<string> visiting, CancellationToken cancellation)
    {
        if (_tree.BuiltIn?.Contains(name) == true || order.Contains(name) || !visiting.Add(name))
        {
            return null;
        }

        if (!_selected.TryGetValue(name, out SelectedModule? module))
        {
            string? path = _overrides.GetValueOrDefault(name)?.Path ?? _tree.Files.GetValueOrDefault(name);
            if (path is null)
            {
                if (_tree.Listed.Contains(name))
                {
                    _missing.Add(name);
                }

                return $"there is no module {name}";
            }

            module = await ReadAsync(name, path, cancellation).ConfigureAwait(false);
            _selected.Add(name, module);
        }

        int mark = order.Count;
        foreach (string dependency in module.Info.LoadBefore)
        {
            await VisitOptionalAsync(dependency, order, visiting, cancellation).ConfigureAwait(false);
        }

        foreach (string dependency in module.Info.Depends)
        {
            if (await VisitAsync(dependency, order, visiting, cancellation).ConfigureAwait(false) is { } obstacle)
            {
                order.RemoveRange(mark, order.Count - mark);
                return $"{name} needs {dependency}, and {obstacle}";
            }
        }

        order.Add(name);
        foreach (string dependency in module.Info.LoadAfter)
        {
            await VisitOptionalAsync(dependency, order, visiting, cancellation).ConfigureAwait(false);
        }

        return null;
    }

    // A soft dependency that is not there, or not usable, is nothing to complain about.
    private async Task VisitOptionalAsync(string name, List<string> order, HashSet<string> visiting, CancellationToken cancellation)
    {
        int mark = order.Count;
        if (await VisitAsync(name, order, visiting, cancellation).ConfigureAwait(false) is not null)
        {
            order.RemoveRange(mark, order.Count - mark);
        }
    }

    private async Task<SelectedModule> ReadAsync(string name, string path, CancellationToken cancellation)
    {
        Override? replacement = _overrides.GetValueOrDefault(name);
        bool overridden = replacement is not null;
        string subject = replacement is null ? path : $"{replacement.Text}: the file";
        byte[] content = await ModuleFile.ReadAsync(path, cancellation).ConfigureAwait(false);
        ModuleInfo info;
        byte[] loaded;
        try
        {
            info = ModuleInfo.Parse(content);
            loaded = DebugInfo.Remove(content);
        }
        catch (InvalidDataException e)
        {
            throw new UsageException($"{subject} {e.Message}.", e);
        }

        if (info.Machine != _architecture.ElfMachine())
        {
            throw new UsageException($"{subject} is for {MachineName(info.Machine)}, but the kernel is {_architecture.Name()}.");
        }

        if (info.Name.Length > 0 && info.Name != name)
        {
            throw new UsageException($"{subject} is the module {info.Name}, not {name}.");
        }

        if (_release is not null && info.Release != _release)
        {
            throw new UsageException(
                $"{subject} is built for {info.Release}, but the kernel is {_release}: it would refuse to load. "
                + (overridden
                    ? "Build it against that release: its .config and Module.symvers, and a localversion file with the rest of the release."
                    : "Give the module directory of that release."));
        }

        if (overridden && _tree.Files.TryGetValue(name, out string? original))
        {
            ModuleInfo stock = ModuleInfo.Parse(await ModuleFile.ReadAsync(original, cancellation).ConfigureAwait(false));
            if (stock.Vermagic != info.Vermagic)
            {
                throw new UsageException($"{subject} is built as '{info.Vermagic}', but the kernel wants '{stock.Vermagic}': it would refuse to load. Build it with the kernel's own .config.");
            }

            if (stock.Layout is { } wanted && info.Layout is { } given && !wanted.Fits(given))
            {
                throw new UsageException(
                    $"{subject} is built for another layout of struct module ({given}) than the kernel has ({wanted}): it would refuse to load. "
                    + "Build it with the kernel's own .config; a common cause is CONFIG_DEBUG_INFO_BTF, which make switches off where pahole is not installed.");
            }
        }

        string fileName = name + ".ko";
        if (_tree.Files.TryGetValue(name, out string? source))
        {
            // The kernel's spelling: kvm-amd.ko.
            string stem = Path.GetFileName(source);
            fileName = stem[..stem.IndexOf(".ko", StringComparison.Ordinal)] + ".ko";
        }

        return new SelectedModule(name, fileName, loaded, Convert.ToHexStringLower(SHA256.HashData(content)), overridden, info);
    }

    private static string MachineName(ushort machine) => machine switch
    {
        3 => "32-bit x86",
        40 => "32-bit Arm",
        62 => "x86_64",
        183 => "arm64",
        243 => "RISC-V",
        _ => $"ELF machine {machine}",
    };

    private sealed record Override(string Text, string Path);
}

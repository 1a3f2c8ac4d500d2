// SPDX-License-Identifier: MIT
using System.Collections.Immutable;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using Conformance.Fixtures;
using Conformance.Kernels;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary>A claim as the suite's assembly declares it; of a theory, all its rows at once.</summary>
/// <param name="Id">The test's id, without a row.</param>
/// <param name="IsTheory">Whether it has rows, known only when it is discovered.</param>
/// <param name="NegativeControl">Whether it must fail.</param>
/// <param name="Clauses">Ids of its clauses.</param>
internal sealed record DeclaredTest(string Id, bool IsTheory, bool NegativeControl, IReadOnlyList<string> Clauses);

/// <summary>
/// A built suite, read from its metadata in a few milliseconds: nothing is loaded, no process is started and no kernel booted
/// to find out that a name is misspelt.
/// </summary>
internal sealed class SuiteAssembly
{
    private SuiteAssembly(
        string executable, string name, string version, IReadOnlyList<KernelArchitecture> architectures, MachineOptions needs, IReadOnlyList<DeclaredTest> tests)
    {
        Needs = needs;
        Executable = executable;
        Name = name;
        Version = version;
        Architectures = architectures;
        Tests = tests;
    }

    public string Executable { get; }

    public string Name { get; }

    public string Version { get; }

    /// <summary>The architectures the suite has claims for.</summary>
    public IReadOnlyList<KernelArchitecture> Architectures { get; }

    /// <summary>The machine it wants for its kernel.</summary>
    public MachineOptions Needs { get; }

    /// <summary>In the order of their ids.</summary>
    public IReadOnlyList<DeclaredTest> Tests { get; }

    /// <summary>Reads every suite of an installation, in the order of their names.</summary>
    /// <param name="installation">The installation.</param>
    /// <exception cref="MachineFaultException">A suite is not built.</exception>
    public static IReadOnlyList<SuiteAssembly> LoadAll(Installation installation) =>
    [
        .. Directory.EnumerateDirectories(installation.Suites)
            .Select(folder => (Folder: folder, Name: Path.GetFileName(folder)))
            .Where(s => File.Exists(Path.Combine(s.Folder, s.Name + ".csproj")))
            .OrderBy(s => s.Name, StringComparer.Ordinal)
            .Select(s => Load(installation.Executable(s.Folder, "Conformance." + s.Name))),
    ];

    /// <summary>Reads one suite.</summary>
    /// <param name="executable">Its executable; the assembly lies beside it.</param>
    /// <exception cref="MachineFaultException">It is not built.</exception>
    public static SuiteAssembly Load(string executable)
    {
        string path = executable + ".dll";
        if (!File.Exists(path))
        {
            throw new MachineFaultException($"{path} is not built. ./conformance builds what it needs; or run: dotnet build -c Release.");
        }

        using FileStream file = File.OpenRead(path);
        using PEReader image = new(file);
        MetadataReader metadata = image.GetMetadataReader();
        string name = TestId.SuiteOf(metadata.GetString(metadata.GetAssemblyDefinition().Name));
        string version = "unknown";
        List<KernelArchitecture> architectures = [];
        MachineOptions needs = new();
        foreach (CustomAttribute attribute in metadata.GetAssemblyDefinition().GetCustomAttributes().Select(metadata.GetCustomAttribute))
        {
            switch (AttributeName(metadata, attribute))
            {
                case "AssemblyInformationalVersionAttribute":
                    version = Strings(metadata, attribute, 1)[0];
                    break;
                case nameof(MachineNeedsAttribute):
                    architectures.AddRange(ArchitecturesOf(attribute));
                    needs = NeedsOf(attribute);
                    break;
            }
        }

        List<DeclaredTest> tests = [.. metadata.TypeDefinitions
            .Select(metadata.GetTypeDefinition)
            .Where(t => (t.Attributes & System.Reflection.TypeAttributes.Abstract) == 0)
            .SelectMany(t => TestsOf(metadata, t, name))
            .OrderBy(t => t.Id, StringComparer.Ordinal)];
        return new SuiteAssembly(executable, name, version, architectures.Count > 0 ? architectures : Enum.GetValues<KernelArchitecture>(), needs, tests);
    }

    private static IEnumerable<DeclaredTest> TestsOf(MetadataReader metadata, TypeDefinition type, string suite)
    {
        string className = ClassName(metadata, type);

        // Inherited tests are tests of each class that inherits them.
        for (TypeDefinition? declaring = type; declaring is { } current; declaring = Base(metadata, current))
        {
            List<string> classClauses = Clauses(metadata, current.GetCustomAttributes());
            foreach (MethodDefinition method in current.GetMethods().Select(metadata.GetMethodDefinition))
            {
                List<string> attributes = [.. method.GetCustomAttributes().Select(a => AttributeName(metadata, metadata.GetCustomAttribute(a)))];
                bool theory = attributes.Exists(a => a.EndsWith("TheoryAttribute", StringComparison.Ordinal));
                if (theory || attributes.Exists(a => a.EndsWith("FactAttribute", StringComparison.Ordinal)))
                {
                    yield return new DeclaredTest(
                        TestId.OfMethod(suite, className, metadata.GetString(method.Name)),
                        theory,
                        attributes.Contains(nameof(NegativeControlAttribute)),
                        [.. Clauses(metadata, method.GetCustomAttributes()).Concat(classClauses).Distinct()]);
                }
            }
        }
    }

    private static List<string> Clauses(MetadataReader metadata, CustomAttributeHandleCollection attributes) =>
    [
        .. attributes.Select(metadata.GetCustomAttribute)
            .Where(a => AttributeName(metadata, a) == nameof(ClauseAttribute))
            .Select(a => Strings(metadata, a, 1)[0]),
    ];

    private static string ClassName(MetadataReader metadata, TypeDefinition type)
    {
        string name = metadata.GetString(type.Name);
        TypeDefinitionHandle outer = type.GetDeclaringType();
        return outer.IsNil ? name : $"{ClassName(metadata, metadata.GetTypeDefinition(outer))}+{name}";
    }

    private static TypeDefinition? Base(MetadataReader metadata, TypeDefinition type) => !type.BaseType.IsNil && type.BaseType.Kind == HandleKind.TypeDefinition
        ? metadata.GetTypeDefinition((TypeDefinitionHandle)type.BaseType)
        : null;

    private static string AttributeName(MetadataReader metadata, CustomAttribute attribute)
    {
        EntityHandle type = attribute.Constructor.Kind == HandleKind.MemberReference
            ? metadata.GetMemberReference((MemberReferenceHandle)attribute.Constructor).Parent
            : metadata.GetMethodDefinition((MethodDefinitionHandle)attribute.Constructor).GetDeclaringType();
        return type.Kind switch
        {
            HandleKind.TypeReference => metadata.GetString(metadata.GetTypeReference((TypeReferenceHandle)type).Name),
            HandleKind.TypeDefinition => metadata.GetString(metadata.GetTypeDefinition((TypeDefinitionHandle)type).Name),
            _ => string.Empty,
        };
    }

    // ECMA-335 II.23.3: a prolog of 0x0001, then the fixed arguments; a string is its length and its bytes.
    private static string[] Strings(MetadataReader metadata, CustomAttribute attribute, int count)
    {
        BlobReader blob = metadata.GetBlobReader(attribute.Value);
        blob.ReadUInt16();
        string[] strings = new string[count];
        for (int i = 0; i < count; i++)
        {
            strings[i] = blob.ReadSerializedString() ?? string.Empty;
        }

        return strings;
    }

    private static IEnumerable<KernelArchitecture> ArchitecturesOf(CustomAttribute attribute) => attribute
        .DecodeValue(new TypeNames())
        .NamedArguments
        .Where(a => a.Name == nameof(MachineNeedsAttribute.Architectures))
        .SelectMany(a => (ImmutableArray<CustomAttributeTypedArgument<string>>)a.Value!)
        .Select(a => KernelArchitectures.TryParse((string)a.Value!, out KernelArchitecture architecture)
            ? architecture
            : throw new MachineFaultException($"'{a.Value}' in {nameof(MachineNeedsAttribute)} is no architecture."));

    private static MachineOptions NeedsOf(CustomAttribute attribute)
    {
        Dictionary<string, object?> named = attribute.DecodeValue(new TypeNames()).NamedArguments.ToDictionary(a => a.Name!, a => a.Value);
        return new MachineOptions
        {
            Iommu = named.GetValueOrDefault(nameof(MachineNeedsAttribute.Iommu)) is true,
            Devices = Texts(nameof(MachineNeedsAttribute.Devices)),
            SparePorts = named.GetValueOrDefault(nameof(MachineNeedsAttribute.SparePorts)) is int ports ? ports : 0,
            ExtraKernelArguments = Texts(nameof(MachineNeedsAttribute.KernelArguments)),
        };

        string[] Texts(string name) => named.GetValueOrDefault(name) is ImmutableArray<CustomAttributeTypedArgument<string>> all ? [.. all.Select(a => (string)a.Value!)] : [];
    }

    /// <summary>Types by their names: enough to read attributes of strings, numbers and flags.</summary>
    private sealed class TypeNames : ICustomAttributeTypeProvider<string>
    {
        public string GetPrimitiveType(PrimitiveTypeCode typeCode) => typeCode.ToString();

        public string GetSystemType() => nameof(Type);

        public string GetSZArrayType(string elementType) => elementType + "[]";

        public string GetTypeFromDefinition(MetadataReader reader, TypeDefinitionHandle handle, byte rawTypeKind) =>
            reader.GetString(reader.GetTypeDefinition(handle).Name);

        public string GetTypeFromReference(MetadataReader reader, TypeReferenceHandle handle, byte rawTypeKind) =>
            reader.GetString(reader.GetTypeReference(handle).Name);

        public string GetTypeFromSerializedName(string name) => name;

        public PrimitiveTypeCode GetUnderlyingEnumType(string type) => PrimitiveTypeCode.Int32;

        public bool IsSystemType(string type) => type == nameof(Type);
    }
}

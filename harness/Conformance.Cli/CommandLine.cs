// SPDX-License-Identifier: MIT
using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using Conformance.Kernels;
using Conformance.Results;
using Conformance.Targets;

namespace Conformance.Cli;

/// <summary>The commands, their options, and what their help says.</summary>
internal static class CommandLine
{
    private const int InterruptedTwice = 130;

    private const string ExitCodes = """

        Exit codes:
          0   nothing wrong
          1   a claim failed
          2   nothing ran, or results are missing (also after Ctrl-C)
          3   the kernel crashed or hung
          4   the harness or the machine is at fault; also when results could not be stored
          64  bad usage
        3 outranks 1, 1 outranks 4, 4 outranks 2; results that could not be stored outrank all of them.
        """;

    public static async Task<int> RunAsync(string[] args, CommandOutput output)
    {
        using CancellationTokenSource cancellation = new();
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        using PosixSignalRegistration hangup = PosixSignalRegistration.Create(PosixSignal.SIGHUP, OnSignal);
        try
        {
            ParseResult parsed = Build(output).Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
            if (parsed.Errors.Count > 0)
            {
                Complain(parsed, output);
                return ExitCode.BadUsage;
            }

            InvocationConfiguration configuration = new()
            {
                EnableDefaultExceptionHandler = false,
                ProcessTerminationTimeout = null,
                Output = output.Out,
                Error = output.Error,
            };
            return await parsed.InvokeAsync(configuration, cancellation.Token).ConfigureAwait(false);
        }
        catch (UsageException wrong)
        {
            output.Error.WriteLine($"conformance: {wrong.Message}");
            return ExitCode.BadUsage;
        }
        catch (MachineFaultException fault)
        {
            output.Error.WriteLine($"conformance: {fault.Message}");
            return ExitCode.MachineFault;
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            output.Error.WriteLine("conformance: interrupted.");
            return ExitCode.ResultsMissing;
        }
        catch (Exception mistake)
        {
            // A mistake of ours says nothing about a kernel: it must not end in a status that does.
            output.Error.WriteLine($"conformance: this is a mistake in conformance itself: {mistake}");
            return ExitCode.MachineFault;
        }

        // The first signal ends the run in order, with its results; the second does not wait for that.
        void OnSignal(PosixSignalContext context)
        {
            if (cancellation.IsCancellationRequested)
            {
                Environment.Exit(InterruptedTwice);
            }

            context.Cancel = true;
            cancellation.Cancel();
        }
    }

    private static void Complain(ParseResult parsed, CommandOutput output)
    {
        Command command = parsed.CommandResult.Command;
        string[] known = [.. command.Subcommands.Select(c => c.Name), .. command.Options.Select(o => o.Name)];
        string line = command is RootCommand ? "conformance" : $"conformance {command.Name}";
        foreach (string word in parsed.UnmatchedTokens)
        {
            output.Error.WriteLine($"{line}: '{word}' is not known. {NearestNames.Hint(word, known)}".TrimEnd());
        }

        // Of a misspelt command the parser also says that a command is missing.
        foreach (string message in parsed.UnmatchedTokens.Count > 0 ? [] : parsed.Errors.Select(e => e.Message).Distinct())
        {
            output.Error.WriteLine($"{line}: {message}");
        }

        output.Error.WriteLine($"'{line} --help' shows what there is.");
    }

    private static RootCommand Build(CommandOutput output)
    {
        RootCommand root = new("Conformance and regression tests of the Linux kernel's virtualization interrupt interfaces." + Environment.NewLine + ExitCodes)
        {
            Run(output),
            List(output),
            Merge(output),
            Report(output),
            Compare(output),
            Export(output),
            Explain(output),
            Accept(output),
            Doctor(output),
            Cache(output),
            Test(output),
            Bench(output),
        };
        return root;
    }

    private static Command Run(CommandOutput output)
    {
        Option<string[]> kernel = new("--kernel", "-k")
        {
            Description = $"Kernel to test; repeatable. debian:VERSION, a bzImage or Image file [,modules=DIR], a kernel build tree, host, or ssh:USER@BOARD. Default: {RunRequest.DefaultKernel}.",
            HelpName = "KERNEL",
        };
        Option<string?> arch = new("--arch", "-a") { Description = "Architecture of the kernel: x86_64 or arm64. Default: what the kernel says, else x86_64.", HelpName = "ARCH" };
        Option<string[]> suite = new("--suite", "-s") { Description = "Run only this suite; repeatable. Default: every suite with claims for the architecture.", HelpName = "SUITE" };
        Option<string[]> test = new("--test", "-t", "--filter")
        {
            Description = "Run only these tests; repeatable. A test's id, any whole part of it (a class, Class.Method), or a pattern with * and ?.",
            HelpName = "PATTERN",
        };
        Option<string[]> module = new("--module", "-m") { Description = "Swap one module of the kernel, for example kvm.ko=arch/x86/kvm/kvm.ko; repeatable.", HelpName = "NAME.ko=PATH" };
        Option<string> folder = new("--output", "-o")
        {
            Description = "Folder for the results: one folder per kernel in it, with results.json. What an earlier run left there moves to 'previous'.",
            DefaultValueFactory = _ => RunRequest.DefaultOutput,
            HelpName = "DIR",
        };
        Option<bool> fresh = new("--fresh-boot") { Description = "Boot every kernel. Without it a booted kernel is kept in the cache and restored from then on." };
        Option<Isolation> isolation = new("--isolation") { Description = "How often the kernel is fresh: suite (default), class or test." };
        Option<string[]> append = new("--append") { Description = "Kernel command line arguments to add; repeatable.", HelpName = "ARGS" };
        Option<string[]> known = new("--known-failures")
        {
            Description = "A ledger of failures that are known, beside suites/known-failures.tsv and written like it; repeatable.",
            HelpName = "FILE",
        };
        Option<string[]> device = new("--vfio-device")
        {
            Description = "A PCI function, bound to vfio-pci, of a kernel that is there (host, ssh:), for the Vfio suite to take; repeatable. It takes no other.",
            HelpName = "BDF",
        };
        Option<bool> offline = new("--offline") { Description = "Use only kernels that are in the cache." };
        Option<bool> controls = new("--negative-controls") { Description = "Run the tests that must fail, and nothing else: they pass by failing." };
        Option<int?> jobs = new("--jobs", "-j") { Description = "How many emulated machines may run at once; a suite may be run in parts on several. Default: the number of processors, at most 8.", HelpName = "N" };
        Option<int> timeout = new("--test-timeout")
        {
            Description = "Seconds after which a test without a verdict is a hang.",
            DefaultValueFactory = _ => RunRequest.DefaultTestTimeout,
            HelpName = "SECONDS",
        };
        Option<string?> shard = new("--shard") { Description = "Run one part of the tests, for example 2/3. Parts depend on the tests' ids only; 'merge' brings their results together.", HelpName = "I/N" };
        Option<int> repeat = new("--repeat") { Description = "Run every test this often, on a kernel that is fresh each time. A test that was green and red is red.", DefaultValueFactory = _ => 1, HelpName = "N" };
        Option<bool> untilFail = new("--until-fail") { Description = "Run the tests again and again, and end at the first red verdict; --repeat bounds it." };
        Option<bool> failFast = new("--fail-fast") { Description = "End at the first red verdict. What did not run is missing." };
        Option<bool> dry = new("--dry-run") { Description = "Only print the machine's command line and the tests that would run." };
        Option<bool> verbose = new("--verbose", "-v") { Description = "Name every test, also on a terminal." };
        foreach (Option number in new Option[] { timeout, jobs, repeat })
        {
            number.Validators.Add(result =>
            {
                // What is no number at all is the parser's to refuse.
                if (result.Tokens is [var token] && int.TryParse(token.Value, CultureInfo.InvariantCulture, out int value) && value <= 0)
                {
                    result.AddError($"{number.Name} takes a number greater than 0.");
                }
            });
        }

        Command command = new("run", "Boot kernels and run the suites on them.")
        {
            kernel, arch, suite, test, module, folder, append, fresh, isolation, known, device, offline, controls, shard, repeat, untilFail, failFast, dry, jobs, timeout, verbose,
        };
        command.SetAction(async (parsed, cancellation) =>
        {
            RunRequest request = new()
            {
                Kernels = parsed.GetValue(kernel) is { Length: > 0 } kernels ? kernels : [RunRequest.DefaultKernel],
                Architecture = parsed.GetValue(arch),
                Suites = parsed.GetValue(suite) ?? [],
                Tests = parsed.GetValue(test) ?? [],
                Modules = parsed.GetValue(module) ?? [],
                Output = parsed.GetValue(folder)!,
                Append = parsed.GetValue(append) ?? [],
                FreshBoot = parsed.GetValue(fresh),
                Isolation = parsed.GetValue(isolation),
                KnownFailures = parsed.GetValue(known) ?? [],
                VfioDevices = parsed.GetValue(device) ?? [],
                Offline = parsed.GetValue(offline),
                NegativeControls = parsed.GetValue(controls),
                Shard = parsed.GetValue(shard),
                Repeat = parsed.GetValue(untilFail) && parsed.GetResult(repeat) is null or { Implicit: true } ? 0 : parsed.GetValue(repeat),
                FailFast = parsed.GetValue(failFast) || parsed.GetValue(untilFail),
                DryRun = parsed.GetValue(dry),
                Jobs = parsed.GetValue(jobs),
                TestTimeout = parsed.GetValue(timeout),
                Verbose = parsed.GetValue(verbose),
            };
            using KernelStore store = new(CacheDirectory.Default);
            return await new RunCommand(Installation.Find(AppContext.BaseDirectory), store.PrepareAsync, output)
                .RunAsync(request, cancellation)
                .ConfigureAwait(false);
        });
        return command;
    }

    private static Command List(CommandOutput output)
    {
        Argument<string> what = new("what") { Description = "tests, clauses, suites or kernels.", DefaultValueFactory = _ => "tests" };
        what.AcceptOnlyFromAmong("tests", "clauses", "suites", "kernels");
        Command command = new("list", "Show the tests with their ids, the clauses and which have no test, the suites, or Debian's kernels in the cache as --kernel takes them.") { what };
        command.SetAction((parsed, cancellation) =>
            new ListCommand(Installation.Find(AppContext.BaseDirectory), output).RunAsync(parsed.GetValue(what)!, cancellation));
        return command;
    }

    private static Argument<string> ResultsArgument(string name = "results", string? value = RunRequest.DefaultOutput)
    {
        Argument<string> folder = new(name) { Description = "The folder given to 'run --output', or that of one kernel in it." };
        if (value is not null)
        {
            folder.DefaultValueFactory = _ => value;
        }

        return folder;
    }

    private static Command Report(CommandOutput output)
    {
        Argument<string> folder = ResultsArgument();
        Option<string?> baseline = new("--baseline") { Description = "Results to show the changes since.", HelpName = "DIR" };
        Option<string?> file = new("--output", "-o") { Description = "The page. Default: report.html in the results folder.", HelpName = "FILE" };
        Command command = new("report", "Write one self-contained page for release qualification.") { folder, baseline, file };
        command.SetAction(parsed => ReportCommand.Run(Installation.Find(AppContext.BaseDirectory), parsed.GetValue(folder)!, parsed.GetValue(baseline), parsed.GetValue(file), output));
        return command;
    }

    private static Command Compare(CommandOutput output)
    {
        Argument<string> before = ResultsArgument("before", null), after = ResultsArgument("after", null);
        Command command = new("compare", "Show what changed between two runs or two kernels; exit 1 only on regressions.") { before, after };
        command.SetAction(parsed => CompareCommand.Run(parsed.GetValue(before)!, parsed.GetValue(after)!, output));
        return command;
    }

    private static Command Export(CommandOutput output)
    {
        Argument<string> folder = ResultsArgument();
        Option<string[]> format = new("--format", "-f") { Description = ExportCommand.Known, HelpName = "NAME", Required = true };
        Option<string?> into = new("--into") { Description = "Folder for the files. Default: standard output.", HelpName = "DIR" };
        Command command = new("export", "Write results in the formats of other tools.") { folder, format, into };
        command.SetAction(parsed => ExportCommand.Run(parsed.GetValue(folder)!, parsed.GetValue(format)!, parsed.GetValue(into), output));
        return command;
    }

    private static Command Explain(CommandOutput output)
    {
        Argument<string> id = new("test") { Description = "A test, as --test takes it: an id, a theory with all its rows, a class, or a pattern with * and ?." };
        Option<string> results = new("--results") { Description = "Results to say how kernels answered.", HelpName = "DIR", DefaultValueFactory = _ => RunRequest.DefaultOutput };
        Command command = new("explain", "Show what a test claims, the rules it rests on with their sources, and how kernels answered.") { id, results };
        command.SetAction((parsed, cancellation) =>
            ExplainCommand.RunAsync(Installation.Find(AppContext.BaseDirectory), parsed.GetValue(id)!, parsed.GetValue(results)!, output, cancellation));
        return command;
    }

    private static Command Accept(CommandOutput output)
    {
        Argument<string> name = new("snapshot") { Description = "Part of the snapshot's name. Default: all that differ.", DefaultValueFactory = _ => string.Empty };
        Option<bool> yes = new("--yes") { Description = "Take what was received." };
        Command command = new("accept", "Show what differs from approved behaviour, and take it with --yes.") { name, yes };
        command.SetAction(parsed => AcceptCommand.Run(Installation.Find(AppContext.BaseDirectory), parsed.GetValue(name)!, parsed.GetValue(yes), output));
        return command;
    }

    private static Command Merge(CommandOutput output)
    {
        Argument<string[]> folders = new("dir")
        {
            Description = "The folder given to 'run --output'; several with --into.",
            DefaultValueFactory = _ => [RunRequest.DefaultOutput],
            Arity = ArgumentArity.ZeroOrMore,
        };
        Option<string?> into = new("--into") { Description = "A new folder that the results of all are brought together in: the parts of --shard, or runs of one kernel.", HelpName = "DIR" };
        Command command = new("merge", "Build results.json from what a killed run left, or bring the results of several runs together, and exit as one run would have.") { folders, into };
        command.SetAction(parsed => MergeCommand.Run(parsed.GetValue(folders)!, parsed.GetValue(into), output));
        return command;
    }

    private static Command Doctor(CommandOutput output)
    {
        Command command = new("doctor", "Check what this machine has and say what to do about what it lacks.");
        command.SetAction((_, cancellation) => new DoctorCommand(Installation.Find(AppContext.BaseDirectory), output).RunAsync(cancellation));
        return command;
    }

    private static Command Cache(CommandOutput output)
    {
        Command list = new("ls", "List what is kept, least recently used first.");
        list.SetAction(_ => new CacheCommand(CacheDirectory.Default, output).List());
        Option<string> keep = new("--keep") { Description = "What may remain, for example 2G; 0 removes everything.", DefaultValueFactory = _ => "2G", HelpName = "SIZE" };
        keep.Validators.Add(result =>
        {
            if (result.Tokens is [var token] && CacheCommand.ParseSize(token.Value) is null)
            {
                result.AddError($"{keep.Name} takes a size such as 500M or 2G, not '{token.Value}'.");
            }
        });
        Command prune = new("prune", "Remove what was used longest ago; what another run is using stays.") { keep };
        prune.SetAction((parsed, cancellation) => Task.FromResult(
            new CacheCommand(CacheDirectory.Default, output).Prune(CacheCommand.ParseSize(parsed.GetValue(keep)!)!.Value, cancellation)));
        return new Command("cache", "Kernels and booted kernels that are kept between runs.") { list, prune };
    }

    private static Command Test(CommandOutput output)
    {
        Option<bool> coverage = new("--coverage") { Description = "Measure line and branch coverage of the harness (Cobertura, with a summary)." };
        Option<string[]> filter = new("--class") { Description = "Run only this test class, wildcards allowed; repeatable.", HelpName = "NAME" };
        Command command = new("test", "Run the project's own tests: of the harness, and from end to end.") { coverage, filter };
        command.SetAction((parsed, cancellation) => new TestCommand(Installation.Find(AppContext.BaseDirectory), output)
            .RunAsync(parsed.GetValue(coverage), parsed.GetValue(filter) ?? [], cancellation));
        return command;
    }

    private static Command Bench(CommandOutput output)
    {
        Option<string> kernel = new("--kernel", "-k") { Description = "Kernel to boot.", DefaultValueFactory = _ => RunRequest.DefaultKernel, HelpName = "KERNEL" };
        Option<string> claim = new("--test", "-t") { Description = "The claim to run.", DefaultValueFactory = _ => BenchCommand.DefaultClaim, HelpName = "ID" };
        Option<int> rounds = new("--rounds") { Description = "How often each is measured.", DefaultValueFactory = _ => BenchCommand.DefaultRounds, HelpName = "N" };
        Command boot = new("boot", "First verdict and whole command against a bare boot of the same kernel; exits 1 when one is over its limit.") { kernel, claim, rounds };
        boot.SetAction(async (parsed, cancellation) =>
        {
            using KernelStore store = new(CacheDirectory.Default);
            return await new BenchCommand(Installation.Find(AppContext.BaseDirectory), store.PrepareAsync, output)
                .BootAsync(parsed.GetValue(kernel)!, parsed.GetValue(claim)!, Math.Max(1, parsed.GetValue(rounds)), cancellation)
                .ConfigureAwait(false);
        });
        return new Command("bench", "Measure what testing costs on this machine.") { boot };
    }
}

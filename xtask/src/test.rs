//! `cargo xtask test`: the five tiers, each on the real thing it needs.

mod again;
mod report;

use std::env;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{build, fuzz, repo, setup, sh, vm};
use again::Failures;
use report::{Counts, Part, Report};

/// Tells tests to do fewer repetitions of what they do.
const QUICK: &str = "HALFSECOND_TEST_QUICK";

/// Seconds of each fuzz target, and those of a quick test.
const FUZZ: u32 = 60;
const QUICK_FUZZ: u32 = 5;

/// Integration tests with a tier of their own; every other one is part of the unit tier.
const OWN_TIER: [&str; 2] = ["kernel", "e2e"];

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag on the command line")]
pub(crate) struct Args {
    /// Unit tests, and the agent's integration tests that need no privilege.
    #[arg(long)]
    unit: bool,
    /// The kernel programs on this machine's kernel, as root.
    #[arg(long)]
    kernel: bool,
    /// A real sshd, ssh and prometheus around a real sensor, as root.
    #[arg(long)]
    e2e: bool,
    /// What sees the kernel on other kernels, in emulated machines; all of them if none is named.
    #[arg(long, value_name = "KERNEL", num_args = 0..)]
    vm: Option<Vec<String>>,
    /// Every fuzz target for a minute.
    #[arg(long)]
    fuzz: bool,
    /// Fewer repetitions, seconds of each fuzz target, and one virtual machine instead of five.
    #[arg(long)]
    quick: bool,
    /// End within so many minutes: virtual machines that are not done by then are told as skipped.
    #[arg(long, value_name = "MINUTES")]
    within: Option<u64>,
    /// Only build what the tiers run.
    #[arg(long)]
    no_run: bool,
    /// Trust that everything needed is installed.
    #[arg(long)]
    no_setup: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Unit,
    Kernel,
    EndToEnd,
    Fuzz,
    Vm,
}

/// Builds what later tiers run, while one runs that mostly waits, with what that leaves of the
/// processors.
#[derive(Default)]
struct Later(Option<Child>);

/// Runs the tiers asked for, all five when none is, and prints one table at the end.
pub(crate) fn test(args: &Args) -> Result<ExitCode> {
    let until = args.within.map(|minutes| Instant::now() + Duration::from_mins(minutes));
    if !args.no_setup {
        setup::ensure(setup::Scope::Test, false)?;
    }
    let tiers = tiers(args);
    if args.no_run {
        tiers.into_iter().try_for_each(|tier| prepare(tier, args))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::default();
    let mut later = Later::default();
    for &tier in &tiers {
        println!("\n\x1b[1m== {}\x1b[0m", tier.name());
        let started = Instant::now();
        let parts = match tier {
            Tier::Unit => unit(args),
            Tier::Kernel => privileged(args, "kernel"),
            Tier::EndToEnd => later.begin(args, &tiers).and_then(|()| privileged(args, "e2e")),
            // Cargo waits by itself for what is still being built.
            Tier::Fuzz => fuzzed(args),
            Tier::Vm => later.end().and_then(|()| vm(args, until)),
        };
        // What keeps one tier from running at all must not keep the others from running.
        report.extend(parts.unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", tier.name());
            vec![Part::failed(tier.name(), started.elapsed(), &error)]
        }));
    }
    print!("{report}");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// === impl Tier ===

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::EndToEnd => "e2e",
            Self::Fuzz => "fuzz",
            Self::Vm => "vm",
        }
    }

    /// Its flag, if it has builds of its own that take minutes.
    fn slow_to_build(self) -> Option<&'static str> {
        match self {
            Self::Fuzz => Some("--fuzz"),
            Self::Vm => Some("--vm"),
            Self::Unit | Self::Kernel | Self::EndToEnd => None,
        }
    }
}

fn tiers(args: &Args) -> Vec<Tier> {
    let asked: Vec<_> = [
        (args.unit, Tier::Unit),
        (args.kernel, Tier::Kernel),
        (args.e2e, Tier::EndToEnd),
        (args.fuzz, Tier::Fuzz),
        (args.vm.is_some(), Tier::Vm),
    ]
    .into_iter()
    .filter_map(|(asked, tier)| asked.then_some(tier))
    .collect();
    if asked.is_empty() {
        return vec![Tier::Unit, Tier::Kernel, Tier::EndToEnd, Tier::Fuzz, Tier::Vm];
    }
    asked
}

/// Everything that runs anywhere, without privilege.
fn unit(args: &Args) -> Result<Vec<Part>> {
    unit_commands()?.iter_mut().map(|(name, cargo)| counted(name, quick(args, cargo))).collect()
}

fn unit_commands() -> Result<Vec<(&'static str, Command)>> {
    let mut modules =
        sh::cargo(["test", "--workspace", "--exclude", "sensor-ebpf", "--no-fail-fast"]);
    modules.args(["--lib", "--bins"]);
    let mut commands = vec![("unit: modules", modules)];
    let names = repo::sensor_tests()?;
    let names: Vec<_> = names.iter().filter(|name| !OWN_TIER.contains(&name.as_str())).collect();
    if !names.is_empty() {
        let mut integration = sh::cargo(["test", "--package", "sensor", "--no-fail-fast"]);
        for name in names {
            integration.args(["--test", name]);
        }
        commands.push(("unit: integration", integration));
    }
    Ok(commands)
}

/// Builds what a tier runs.
fn prepare(tier: Tier, args: &Args) -> Result<()> {
    match tier {
        Tier::Unit => {
            unit_commands()?.iter_mut().try_for_each(|(_, cargo)| sh::run(cargo.arg("--no-run")))
        }
        Tier::Kernel => build_test("kernel", false).map(drop),
        Tier::EndToEnd => build_test("e2e", true).map(drop),
        Tier::Fuzz => match fuzz::ensure_usable() {
            Ok(()) => fuzz::prepare(),
            // As the tier itself does.
            Err(why) => {
                println!("skipped: {why:#}");
                Ok(())
            }
        },
        Tier::Vm => {
            let kernels = kernels(args);
            vm::prepare(&kernels, |target| guest_payload(target, kernels.len()))
        }
    }
}

// === impl Later ===

impl Later {
    /// Begins, unless nothing is to be built.
    fn begin(&mut self, args: &Args, tiers: &[Tier]) -> Result<()> {
        // Two builds of one profile would wait for each other.
        prepare(Tier::EndToEnd, args)?;
        self.0 = builder(args, tiers).transpose()?;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut builder) = self.0.take() else { return Ok(()) };
        if builder.try_wait()?.is_none() {
            println!("waiting for the builds that began meanwhile: {}", later_builds().display());
        }
        let status = builder.wait()?;
        if !status.success() {
            // It goes wrong again, and fails, where it is needed.
            println!("these builds failed, {status}: {}", later_builds().display());
        }
        Ok(())
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        if let Some(builder) = &mut self.0 {
            let _ = builder.kill();
            let _ = builder.wait();
        }
    }
}

fn later_builds() -> PathBuf {
    repo::target().join("later-builds.log")
}

/// None where nothing is to be built, or nothing gives up the processors.
fn builder(args: &Args, tiers: &[Tier]) -> Option<Result<Child>> {
    let later: Vec<&str> = tiers.iter().filter_map(|tier| tier.slow_to_build()).collect();
    let chrt = sh::which("chrt").filter(|_| !later.is_empty())?;
    let start = || {
        let mut command = Command::new(chrt);
        command.args(["--idle", "0"]).arg(env::current_exe()?);
        command.args(["test", "--no-setup", "--no-run"]).args(later);
        command.args(args.vm.iter().flatten()).args(args.quick.then_some("--quick"));
        let log = later_builds();
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(sh::announced(&mut command).spawn()?)
    };
    Some(start())
}

/// One integration test of the agent as root, its tests one after the other: they share what is
/// one per machine.
fn privileged(args: &Args, name: &str) -> Result<Vec<Part>> {
    if !repo::sensor_tests()?.iter().any(|test| test == name) {
        bail!("sensor/tests has no test called {name}");
    }
    // End to end the sensor races a login: only the program as it is shipped says whether it wins.
    let binary = build_test(name, name == "e2e")?;
    let start = |test: Option<&str>| -> Result<Command> {
        let mut command = sh::as_root("env")?;
        command.current_dir(repo::root().join("sensor"));
        if args.quick {
            command.arg(format!("{QUICK}=1"));
        }
        command.arg(&binary).args(["--test-threads=1", "--show-output"]);
        command.args(test.into_iter().flat_map(|test| ["--exact", test]));
        Ok(command)
    };
    let (started, mut counts, mut failures) =
        (Instant::now(), Counts::default(), Failures::default());
    let ok = sh::watch(&mut start(None)?, |line| {
        counts.read(line);
        failures.read(line);
    })?;
    let mut part = Part::counted(name, started.elapsed(), counts, ok);
    // The kernel's tests race nobody.
    let again = if name == "e2e" { failures.few(counts.failed()) } else { Vec::new() };
    for test in again {
        println!("\n{test} failed; once more, alone:");
        let again = counted(name, &mut start(Some(&test))?)?;
        part.tried_again(&test, &again);
    }
    Ok(vec![part])
}

/// The readers of hostile input, each fed for a while with what it has never seen.
fn fuzzed(args: &Args) -> Result<Vec<Part>> {
    let started = Instant::now();
    if let Err(why) = fuzz::ensure_usable() {
        println!("skipped: {why:#}");
        return Ok(vec![Part::skipped("fuzz", started.elapsed(), fuzz::COUNT as u64, &why)]);
    }
    let outcomes = fuzz::all(if args.quick { QUICK_FUZZ } else { FUZZ })?;
    let failed: Vec<String> = outcomes.iter().filter_map(|one| one.failed.clone()).collect();
    let passed = outcomes.len() - failed.len();
    let counts = Counts::of(passed as u64, failed.len() as u64);
    let mut part = Part::counted("fuzz", started.elapsed(), counts, failed.is_empty());
    part.explain(&failed.join("; "));
    Ok(vec![part])
}

/// What runs in guests: what sees the kernel, and what a kernel decides about.
struct GuestTest {
    name: &'static str,
    /// The part of it that is meant; all of it: an empty word.
    only: &'static str,
    /// It sees the whole machine: its tests run one after the other.
    alone: bool,
    /// Only where one kernel is named, which has the time.
    one_kernel: bool,
}

/// Of the end-to-end tests, the table of the loader's ways in.
const LOADER: &str = "linker::each_way_into";
/// Tests of the same kind that no guest runs, and why.
const NOT_IN_GUESTS: [(&str, &str); 1] = [(
    "e2e linker::dlopen",
    "the sensor waits half a second at most for who asked, less than an emulated machine takes to \
     answer; what the kernel tells of it is in kernel::opened",
)];

/// The last two read files and /proc in ways that no kernel series changed. Emulated, each of those
/// beside the kernel's and the loader's takes one minute to five, so that the matrix leaves them out: all
/// of CI has an hour. `watch` starts many sensors beside busy processes: on 7.x the emulator (QEMU 7.2)
/// once ran the breakpoint of a patch of the kernel's own code after the patch was complete, which is
/// the end of a guest.
const GUEST_TESTS: [GuestTest; 5] = [
    GuestTest { name: "kernel", only: "", alone: true, one_kernel: false },
    GuestTest { name: "e2e", only: LOADER, alone: true, one_kernel: false },
    GuestTest { name: "watch", only: "", alone: false, one_kernel: true },
    GuestTest { name: "cli", only: "libs::", alone: false, one_kernel: true },
    GuestTest { name: "verify", only: "", alone: false, one_kernel: true },
];
/// Unit tests that run there too, since they read files as a kernel shows them; building them takes
/// minutes.
const GUEST_UNITS: GuestTest =
    GuestTest { name: "units", only: "package::", alone: false, one_kernel: true };
/// Others wait for most of their time: as many at once as help on two processors.
const GUEST_THREADS: &str = "--test-threads=4";
/// What is optimised a little, as unoptimised code is slow beyond patience there: the agent itself,
/// and what reads and hashes whole files.
const GUEST_OPTIMISED: [&str; 6] = ["sensor", "md-5", "object", "redb", "sha1", "sha2"];

/// The tests that see something of the kernel in each guest.
fn vm(args: &Args, until: Option<Instant>) -> Result<Vec<Part>> {
    for (test, reason) in NOT_IN_GUESTS {
        println!("not in guests: {test}: {reason}");
    }
    let limits = vm::Limits::of(vm::TIME_LIMIT).until(until);
    let kernels = kernels(args);
    let outcomes = vm::run(&kernels, limits, |target| guest_payload(target, kernels.len()))?;
    Ok(outcomes.into_iter().map(Part::from).collect())
}

/// Those that were named, or all that are meant.
fn kernels(args: &Args) -> Vec<String> {
    let named = args.vm.clone().unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    let all = if args.quick { &vm::DEFAULT_KERNELS[1..2] } else { &vm::DEFAULT_KERNELS[..] };
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// What so many kernels run of the above and the tree has, built for `target`, with the agent and what the tests
/// compile where they look for it.
fn guest_payload(target: &str, kernels: usize) -> Result<vm::Payload> {
    let have = repo::sensor_tests()?;
    let tests = GUEST_TESTS.iter().filter(|test| have.iter().any(|name| name == test.name));
    let is_meant = |test: &GuestTest| kernels == 1 || !test.one_kernel;
    let tests = tests.filter(|test| is_meant(test));
    let has_units = is_meant(&GUEST_UNITS);
    let mut cargo = sh::cargo(["test", "--package", "sensor", "--no-run"]);
    cargo.args(["--target", target]).args(has_units.then_some("--lib"));
    for package in GUEST_OPTIMISED {
        cargo.args(["--config", &format!("profile.dev.package.{package}.opt-level=1")]);
    }
    for test in tests.clone() {
        cargo.args(["--test", test.name]);
    }
    let built = build::executables(&mut cargo).context("the guests' tests do not build")?;
    let find = |kind: &str, name: &str| {
        let mut built = built.iter().filter(|one| (one.0.as_str(), one.1.as_str()) == (kind, name));
        let path = built.next().map(|one| one.2.clone());
        path.with_context(|| format!("cargo built no {kind} called {name} for {target}"))
    };
    let mut payload = vm::Payload::default();
    let program = |test: &GuestTest, kind: &str, target: &str| {
        let mut args = if test.alone { vm::alone() } else { together() };
        args.extend((!test.only.is_empty()).then(|| test.only.to_owned()));
        let (name, binary) = (test.name.to_owned(), find(kind, target)?);
        anyhow::Ok(vm::Program { name, binary, args })
    };
    for test in tests {
        payload.programs.push(program(test, "test", test.name)?);
    }
    if has_units {
        payload.programs.push(program(&GUEST_UNITS, "lib", "sensor")?);
    }
    payload.placed = repo::fixtures()?;
    let agent = find("bin", "halfsecond")?;
    // Cargo's temporary directory for tests: target/TARGET/tmp beside target/TARGET/debug.
    payload.folders.extend(agent.ancestors().nth(2).map(|folder| folder.join("tmp")));
    payload.placed.push(agent);
    Ok(payload)
}

/// Several at once, what they print shown at the end.
fn together() -> Vec<String> {
    [GUEST_THREADS, "--show-output"].map(str::to_owned).into()
}

/// Builds one of the agent's integration tests and returns where cargo put it.
pub(crate) fn build_test(name: &str, release: bool) -> Result<PathBuf> {
    let mut cargo = sh::cargo(["test", "--package", "sensor", "--test", name, "--no-run"]);
    if release {
        cargo.arg("--release");
    }
    build::executable(&mut cargo, "test", name)
        .with_context(|| format!("the {name} test does not build"))
}

fn quick<'a>(args: &Args, command: &'a mut Command) -> &'a mut Command {
    if args.quick {
        command.env(QUICK, "1");
    }
    command
}

/// Runs a libtest binary, or cargo driving several, and adds up what they report.
fn counted(name: &str, command: &mut Command) -> Result<Part> {
    let started = Instant::now();
    let mut counts = Counts::default();
    let ok = sh::watch(command, |line| counts.read(line))?;
    Ok(Part::counted(name, started.elapsed(), counts, ok))
}

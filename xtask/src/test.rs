//! `cargo xtask test`: the five tiers, each on the real thing it needs.

mod report;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::vm::On;
use crate::{build, fuzz, repo, setup, sh, vm};
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

/// Runs the tiers asked for, all five when none is, and prints one table at the end.
pub(crate) fn test(args: &Args) -> Result<ExitCode> {
    if !args.no_setup {
        setup::ensure(setup::Scope::Test, false)?;
    }
    let mut report = Report::default();
    for tier in tiers(args) {
        println!("\n\x1b[1m== {}\x1b[0m", tier.name());
        let started = Instant::now();
        let parts = match tier {
            Tier::Unit => unit(args),
            Tier::Kernel => privileged(args, "kernel"),
            Tier::EndToEnd => privileged(args, "e2e"),
            Tier::Fuzz => fuzzed(args),
            Tier::Vm => vm(args),
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
    let mut modules =
        sh::cargo(["test", "--workspace", "--exclude", "sensor-ebpf", "--lib", "--bins"]);
    let mut parts = vec![counted("unit: modules", modules.arg("--no-fail-fast"))?];
    let names = repo::sensor_tests()?;
    let names: Vec<_> = names.iter().filter(|name| !OWN_TIER.contains(&name.as_str())).collect();
    if !names.is_empty() {
        let mut integration = sh::cargo(["test", "--package", "sensor", "--no-fail-fast"]);
        for name in names {
            integration.args(["--test", name]);
        }
        parts.push(counted("unit: integration", quick(args, &mut integration))?);
    }
    Ok(parts)
}

/// One integration test of the agent as root, its tests one after the other: they share what is
/// one per machine.
fn privileged(args: &Args, name: &str) -> Result<Vec<Part>> {
    if !repo::sensor_tests()?.iter().any(|test| test == name) {
        bail!("sensor/tests has no test called {name}");
    }
    // End to end the sensor races a login: only the program as it is shipped says whether it wins.
    let binary = build_test(name, name == "e2e")?;
    let mut command = sh::as_root("env")?;
    command.current_dir(repo::root().join("sensor"));
    if args.quick {
        command.arg(format!("{QUICK}=1"));
    }
    command.arg(binary).args(["--test-threads=1", "--show-output"]);
    Ok(vec![counted(name, &mut command)?])
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
    on: On,
}

/// Of the end-to-end tests, the table of the loader's ways in.
const LOADER: &str = "linker::each_way_into";
/// Tests of the same kind that no guest runs, and why.
const NOT_IN_GUESTS: [(&str, &str); 1] = [(
    "e2e linker::dlopen",
    "the sensor waits half a second at most for who asked, less than an emulated machine takes to \
     answer; what the kernel tells of it is in kernel::opened",
)];

/// The last two read files and /proc in ways that no kernel series changed. Emulated, the loader's
/// cases take minutes, and each of those below them another one to five, so that not every kernel runs
/// them: all of CI has an hour. `watch` starts many sensors beside busy processes: on 7.x the emulator
/// (QEMU 7.2) once ran the breakpoint of a patch of the kernel's own code after the patch was complete,
/// which is the end of a guest.
const GUEST_TESTS: [GuestTest; 5] = [
    GuestTest { name: "kernel", only: "", alone: true, on: On::Every },
    GuestTest { name: "e2e", only: LOADER, alone: true, on: On::First },
    GuestTest { name: "watch", only: "", alone: false, on: On::Alone },
    GuestTest { name: "cli", only: "libs::", alone: false, on: On::Alone },
    GuestTest { name: "verify", only: "", alone: false, on: On::Alone },
];
/// Unit tests that run there too: they read files as a kernel shows them.
const GUEST_UNITS: GuestTest =
    GuestTest { name: "units", only: "package::", alone: false, on: On::First };
/// Others wait for most of their time: as many at once as help on two processors.
const GUEST_THREADS: &str = "--test-threads=4";
/// What is optimised a little, as unoptimised code is slow beyond patience there: the agent itself,
/// and what reads and hashes whole files.
const GUEST_OPTIMISED: [&str; 6] = ["sensor", "md-5", "object", "redb", "sha1", "sha2"];

/// The tests that see something of the kernel in each guest.
fn vm(args: &Args) -> Result<Vec<Part>> {
    let mut names = args.vm.clone().unwrap_or_default();
    if names.is_empty() {
        let all = if args.quick { &vm::DEFAULT_KERNELS[1..2] } else { &vm::DEFAULT_KERNELS[..] };
        names = all.iter().map(|name| (*name).to_owned()).collect();
    }
    for (test, reason) in NOT_IN_GUESTS {
        println!("not in guests: {test}: {reason}");
    }
    let outcomes = vm::run(&names, vm::TIME_LIMIT, guest_payload)?;
    Ok(outcomes.into_iter().map(Part::from).collect())
}

/// Everything of the above that the tree has, built for `target`, with the agent and what the tests
/// compile where they look for it.
fn guest_payload(target: &str) -> Result<vm::Payload> {
    let have = repo::sensor_tests()?;
    let tests = GUEST_TESTS.iter().filter(|test| have.iter().any(|name| name == test.name));
    let mut cargo = sh::cargo(["test", "--package", "sensor", "--no-run", "--lib"]);
    cargo.args(["--target", target]);
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
        anyhow::Ok(vm::Program { name, binary, args, on: test.on })
    };
    for test in tests {
        payload.programs.push(program(test, "test", test.name)?);
    }
    payload.programs.push(program(&GUEST_UNITS, "lib", "sensor")?);
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

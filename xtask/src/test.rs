//! `cargo xtask test`: the five tiers, each on the real thing it needs.

mod report;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

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
    /// The kernel programs on other kernels, in emulated machines; all of them if none is named.
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
    let binary = build_test(name, None, name == "e2e")?;
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

/// The kernel tests in each guest.
fn vm(args: &Args) -> Result<Vec<Part>> {
    let mut names = args.vm.clone().unwrap_or_default();
    if names.is_empty() {
        let all = if args.quick { &vm::DEFAULT_KERNELS[1..2] } else { &vm::DEFAULT_KERNELS[..] };
        names = all.iter().map(|name| (*name).to_owned()).collect();
    }
    let outcomes = vm::run(&names, vm::TIME_LIMIT, |target| {
        if !repo::sensor_tests()?.iter().any(|test| test == "kernel") {
            println!("sensor/tests has no test called kernel: only the guest itself is tested");
            return Ok(Vec::new());
        }
        Ok(vec![("kernel".to_owned(), build_test("kernel", Some(target), false)?)])
    })?;
    Ok(outcomes.into_iter().map(Part::from).collect())
}

/// Builds one of the agent's integration tests and returns where cargo put it.
pub(crate) fn build_test(name: &str, target: Option<&str>, release: bool) -> Result<PathBuf> {
    let mut cargo = sh::cargo(["test", "--package", "sensor", "--test", name, "--no-run"]);
    if release {
        cargo.arg("--release");
    }
    if let Some(target) = target {
        cargo.args(["--target", target]);
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

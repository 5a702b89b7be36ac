//! `cargo xtask bench`: what the sensor costs, next to other tools that watch the same things.
//!
//! Every round starts each arm in turn and runs every workload under it, so that whatever else
//! the machine does hits all arms alike. An arm's figure is the median over the rounds of its
//! ratio to the bare machine in the same round, with a bootstrap interval; the bare machine runs
//! twice in each round, and unless that ratio's interval holds 1.00 nothing can be concluded. What
//! an arm does once, after its start and at the first sight of a program, is over before: its
//! figure stands apart.

mod arm;
mod detect;
mod idle;
mod logins;
mod process;
mod recording;
mod report;
mod rungs;
mod sshd;
mod stats;
mod store;
mod verify;
mod workload;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, repo, setup, sh};
use arm::{Arm, Auditd, Bpftrace, Halfsecond, Off, Silence};
use report::{Figure, Report};
use workload::Workload;
pub(crate) use workload::{CALLER, call};

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Args {
    /// Rounds: one run of every workload under every arm.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Only these workloads.
    #[arg(long, value_enum)]
    workload: Vec<workload::Kind>,
    /// Only these arms, besides the bare machine.
    #[arg(long, value_enum)]
    arm: Vec<arm::Kind>,
    /// Length of the idle measurement in seconds; 0 leaves it out.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Keep the kernel's audit hook away from the arms other than auditd. Without it the bare
    /// machine is one on which audit was on at some time, as on every Debian with systemd.
    #[arg(long)]
    without_audit: bool,
    /// Leave out the cost of each kernel program by itself.
    #[arg(long)]
    without_rungs: bool,
    /// Leave out what checks of processes cost.
    #[arg(long)]
    without_verify: bool,
    /// Leave out the crowd of logins.
    #[arg(long)]
    without_logins: bool,
    /// Trials of each way to hook a program, from the hook to its finding; 0 leaves it out.
    #[arg(long, default_value_t = 100)]
    detect: usize,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Fail when a figure misses its limit.
    #[arg(long)]
    check: bool,
}

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The workloads under every arm.
    Workloads,
    /// Every arm with nothing to do.
    Idle,
    /// Each kernel program by itself.
    Rungs,
    /// Checks of processes.
    Verify,
    /// From a hook to its finding.
    Detect,
    /// A hundred logins at once, some broken off.
    Logins,
    /// Starts of programs under a sensor whose store holds 1,000 programs of 200 libraries each, next to
    /// one whose store holds only what it sees here.
    Store,
    /// A storm of starts and a crowd of logins under `run --record`, next to `run`: CPU time of the agent
    /// and bytes of the recording.
    Recording,
}

/// Measures, prints the table, and keeps every sample in `target/bench/samples.csv`.
pub(crate) fn bench(args: &Args) -> Result<()> {
    ensure!(sh::is_root()?, "bench needs root: sudo env \"PATH=$PATH\" cargo xtask bench");
    ensure!(args.rounds >= 2, "an interval needs two rounds at least");
    setup::ensure(setup::Scope::Test, false)?;
    build::release()?;
    let mut arms =
        if args.has(Part::Workloads) || args.has(Part::Idle) { arms(args)? } else { Vec::new() };
    let has_auditd = arms.iter().any(|arm| arm.name() == arm::AUDITD);
    let _silence = (args.without_audit && !has_auditd).then(Silence::impose).transpose()?;
    let mut within = with_arms(args, &mut arms)?;
    if args.has(Part::Rungs) && !args.without_rungs && wants(args, arm::Kind::Halfsecond) {
        for each in rungs::measure(&mut Halfsecond::new(&folder()?)?)? {
            println!("{each}");
        }
    }
    if args.has(Part::Verify) && !args.without_verify {
        for figure in verify::measure()? {
            println!("{figure}");
            within &= figure.within_limit();
        }
    }
    if args.has(Part::Detect) && args.detect > 0 && wants(args, arm::Kind::Halfsecond) {
        let rows = detect::measure(&folder()?, args.detect)?;
        within &= rows.iter().all(detect::Row::within_limit);
    }
    if args.has(Part::Logins) && !args.without_logins && wants(args, arm::Kind::Halfsecond) {
        within &= logins::measure(&folder()?, args.rounds)?;
    }
    if args.has(Part::Store) && wants(args, arm::Kind::Halfsecond) {
        within &= store::measure(&folder()?, args.rounds)?;
    }
    if args.has(Part::Recording) && wants(args, arm::Kind::Halfsecond) {
        recording::measure(&folder()?, args.rounds)?;
    }
    if args.check && !within {
        bail!("a figure misses its limit");
    }
    Ok(())
}

/// The parts that compare arms; whether all limits are kept.
fn with_arms(args: &Args, arms: &mut [Box<dyn Arm>]) -> Result<bool> {
    let mut within = true;
    if args.has(Part::Workloads) {
        let mut workloads = workload::chosen(&args.workload)?;
        let mut report = Report::of(report::SENSOR);
        for round in 0..args.rounds {
            eprint!("\rround {} of {} ", round + 1, args.rounds);
            measure_round(round, arms, &mut workloads, &mut report)?;
        }
        eprintln!();
        fs::write(folder()?.join("samples.csv"), report.csv())?;
        print!("{report}");
        within &= report.within_limits();
    }
    if args.has(Part::Idle) && args.idle > 0 {
        for line in idle::measure(arms, Duration::from_secs(args.idle))? {
            println!("{line}");
            within &= line.within_limits();
        }
    }
    Ok(within)
}

/// `target/bench`, made if it is not there.
fn folder() -> Result<PathBuf> {
    let folder = repo::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

fn wants(args: &Args, kind: arm::Kind) -> bool {
    args.arm.is_empty() || args.arm.contains(&kind)
}

/// The arms of this run; those that this machine cannot run are named and left out.
fn arms(args: &Args) -> Result<Vec<Box<dyn Arm>>> {
    let wanted = |kind| wants(args, kind);
    let mut arms: Vec<Box<dyn Arm>> = vec![Box::new(Off("off")), Box::new(Off("off again"))];
    if wanted(arm::Kind::Halfsecond) {
        arms.push(Box::new(Halfsecond::new(&folder()?)?));
    }
    let mut peers: Vec<Box<dyn Arm>> = Vec::new();
    if wanted(arm::Kind::Auditd) {
        peers.push(Box::new(Auditd::new(&folder()?, args.without_audit)));
    }
    if wanted(arm::Kind::Bpftrace) {
        peers.push(Box::new(Bpftrace::new(&folder()?)));
    }
    for mut peer in peers {
        match peer.start().and_then(|()| peer.stop()) {
            Ok(()) => arms.push(peer),
            Err(error) => println!("arm {} left out: {error:#}", peer.name()),
        }
    }
    Ok(arms)
}

// === impl Args ===

impl Args {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// The order of `count` arms in a round: it moves from round to round, and every other round is
/// backwards, so that nobody always follows the same neighbour.
fn order(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |position| {
        let forward = (position + round) % count;
        if round.is_multiple_of(2) { forward } else { count - 1 - forward }
    })
}

/// One run of everything, the arms in an order that moves with the round.
fn measure_round(
    round: usize,
    arms: &mut [Box<dyn Arm>],
    workloads: &mut [Box<dyn Workload>],
    report: &mut Report,
) -> Result<()> {
    for index in order(round, arms.len()) {
        let arm = &mut arms[index];
        arm.start().with_context(|| format!("{} does not start", arm.name()))?;
        for workload in &mut *workloads {
            workload.rehearse()?;
        }
        if let Some(pid) = arm.pid() {
            process::settle(pid)?;
        }
        for workload in &mut *workloads {
            let seconds = workload.run().with_context(|| {
                format!("{} fails with {} running", workload.name(), arm.name())
            })?;
            let figure = Figure { name: workload.name(), limit: Some(workload.limit()) };
            report.add(figure, arm.name(), round, stats::median(&seconds));
        }
        arm.stop().with_context(|| format!("{} does not stop", arm.name()))?;
    }
    Ok(())
}

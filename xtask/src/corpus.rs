//! `cargo xtask corpus`: ordinary software under the sensor, which must find nothing in it.
//!
//! A Debian of its own holds the software. Every round runs each workload in it, one at a time:
//! the first rounds teach the sensor, in the others a finding above info is a false one. Each
//! workload's result is kept as it ends, so that a run that was interrupted goes on there.

mod chamber;
mod found;
mod journal;
mod report;
mod resident;
mod root;
mod watch;
mod workload;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;

use crate::{build, repo, sh};
use chamber::{Chamber, Ended, Network};
use journal::{Journal, Phase, Plan, Run, Step};
use report::Report;
use watch::Watch;
use workload::Workload;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these workloads.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Name the workloads, and do nothing else.
    #[arg(long)]
    list: bool,
    /// Rounds that teach the sensor.
    #[arg(long, default_value_t = 4)]
    learn: u32,
    /// Rounds after those, in which findings count.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Observations of a program before the detectors speak of it; so few that the learning
    /// rounds settle programs which a round starts once or twice.
    #[arg(long, default_value_t = 4)]
    observations: u32,
    /// Forget every result and everything learned.
    #[arg(long)]
    fresh: bool,
    /// Go back to what the learning rounds taught, and repeat the rounds in which findings count.
    #[arg(long)]
    again: bool,
    /// The agent to run, instead of one built now.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    #[command(flatten)]
    resident: resident::Stay,
}

/// Runs what has no result yet, and prints the table of all results.
///
/// # Errors
/// When a finding above info appeared after learning, a workload fails, or the corpus cannot run.
pub(crate) fn corpus(args: &Args) -> Result<()> {
    if let Some(minutes) = args.resident.resident {
        ensure!(sh::is_root()?, "corpus needs root: sudo env \"PATH=$PATH\" cargo xtask corpus");
        let folder = folder()?;
        let _lock = lock(&folder)?;
        let agent = build::agent(args.agent.as_deref())?;
        return resident::run(&args.resident, minutes, &args.only, &folder, &agent);
    }
    let workloads = workload::chosen(&args.only)?;
    if args.list {
        for Workload { name, runs, about, .. } in workloads {
            println!("{name:<10} {runs} in a round  {about}");
        }
        return Ok(());
    }
    ensure!(sh::is_root()?, "corpus needs root: sudo env \"PATH=$PATH\" cargo xtask corpus");
    let folder = folder()?;
    let _lock = lock(&folder)?;
    let agent = build::agent(args.agent.as_deref())?;
    if args.fresh {
        forget(&folder)?;
    }
    let plan = Plan {
        learn: args.learn,
        rounds: args.rounds,
        observations: args.observations,
        agent: digest(&agent)?,
    };
    if args.again {
        copy_state(&folder, watch::LEARNED, watch::STATE)?;
    }
    let mut journal = Journal::open(&folder, plan, args.again)?;
    let steps = journal.missing(&workloads);
    if !steps.is_empty() {
        let chamber = root::prepare(&folder, &workloads)?;
        run(&steps, &agent, &folder, &chamber, &mut journal)?;
    }
    let found = found::read(&folder, &folder)?;
    let report = Report::new(&journal, &workloads, &found);
    print!("{report}");
    if !report.passed() {
        bail!("the corpus did not pass; what the workloads said is in {}/logs", folder.display());
    }
    Ok(())
}

/// `target/corpus`, made if it is not there.
fn folder() -> Result<PathBuf> {
    let folder = repo::target().join("corpus");
    fs::create_dir_all(folder.join("logs"))
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// Held as long as the file is open: two at once would share root, state and results.
fn lock(folder: &Path) -> Result<File> {
    let file = File::create(folder.join("lock"))?;
    file.try_lock().with_context(|| format!("another corpus runs in {}", folder.display()))?;
    Ok(file)
}

/// Start of the file's SHA-256.
fn digest(path: &Path) -> Result<String> {
    let line = sh::output(Command::new("sha256sum").arg(path))?;
    Ok(line.chars().take_while(char::is_ascii_hexdigit).take(12).collect())
}

/// Everything but the root, which holds no results.
fn forget(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if [watch::STATE, watch::LEARNED, "logs"].contains(&name.as_str()) {
            fs::remove_dir_all(&path)?;
        } else if name.starts_with(journal::FILE) || name.starts_with(watch::INCIDENTS) {
            fs::remove_file(&path)?;
        }
    }
    fs::create_dir_all(folder.join("logs"))?;
    Ok(())
}

/// The sensor starts anew after learning, so that its state can be kept as it is then.
fn run(
    steps: &[Step],
    agent: &Path,
    folder: &Path,
    chamber: &Chamber,
    journal: &mut Journal,
) -> Result<()> {
    let learning = steps.iter().take_while(|step| step.phase == Phase::Learn).count();
    let (learning, counting) = steps.split_at(learning);
    if !learning.is_empty() {
        run_under_one_sensor(learning, agent, folder, chamber, journal)?;
    }
    if !learning.is_empty() || !journal.counts_already() {
        copy_state(folder, watch::STATE, watch::LEARNED)?;
    }
    run_under_one_sensor(counting, agent, folder, chamber, journal)
}

fn run_under_one_sensor(
    steps: &[Step],
    agent: &Path,
    folder: &Path,
    chamber: &Chamber,
    journal: &mut Journal,
) -> Result<()> {
    let watch = Watch::start(agent, folder, journal.plan().observations, "", None)?;
    for (number, step) in steps.iter().enumerate() {
        let Step { workload, round, phase } = step;
        eprint!("{} of {}: {phase} round {round}, {} … ", number + 1, steps.len(), workload.name);
        let run = one(step, chamber, &watch)?;
        let Run { seconds, counts, ended, .. } = &run;
        let above = counts.above_info();
        eprintln!("{ended}, {seconds:.0} s, {} records; {above} above info here", counts.records);
        journal.add(run)?;
    }
    watch.stop()
}

/// Replaces one state directory by a copy of the other.
fn copy_state(folder: &Path, from: &str, to: &str) -> Result<()> {
    let (from, to) = (folder.join(from), folder.join(to));
    ensure!(from.is_dir(), "there is no {}: nothing was learned yet", from.display());
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    sh::output(Command::new("cp").arg("-a").args([from, to]))?;
    Ok(())
}

/// One workload in one round, with what the sensor counted meanwhile.
fn one(step: &Step, chamber: &Chamber, watch: &Watch) -> Result<Run> {
    let Step { workload, round, phase } = *step;
    let before = watch.counts()?;
    let (began, clock) = (Timestamp::now(), Instant::now());
    let mut ended = Ended::Done;
    for _ in 0..workload.runs {
        ended = chamber.run(workload.name, workload.script, Network::Loopback)?;
        if ended != Ended::Done {
            break;
        }
    }
    let seconds = clock.elapsed().as_secs_f64();
    watch.drain()?;
    let counts = watch.counts()?.since(&before);
    let (name, until) = (workload.name.to_owned(), Timestamp::now());
    Ok(Run { workload: name, round, phase, began, until, seconds, ended, counts })
}

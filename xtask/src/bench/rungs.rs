//! What each kernel program costs per start of a program and per login: the cost of every rung in
//! use apart from all others, by the kernel's own clock around each run.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::arm::{Arm as _, Halfsecond};
use super::process;
use super::sshd::Server;
use super::stats;
use super::workload::Exec;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const RUNS: &str = "halfsecond_program_runs_total{program=\"";
const SECONDS: &str = "halfsecond_program_seconds_total{program=\"";
const STARTS: u32 = 500;
const LOGINS: u32 = 10;
/// Ten of the agent's rounds through the ring, so that it has paid for what was counted.
const SETTLE: Duration = Duration::from_secs(1);

/// The figures of one kind of operation.
pub(super) struct Rungs {
    operation: &'static str,
    /// One of them on the bare machine, the median, seconds.
    bare: f64,
    programs: Vec<Program>,
    /// CPU time of the agent per operation, seconds.
    agent: f64,
}

struct Program {
    name: String,
    /// Per operation.
    runs: f64,
    seconds: f64,
}

/// The kernel counts runs and their time while this lives; that itself costs two readings of a
/// clock a run, which are part of the figures.
struct Counting {
    before: String,
}

/// Runs and seconds of each program so far.
type Totals = BTreeMap<String, (f64, f64)>;

/// Runs both operations with and without a sensor of its own.
pub(super) fn measure(sensor: &mut Halfsecond) -> Result<Vec<Rungs>> {
    let server = Server::start()?;
    Ok(vec![
        one("start of a program", STARTS, sensor, Exec::once)?,
        one("login", LOGINS, sensor, || server.login())?,
    ])
}

fn one(
    operation: &'static str,
    count: u32,
    sensor: &mut Halfsecond,
    mut run: impl FnMut() -> Result<()>,
) -> Result<Rungs> {
    let mut repeat = |times: u32| -> Result<Vec<f64>> {
        (0..times)
            .map(|_| {
                let started = Instant::now();
                run()?;
                Ok(started.elapsed().as_secs_f64())
            })
            .collect()
    };
    let bare = stats::median(&repeat(count)?);
    sensor.start()?;
    // What happens the first time only is not the price of every time.
    repeat(count / 10)?;
    let pid = sensor.pid().context("the sensor does not run")?;
    process::settle(pid)?;
    let counting = Counting::start()?;
    let (before, idle) = (totals(&sensor.page("/metrics")?), process::cpu_time(pid)?);
    repeat(count)?;
    thread::sleep(SETTLE);
    let busy = process::cpu_time(pid)?;
    let after = totals(&sensor.page("/metrics")?);
    drop(counting);
    sensor.stop()?;
    let count = f64::from(count);
    let mut programs: Vec<Program> = after
        .into_iter()
        .map(|(name, (runs, seconds))| {
            let (runs_before, seconds_before) = before.get(&name).copied().unwrap_or_default();
            let (runs, seconds) =
                ((runs - runs_before) / count, (seconds - seconds_before) / count);
            Program { name, runs, seconds }
        })
        .filter(|program| program.runs > 0.0)
        .collect();
    programs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    ensure!(!programs.is_empty(), "no program of the sensor ran; is {STATS} writable?");
    let agent = busy.saturating_sub(idle).as_secs_f64() / count;
    Ok(Rungs { operation, bare, programs, agent })
}

/// From a page of metrics.
fn totals(page: &str) -> Totals {
    let mut totals = Totals::new();
    for line in page.lines() {
        let value = |rest: &str| -> Option<(String, f64)> {
            let (name, value) = rest.split_once("\"} ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        if let Some((name, runs)) = line.strip_prefix(RUNS).and_then(value) {
            totals.entry(name).or_default().0 = runs;
        } else if let Some((name, seconds)) = line.strip_prefix(SECONDS).and_then(value) {
            totals.entry(name).or_default().1 = seconds;
        }
    }
    totals
}

// === impl Counting ===

impl Counting {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(STATS).with_context(|| format!("cannot read {STATS}"))?;
        fs::write(STATS, "1").with_context(|| format!("cannot write {STATS}"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATS, self.before.trim()) {
            eprintln!("{STATS} stays on: {error}");
        }
    }
}

// === impl Rungs ===

impl fmt::Display for Rungs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, bare, programs, agent } = self;
        writeln!(f, "each program, per {operation} ({:.0} us bare)", bare * 1e6)?;
        for Program { name, runs, seconds } in programs {
            let share = 100.0 * seconds / bare;
            writeln!(f, "  {name:<22} {runs:>8.1} runs {:>9.2} us {share:>7.3} %", seconds * 1e6)?;
        }
        write!(f, "  {:<22} {:>13} {:>9.2} us", "the agent, elsewhere", "", agent * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_a_page_of_metrics() {
        let page = "# TYPE halfsecond_program_runs_total counter\n\
            halfsecond_program_runs_total{program=\"process_exec\"} 12\n\
            halfsecond_program_seconds_total{program=\"process_exec\"} 0.5\n\
            halfsecond_bpf_memory_bytes 4096\n";
        assert_eq!(totals(page), Totals::from([("process_exec".to_owned(), (12.0, 0.5))]));
    }
}

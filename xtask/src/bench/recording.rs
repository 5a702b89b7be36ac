//! What `run --record` costs on a busy host, next to `run`: CPU time of the agent, what those wait who
//! start programs and log in, and bytes of the recording.
//!
//! Two workloads in each round: a storm of starts, more at once than there are processors, and a crowd of
//! logins of which a fifth break off. The agent's CPU time is taken until it has come to rest, so that
//! what it writes later counts. The arm without a recording runs twice in each round; unless that ratio's
//! interval holds 1.00 nothing can be concluded. A recording that could not keep up ends early, and
//! its figures would be too small: that fails.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::arm::{Arm as _, Halfsecond};
use super::logins::crowd::{Visit, crowd};
use super::process;
use super::report::{Figure, Names, Report};
use super::sshd::Server;
use super::stats;
use super::workload::Exec;

/// Starts in a storm, and how many at once.
const STARTS: usize = 3000;
const STORM: usize = 8;
/// Clients, all at once.
const CLIENTS: usize = 100;
/// Longer than a recording keeps what it was told to itself.
const WRITTEN: Duration = Duration::from_millis(2500);
/// In the log of a sensor whose recording has a hole.
const ENDED_EARLY: &str = "the recording ends early";

const NAMES: Names = Names { base: "run", control: "run again", judged: "run --record" };

/// One workload's figures.
struct Load {
    name: &'static str,
    /// What one operation is.
    unit: &'static str,
    count: usize,
    time: Figure,
    cpu: Figure,
}

const STORM_LOAD: Load = Load {
    name: "exec storm",
    unit: "start",
    count: STARTS,
    time: Figure { name: "storm, per exec", limit: None },
    cpu: Figure { name: "agent, per exec", limit: None },
};
const LOGIN_LOAD: Load = Load {
    name: "login crowd",
    unit: "connection",
    count: CLIENTS,
    time: Figure { name: "crowd, a visit", limit: None },
    cpu: Figure { name: "agent, a visit", limit: None },
};

/// What was recorded of a workload.
#[derive(Clone, Debug)]
struct Recorded {
    load: &'static str,
    unit: &'static str,
    /// Bytes of the file in each round, per second of the workload and per operation.
    per_second: Vec<f64>,
    per_operation: Vec<f64>,
}

/// Runs the rounds and prints their figures.
///
/// # Errors
/// Also where a recording ended early.
pub(super) fn measure(folder: &Path, rounds: usize) -> Result<()> {
    let folder = folder.join("recording");
    let server = Server::start()?;
    let called = |name: &'static str, own: &str| Halfsecond::called(name, &folder.join(own));
    let mut arms = [
        called(NAMES.base, "run")?,
        called(NAMES.control, "again")?,
        called(NAMES.judged, "record")?.recorded(),
    ];
    let mut report = Report::of(NAMES);
    let mut recorded = [Recorded::of(&STORM_LOAD), Recorded::of(&LOGIN_LOAD)];
    for round in 0..rounds {
        eprint!("\rrecording: round {} of {rounds} ", round + 1);
        for index in super::order(round, arms.len()) {
            one_arm(round, &mut arms[index], &server, &mut report, &mut recorded)?;
        }
    }
    eprintln!();
    fs::write(folder.join("samples.csv"), report.csv())?;
    println!(
        "{STARTS} starts, {STORM} at once, and {CLIENTS} logins at once, a fifth broken off: the agent \
         with a recording, next to one without"
    );
    print!("{report}");
    for one in recorded {
        println!("{one}");
    }
    Ok(())
}

/// Both workloads under one sensor.
fn one_arm(
    round: usize,
    sensor: &mut Halfsecond,
    server: &Server,
    report: &mut Report,
    [storm, logins]: &mut [Recorded; 2],
) -> Result<()> {
    let name = sensor.name();
    sensor.start().with_context(|| format!("{name} does not start"))?;
    Exec::once()?;
    server.login()?;
    let started = |_| Exec::once();
    one_load(round, sensor, &STORM_LOAD, (&mut *report, storm), || {
        crowd(STARTS, STORM, started).map(drop)
    })?;
    one_load(round, sensor, &LOGIN_LOAD, (report, logins), || {
        crowd(CLIENTS, CLIENTS, |number| Visit::of(number).timed(server))?;
        process::childless(server.pid())
    })?;
    sensor.stop().with_context(|| format!("{name} does not stop"))?;
    let log = sensor.log()?;
    ensure!(!log.contains(ENDED_EARLY), "the recording of round {} ended early:\n{log}", round + 1);
    Ok(())
}

fn one_load(
    round: usize,
    sensor: &Halfsecond,
    load: &Load,
    (report, recorded): (&mut Report, &mut Recorded),
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let pid = sensor.pid().context("the sensor does not run")?;
    process::settle(pid)?;
    let (before, size) = (process::cpu_time(pid)?, sensor.bytes_recorded()?);
    let began = Instant::now();
    work().with_context(|| format!("the {} fails under {}", load.name, sensor.name()))?;
    let elapsed = began.elapsed().as_secs_f64();
    // Not a synchronisation: what is written by then belongs to the work.
    thread::sleep(WRITTEN);
    process::settle(pid)?;
    let spent = process::cpu_time(pid)?.saturating_sub(before).as_secs_f64();
    let count = f64::from(u32::try_from(load.count)?);
    report.add(load.time, sensor.name(), round, elapsed / count);
    report.add(load.cpu, sensor.name(), round, spent / count);
    if let (Some(before), Some(after)) = (size, sensor.bytes_recorded()?) {
        recorded.add(after.saturating_sub(before), elapsed, count)?;
    }
    Ok(())
}

// === impl Recorded ===

impl Recorded {
    fn of(load: &Load) -> Self {
        let Load { name, unit, .. } = *load;
        Self { load: name, unit, per_second: Vec::new(), per_operation: Vec::new() }
    }

    /// Bytes that a workload of so many operations left in so many seconds.
    fn add(&mut self, bytes: u64, seconds: f64, operations: f64) -> Result<()> {
        let bytes = f64::from(u32::try_from(bytes).context("a recording of 4 GiB")?);
        self.per_second.push(bytes / seconds);
        self.per_operation.push(bytes / operations);
        Ok(())
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, unit, per_second, per_operation } = self;
        let (second, operation) = (stats::estimate(per_second), stats::estimate(per_operation));
        write!(
            f,
            "recorded of the {load}: {:.1} kB/s [{:.1}, {:.1}], {:.0} bytes per {unit} [{:.0}, {:.0}]",
            second.median / 1e3,
            second.low / 1e3,
            second.high / 1e3,
            operation.median,
            operation.low,
            operation.high
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_by_second_and_by_operation() {
        let mut recorded = Recorded::of(&STORM_LOAD);
        for _ in 0..5 {
            recorded.add(120_000, 2.0, 3000.0).unwrap();
        }
        assert_eq!(
            recorded.to_string(),
            "recorded of the exec storm: 60.0 kB/s [60.0, 60.0], 40 bytes per start [40, 40]"
        );
        assert!(recorded.add(1 << 40, 1.0, 1.0).is_err());
    }

    #[test]
    fn a_recording_with_a_hole_is_recognised_by_what_the_sensor_says_of_it() {
        let source = crate::repo::root().join("sensor/src/record/recorder.rs");
        assert!(fs::read_to_string(source).unwrap().contains(ENDED_EARLY));
    }
}

//! A hundred logins at once, a fifth of them broken off: whether the sensor tells of every connection,
//! what memory it takes meanwhile, and what it costs sshd and those who log in.
//!
//! Two runs. In the first one sensor sees 2,000 connections whose ports are known, and what it tells is
//! held against them. In the second the arms alternate as for the other workloads, and clients reach
//! the server directly.

pub(super) mod crowd;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::arm::{Arm, Halfsecond, Off};
use super::process;
use super::report::{self, Figure, Report};
use super::sshd::Server;
use super::stats;
use crowd::{Accounts, Visit, crowd};

const AT_ONCE: usize = 100;
const IN_ALL: usize = 2000;
/// Between two looks at the sensor's memory, connections.
const SAMPLE_EVERY: usize = 50;
/// Of the last quarter's memory to that of the second: what is kept of each login is part of it.
const GROWTH_LIMIT: f64 = 1.10;
/// Until everything that has ended is told.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What never reached the sensor, and what it did not come to look at.
const LOSSES: [&str; 2] = ["halfsecond_records_lost_total", "halfsecond_queue_dropped_total"];
/// Errors that are shown one by one.
const SHOWN: usize = 10;

const TIME: Figure = Figure { name: "100 logins", limit: Some(1.01) };
const CPU: Figure = Figure { name: "sshd's CPU", limit: Some(1.02) };

/// What the sensor told of a crowd.
#[derive(Debug)]
struct Account {
    /// By port and outcome: connections of which too few are told, or too many.
    wrong: Vec<String>,
    /// What the metrics count.
    counted: f64,
    /// Series of records and observations that were lost or dropped on the way, and how many.
    lost: Vec<(String, f64)>,
    /// Resident memory, bytes, in the order of the connections.
    memory: Vec<f64>,
}

/// Runs both and prints their figures; whether all limits are kept.
pub(super) fn measure(folder: &Path, rounds: usize) -> Result<bool> {
    let server = Server::start()?;
    let account = account(&server, &mut Halfsecond::new(folder)?)?;
    println!("{account}");
    let mut arms: [Box<dyn Arm>; 3] =
        [Box::new(Off("off")), Box::new(Off("off again")), Box::new(Halfsecond::new(folder)?)];
    let mut report = Report::of(report::SENSOR);
    for round in 0..rounds {
        eprint!("\rlogins: round {} of {rounds} ", round + 1);
        one_round(round, &server, &mut arms, &mut report)?;
    }
    eprintln!();
    fs::write(folder.join("logins.csv"), report.csv())?;
    print!("{report}");
    Ok(account.within_limits() && report.within_limits())
}

/// A crowd under every arm.
fn one_round(
    round: usize,
    server: &Server,
    arms: &mut [Box<dyn Arm>],
    report: &mut Report,
) -> Result<()> {
    for index in super::order(round, arms.len()) {
        let arm = &mut arms[index];
        arm.start().with_context(|| format!("{} does not start", arm.name()))?;
        server.login()?;
        if let Some(pid) = arm.pid() {
            process::settle(pid)?;
        }
        process::childless(server.pid())?;
        let before = process::family_time(server.pid())?;
        let times = crowd(AT_ONCE, AT_ONCE, |number| Visit::of(number).timed(server))
            .with_context(|| format!("the crowd fails with {} running", arm.name()))?;
        process::childless(server.pid())?;
        let cpu = process::family_time(server.pid())? - before;
        let times: Vec<f64> = times.into_iter().flatten().collect();
        report.add(TIME, arm.name(), round, stats::median(&times));
        report.add(CPU, arm.name(), round, cpu);
        arm.stop().with_context(|| format!("{} does not stop", arm.name()))?;
    }
    Ok(())
}

/// What a sensor of its own tells of a crowd whose ports are known.
fn account(server: &Server, sensor: &mut Halfsecond) -> Result<Account> {
    sensor.start()?;
    let pid = sensor.pid().context("the sensor does not run")?;
    // The first is told as far as a sensor can that has never seen this sshd.
    server.login()?;
    process::settle(pid)?;
    let counted = sum(&sensor.page("/metrics")?, "halfsecond_logins_total");
    let since = Timestamp::now();
    let memory = Mutex::new(Vec::new());
    let made = crowd(IN_ALL, AT_ONCE, |number| {
        if number.is_multiple_of(SAMPLE_EVERY) {
            eprint!("\rlogins: {number} of {IN_ALL} ");
            let sample = (number, process::resident(pid)?);
            memory.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        }
        let visit = Visit::of(number);
        Ok((visit.seen(server)?, visit.outcome().to_owned()))
    })?;
    eprintln!();
    process::childless(server.pid())?;
    let told = told(sensor, since)?;
    let page = sensor.page("/metrics")?;
    sensor.stop()?;
    let mut memory = memory.into_inner().unwrap_or_else(PoisonError::into_inner);
    memory.sort_unstable();
    Ok(Account {
        wrong: differences(&counts(made), &counts(told)),
        counted: sum(&page, "halfsecond_logins_total") - counted,
        lost: LOSSES.into_iter().flat_map(|name| series(&page, name)).collect(),
        memory: memory.into_iter().map(|(_, bytes)| as_float(bytes)).collect(),
    })
}

/// Port and outcome of every connection since then, once all are told as ended or time is over.
fn told(sensor: &Halfsecond, since: Timestamp) -> Result<Vec<(u16, String)>> {
    let asked = Instant::now();
    loop {
        let page = sensor.page(&format!("/api/v1/logins?limit=20000&since={since}"))?;
        let answer: Value = serde_json::from_str(&page)?;
        let logins = answer["logins"].as_array().context("an answer without logins")?;
        ensure!(answer["more"] == false, "one answer does not hold them all");
        let all = logins.len() >= IN_ALL && logins.iter().all(|login| login["end"].is_string());
        if all || asked.elapsed() > PATIENCE {
            return logins.iter().map(of).collect();
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Port 0 where no peer is told.
fn of(login: &Value) -> Result<(u16, String)> {
    let port = login["peer_port"].as_u64().unwrap_or_default();
    let Some(outcome) = login["outcome"].as_str() else { bail!("no outcome: {login}") };
    Ok((u16::try_from(port)?, outcome.to_owned()))
}

fn counts(connections: Vec<(u16, String)>) -> Accounts {
    let mut counts = Accounts::new();
    for connection in connections {
        *counts.entry(connection).or_default() += 1;
    }
    counts
}

/// What was made and not told, and what was told and not made.
fn differences(made: &Accounts, told: &Accounts) -> Vec<String> {
    let one_way = |from: &Accounts, to: &Accounts, what: &str| -> Vec<String> {
        let short = from.iter().filter_map(|(key, count)| {
            let (port, outcome) = key;
            let missing = count.saturating_sub(to.get(key).copied().unwrap_or(0));
            (missing > 0).then(|| format!("{outcome} from port {port}: {missing} {what}"))
        });
        short.collect()
    };
    [one_way(made, told, "made, not told"), one_way(told, made, "told, not made")].concat()
}

/// Of all series of one metric.
fn sum(page: &str, name: &str) -> f64 {
    series(page, name).into_iter().map(|(_, value)| value).sum()
}

/// The series of one metric that are not zero, with their labels.
fn series(page: &str, name: &str) -> Vec<(String, f64)> {
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        // Not of a metric with a longer name.
        let labels = series.strip_prefix(name)?;
        let value: f64 = value.parse().ok()?;
        let is_one = labels.is_empty() || labels.starts_with('{');
        (is_one && value > 0.0).then(|| (series.to_owned(), value))
    });
    values.collect()
}

/// Bytes of memory are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

// === impl Account ===

impl Account {
    fn growth(&self) -> f64 {
        let quarter = self.memory.len() / 4;
        let second = self.memory.get(quarter..2 * quarter).unwrap_or_default();
        let last = self.memory.get(self.memory.len() - quarter..).unwrap_or_default();
        stats::median(last) / stats::median(second)
    }

    fn within_limits(&self) -> bool {
        self.wrong.is_empty()
            && (self.counted - as_float(IN_ALL as u64)).abs() < 0.5
            && self.lost.is_empty()
            && self.growth() <= GROWTH_LIMIT
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wrong, counted, lost, memory } = self;
        for line in wrong.iter().take(SHOWN) {
            writeln!(f, "  WRONG: {line}")?;
        }
        if wrong.len() > SHOWN {
            writeln!(f, "  and {} more", wrong.len() - SHOWN)?;
        }
        for (series, count) in lost {
            writeln!(f, "  LOST: {series} {count}")?;
        }
        let (wrong, growth) = (wrong.len(), self.growth());
        writeln!(
            f,
            "{IN_ALL} connections, {AT_ONCE} at once: {wrong} told otherwise, {counted} counted"
        )?;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let largest = memory.iter().copied().fold(0.0, f64::max);
        write!(
            f,
            "its memory: {:.1} MiB at the start, {:.1} MiB at most, {growth:.3} of the second quarter \
             in the last; limit {GROWTH_LIMIT:.2}",
            mib(memory.first().copied().unwrap_or_default()),
            mib(largest)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(wrong: &[&str], counted: f64, lost: &[&str], end: f64) -> Account {
        let memory = [60.0, 80.0, 80.0, end].map(|mib| vec![mib; 10]).concat();
        let wrong = wrong.iter().map(|text| (*text).to_owned()).collect();
        let lost = lost.iter().map(|text| ((*text).to_owned(), 1.0)).collect();
        Account { wrong, counted, lost, memory }
    }

    #[test]
    fn whatever_is_missing_or_too_much_misses_the_limit() {
        assert!(account(&[], 2000.0, &[], 84.0).within_limits(), "what is kept may grow");
        assert!(!account(&["x"], 2000.0, &[], 80.0).within_limits());
        assert!(!account(&[], 1999.0, &[], 80.0).within_limits());
        assert!(!account(&[], 2000.0, &["x"], 80.0).within_limits());
        assert!(!account(&[], 2000.0, &[], 100.0).within_limits());
    }

    #[test]
    fn connections_are_accounted_for_both_ways_and_a_port_may_come_again() {
        let of = |list: &[(u16, &str)]| {
            counts(list.iter().map(|(port, outcome)| (*port, (*outcome).to_owned())).collect())
        };
        let made = of(&[(5, "accepted"), (5, "accepted"), (6, "aborted")]);
        assert_eq!(differences(&made, &made), Vec::<String>::new());
        let told = of(&[(5, "accepted"), (6, "refused")]);
        let wrong = [
            "accepted from port 5: 1 made, not told",
            "aborted from port 6: 1 made, not told",
            "refused from port 6: 1 told, not made",
        ];
        assert_eq!(differences(&made, &told), wrong);
    }

    #[test]
    fn a_metric_is_not_taken_for_one_with_a_longer_name() {
        let page = "a_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 9\na_total 1\na_total{x=\"3\"} 0\n";
        assert!((sum(page, "a_total") - 6.0).abs() < 1e-9);
        assert_eq!(series(page, "a_total").len(), 3);
    }
}

//! What is learned survives the sudden end of the sensor.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ::sensor::baseline::{Baseline, read_subjects};
use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    lab::{Machine, Method, SshdLab, Version, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings, State, times},
};

/// What may be lost: the flush interval of these tests is half a second, the rest is patience with
/// a busy machine. The promise is a few seconds.
const LAST: Duration = Duration::from_secs(3);
/// Subject of the sshd that is logged in to, up to its build.
const SUBJECT: &str = "/usr/sbin/sshd ";

/// Never settles: everything is learning.
fn settings() -> Settings<'static> {
    Settings { observations: 100_000, ..Settings::default() }
}

/// Logins accepted into the baseline, as a copy of the store tells: the store itself is left as
/// the killed sensor left it.
pub(crate) fn logins_stored(state: &Path) -> Result<u64> {
    let copy = State::copy_of(state)?;
    let subjects = read_subjects(copy.path())?;
    let mut found = 0;
    for (subject, bytes) in subjects {
        let baseline: Baseline =
            serde_json::from_slice(&bytes).with_context(|| format!("baseline of {subject}"))?;
        if subject.starts_with(SUBJECT) {
            found += baseline.starts;
        }
    }
    Ok(found)
}

/// Logs in until told to stop; gives when each login was over.
fn log_in_until(lab: &SshdLab, stop: &AtomicBool) -> Result<Vec<Instant>> {
    let mut done = Vec::new();
    for method in Method::GOOD.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        learned::login(lab, method)?;
        done.push(Instant::now());
    }
    Ok(done)
}

/// A number below `bound` that differs from run to run.
fn random_below(bound: u64) -> Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes) % bound)
}

/// Runs a sensor on `state` while someone logs in, kills it at a random point, and gives how many
/// logins were over long enough before that to be kept.
fn learn_and_kill(
    machine: &Arc<Machine>,
    lab: &SshdLab,
    state: &State,
    before: u64,
) -> Result<u64> {
    let sensor = Sensor::start(machine, state.path(), settings())?;
    let stop = AtomicBool::new(false);
    let (killed, done) = thread::scope(|scope| {
        let client = scope.spawn(|| log_in_until(lab, &stop));
        // Anywhere in a cycle of flushes: some way into the logins, counted in its own records.
        let records = 800 + random_below(1_400)?;
        let enough = sensor.scrape_until("records of logins", |scrape| {
            let ring = [("ring", "priority")];
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let wanted = records as f64;
            scrape.sum("halfsecond_records_consumed_total", &ring) >= wanted
        });
        let killed = Instant::now();
        let ended = sensor.kill();
        stop.store(true, Ordering::Relaxed);
        let done = client.join().map_err(|_| anyhow!("the client panicked"))??;
        enough?;
        ensure!(ended?.code().is_none(), "it was not killed");
        Ok((killed, done))
    })?;
    let kept = done.iter().filter(|over| **over + LAST < killed).count();
    let all = done.iter().filter(|over| **over < killed).count();
    let stored = logins_stored(state.path())?;
    let due = before + u64::try_from(kept)?;
    eprintln!(
        "killed after {all} more logins: {stored} stored, {due} due, of {}",
        before + u64::try_from(all)?
    );
    ensure!(stored >= due, "{stored} logins stored, {due} were over {LAST:?} before the kill");
    ensure!(stored <= before + u64::try_from(done.len())?, "{stored} logins stored of fewer");
    Ok(stored)
}

#[test]
fn killed_sensor_loses_at_most_the_last_seconds_of_learning() {
    let machine = Machine::acquire().unwrap();
    let rounds = times("HALFSECOND_E2E_KILLS", 4).unwrap();
    let state = State::new().unwrap();
    let lab = learned::server(&machine, Version::V9_2).unwrap();
    let mut stored = 0;
    for _ in 0..rounds {
        stored = learn_and_kill(&machine, &lab, &state, stored).unwrap();
    }
    assert!(stored > 0);
    // It takes up what is there: nothing was set aside, and the count goes on from where it was.
    let sensor = Sensor::start(&machine, state.path(), settings()).unwrap();
    learned::login(&lab, Method::Rsa).unwrap();
    sensor.caught_up(&lab).unwrap();
    wait_until("a login more in the store", PATIENCE, || {
        Ok((logins_stored(state.path())? > stored).then_some(()))
    })
    .unwrap();
    let failures = sensor.scrape().unwrap().show("halfsecond_store_failures_total");
    assert!(failures.is_empty(), "{failures:?}");
    sensor.stop().unwrap().must_be_quiet().unwrap();
    let aside: Vec<_> = std::fs::read_dir(state.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("corrupt"))
        .collect();
    assert!(aside.is_empty(), "{aside:?}");
}

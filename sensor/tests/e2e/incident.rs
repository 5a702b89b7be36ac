//! The XZ-like fixture gives one critical incident that says what happened, every time.
//!
//! Each trial is a sensor of its own, on a copy of what was learned from clean logins, with a
//! server of its own. `HALFSECOND_E2E_REPEAT=20` repeats each as often as the sensor promises.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    lab::{Machine, Method, SshdLab, Variant},
    learned,
    running::{PATIENCE, Sensor, Settings, Told, times},
};

const FUNCTION: &str = "RSA_public_decrypt";
const BURN_MS: u32 = 300;
/// What of the burn must be found at least: the clock of CPU time and the burn's own are not one.
const BURN_SECONDS: f64 = 0.25;

/// When the fixture comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// The server is started with it: the listener itself is hooked (and burns).
    AtStart,
    /// A clean listener runs; the next connection is the first process that is hooked.
    Upgrade,
}

/// One trial.
#[derive(Clone, Copy, Debug)]
struct Case {
    variant: Variant,
    burn_ms: u32,
    arrival: Arrival,
}

/// What a trial that went well measured.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// From what the attack needs (its server, or a login where the server was there before) to the
    /// first line of the critical incident.
    elapsed: Duration,
    /// From reading the slot to the client's being let in.
    ahead: Duration,
}

// === impl Case ===

impl Case {
    /// What must have spoken, and nothing less, before the trial is over.
    fn detectors(self) -> BTreeSet<&'static str> {
        let mut wanted = BTreeSet::from(["got_redirected", "library_unexpected"]);
        if self.variant != Variant::TailJump {
            wanted.insert("foreign_caller");
        }
        if self.burn_ms > 0 {
            wanted.extend(["link_time_shift", "auth_cpu_shift"]);
        }
        if self.variant == Variant::Audit {
            wanted.insert("preload_env");
        }
        wanted
    }

    fn server(self, machine: &Arc<Machine>) -> Result<SshdLab> {
        let builder = SshdLab::builder(machine).variant(self.variant).burn_ms(self.burn_ms);
        match self.arrival {
            Arrival::AtStart => builder.start(),
            Arrival::Upgrade => builder.late().start(),
        }
    }

    /// Runs it.
    fn run(self, machine: &Arc<Machine>) -> Result<Outcome> {
        let state = learned::state(machine)?;
        let sensor = Sensor::start(machine, state.path(), Settings::default())?;
        let mut begun = Instant::now();
        let lab = self.server(machine)?;
        if self.arrival == Arrival::Upgrade {
            lab.arrive()?;
            begun = Instant::now();
        } else {
            // Told before anyone logs in.
            redirected(&sensor, begun)?;
        }
        let let_in = lab.timed_login(Method::Rsa)?;
        let elapsed = redirected(&sensor, begun)?;
        self.wait_for_all(&sensor)?;
        sensor.caught_up(&lab)?;
        let told = sensor.stop()?;
        let ahead =
            self.check(&told, &lab, let_in).with_context(|| format!("{:#}", told.last()))?;
        Ok(Outcome { elapsed, ahead })
    }

    fn wait_for_all(self, sensor: &Sensor) -> Result<()> {
        let wanted = self.detectors();
        let spoken = |line: &Value| {
            let found = detectors(line);
            wanted.iter().all(|detector| found.contains(detector))
        };
        let what = format!("an incident with {wanted:?}");
        sensor.agent().wait_for(&what, 0, PATIENCE, spoken).map(drop)
    }

    /// Gives how long before the client was let in the slot was read.
    fn check(self, told: &Told, lab: &SshdLab, let_in: Timestamp) -> Result<Duration> {
        let incident = told.only()?;
        ensure!(incident["severity"] == "critical", "severity {}", incident["severity"]);
        let path = hook_path(lab)?;
        let path = path.to_str().context("a path that is no text")?;
        slot_is_named(incident, path)?;
        let ahead = self.slot_was_read_in_time(incident, let_in)?;
        if self.variant != Variant::TailJump {
            let caller = evidence(incident, "foreign_caller", "caller")?;
            ensure!(caller["function"] == FUNCTION, "{caller}");
            ensure!(caller["caller_module"] == path, "{caller}");
        }
        if self.burn_ms > 0 {
            burn_is_named(incident, lab)?;
        }
        let story = incident["story"].as_str().context("no story")?;
        let name = path.rsplit('/').next().unwrap_or(path);
        ensure!(story.contains(FUNCTION) && story.contains(name), "the story: {story}");
        Ok(ahead)
    }

    /// The proof was taken before the client was let in; where the listener was clean, from that
    /// very connection.
    fn slot_was_read_in_time(self, incident: &Value, let_in: Timestamp) -> Result<Duration> {
        let finding = finding(incident, "got_redirected")?;
        let time: Timestamp = finding["time"].as_str().context("no time")?.parse()?;
        ensure!(time < let_in, "the slot was read at {time}, the client let in at {let_in}");
        if self.arrival == Arrival::Upgrade {
            let connection = evidence(incident, "got_redirected", "connection")?;
            ensure!(connection["authenticated"] == false, "{connection}");
            let peer = connection["peer"].as_str().unwrap_or_default();
            ensure!(peer.starts_with("127.0.0.1:"), "{connection}");
        }
        Ok(Duration::try_from(let_in.duration_since(time))?)
    }
}

/// Path of the library that the slot leads into, as the server maps it.
fn hook_path(lab: &SshdLab) -> Result<PathBuf> {
    let fixture = lab.fixture();
    let hook = fixture.hook_library().context("a variant without a hook")?;
    let mounted = fixture.mounts.iter().find(|(file, _)| file == hook);
    Ok(mounted.map_or_else(|| hook.to_owned(), |(_, onto)| onto.clone()))
}

/// Waits for a critical incident; the time since `begun`.
fn redirected(sensor: &Sensor, begun: Instant) -> Result<Duration> {
    let critical =
        |line: &Value| line["severity"] == "critical" && detectors(line).contains("got_redirected");
    sensor.agent().wait_for("a critical incident", 0, PATIENCE, critical)?;
    Ok(begun.elapsed())
}

fn detectors(incident: &Value) -> BTreeSet<&str> {
    let findings = incident["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    findings.iter().filter_map(|finding| finding["detector"].as_str()).collect()
}

fn finding<'a>(incident: &'a Value, detector: &str) -> Result<&'a Value> {
    let findings = incident["findings"].as_array().context("no findings")?;
    let found = findings.iter().find(|finding| finding["detector"] == detector);
    found.with_context(|| format!("no {detector}"))
}

fn evidence<'a>(incident: &'a Value, detector: &str, kind: &str) -> Result<&'a Value> {
    let finding = finding(incident, detector)?;
    let all = finding["evidence"].as_array().context("no evidence")?;
    let found = all.iter().find(|one| one["kind"] == kind);
    found.with_context(|| format!("{detector} without {kind}"))
}

fn slot_is_named(incident: &Value, path: &str) -> Result<()> {
    let slot = evidence(incident, "got_redirected", "slot")?;
    let symbol = slot["symbol"].as_str().unwrap_or_default();
    ensure!(symbol.split('@').next() == Some(FUNCTION), "{slot}");
    ensure!(slot["actual_module"] == path, "not {path}: {slot}");
    let exe = slot["module"].as_str().unwrap_or_default();
    ensure!(exe.ends_with("/sshd"), "{slot}");
    let expected = slot["expected"].as_str().unwrap_or_default();
    ensure!(expected.contains("libcrypto.so"), "{slot}");
    Ok(())
}

/// The burn is in liblzma's place in every variant.
fn burn_is_named(incident: &Value, lab: &SshdLab) -> Result<()> {
    let library = lab.fixture().mounts.first().context("no library in front of liblzma")?;
    let library = library.1.to_str().context("a path that is no text")?;
    let link = evidence(incident, "link_time_shift", "timing")?;
    ensure!(link["module"] == library, "{link}");
    for (what, seconds) in [("link", &link["seconds"]), ("module", &link["module_seconds"])] {
        let seconds = seconds.as_f64().unwrap_or_default();
        ensure!(seconds >= BURN_SECONDS, "{what}: {seconds} s of the burn found: {link}");
    }
    let auth = evidence(incident, "auth_cpu_shift", "timing")?;
    let seconds = auth["seconds"].as_f64().unwrap_or_default();
    ensure!(seconds >= BURN_SECONDS, "{auth}");
    let baseline = auth["baseline_seconds"].as_f64().unwrap_or(f64::MAX);
    ensure!(baseline < BURN_SECONDS, "learned with the burn: {auth}");
    Ok(())
}

/// Every burn and arrival of one variant, as often as asked; prints a row each.
fn is_found(variant: Variant) -> Result<()> {
    let repeat = times("HALFSECOND_E2E_REPEAT", 1)?;
    let mut failures = Vec::new();
    for burn_ms in [BURN_MS, 0] {
        for arrival in [Arrival::AtStart, Arrival::Upgrade] {
            // Others may use the machine between two rows.
            let machine = Machine::acquire()?;
            let case = Case { variant, burn_ms, arrival };
            let mut outcomes = Vec::new();
            for trial in 1..=repeat {
                match case.run(&machine) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(error) => failures.push(format!("{case:?}, trial {trial}: {error:?}")),
                }
            }
            eprintln!("{}", row(case, &outcomes, repeat));
        }
    }
    if !failures.is_empty() {
        bail!("{} trials failed:\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

/// Found how often, median time to the incident, shortest time by which the proof came first.
fn row(case: Case, outcomes: &[Outcome], repeat: usize) -> String {
    let mut elapsed: Vec<f64> = outcomes.iter().map(|one| one.elapsed.as_secs_f64()).collect();
    elapsed.sort_unstable_by(f64::total_cmp);
    let median = elapsed.get(elapsed.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    let ahead = outcomes.iter().map(|one| one.ahead.as_secs_f64()).fold(f64::NAN, f64::min);
    format!(
        "| {:?} | {} ms | {:?} | {}/{repeat} | {median:.3} s | {:.0} ms |",
        case.variant,
        case.burn_ms,
        case.arrival,
        outcomes.len(),
        ahead * 1000.0
    )
}

#[test]
fn slot_patched_by_a_constructor_is_one_critical_incident() {
    is_found(Variant::Constructor).unwrap();
}

#[test]
fn slot_patched_without_relro_is_one_critical_incident() {
    is_found(Variant::NoRelro).unwrap();
}

#[test]
fn slot_bound_by_an_audit_library_is_one_critical_incident() {
    is_found(Variant::Audit).unwrap();
}

#[test]
fn wrapper_that_jumps_is_one_critical_incident() {
    is_found(Variant::TailJump).unwrap();
}

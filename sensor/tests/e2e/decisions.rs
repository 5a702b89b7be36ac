//! What a person decides about an incident while the sensor runs: it takes it up, tells it on standard
//! output, in its API, metrics and store, and knows it after it was killed. A suppression ends by itself,
//! which is told.
//!
//! The program is a copy of cat that is guarded: that it was started with `LD_PRELOAD` is told at once,
//! with nothing learned. The library is not there: nothing is loaded.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use ::sensor::incident::{IncidentReader, State as Standing, Verb};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    lab::{Agent, Machine, wait_until},
    running::{PATIENCE, Sensor, Settings, State, same},
    victim::guarded,
};

const DETECTOR: &str = "preload_env";
const LIBRARY: &str = "/nowhere/libdecided.so";
/// What was decided before the sensor is killed, in order, and what the incident is then.
const DECISIONS: [(&[&str], &str); 4] = [
    (&["ack", "--why", "it is mine"], "acknowledged"),
    (&["close"], "closed"),
    (&["reopen", "--why", "it goes on"], "open"),
    (&["suppress", "--for", "1h", "--why", "ticket 4711"], "suppressed"),
];
const WHO: &str = "alice of the night shift";
const VERBS: [Verb; 4] = [Verb::Acknowledge, Verb::Close, Verb::Reopen, Verb::Suppress];

/// The program, and the state of the sensors that see it.
struct Desk {
    dir: TempDir,
    state: State,
}

// === impl Desk ===

impl Desk {
    fn new() -> Result<Self> {
        let mut named = tempfile::Builder::new();
        let dir = named.prefix("halfsecond-desk-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let desk = Self { dir, state: State::new()? };
        fs::copy("/bin/cat", desk.program())?;
        Ok(desk)
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("decided")
    }

    fn sensor(&self, machine: &Arc<Machine>) -> Result<Sensor> {
        let more = guarded(&self.program());
        let settings = Settings { more: &more, ..Settings::default() };
        Sensor::start(machine, self.state.path(), settings)
    }

    /// Starts the program as nobody should, and lets it live until `told` is done.
    fn preloaded<T>(&self, told: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut command = Command::new(self.program());
        command.env("LD_PRELOAD", LIBRARY).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let told = told();
        drop(child.stdin.take());
        let status = child.wait()?;
        ensure!(status.success(), "cat ended with {status}");
        told
    }

    /// `halfsecond incidents ARGUMENTS… --json` beside the sensor.
    fn say(&self, sensor: &Sensor, arguments: &[&str]) -> Result<Vec<Value>> {
        let config = self.dir.path().join("halfsecond.toml");
        fs::write(&config, Settings::default().toml(self.state.path(), sensor.port()))?;
        let mut command = Command::new(Agent::binary());
        command.arg("incidents").args(arguments).args(["--json", "--config"]).arg(&config);
        let output = command.env_remove("RUST_LOG").output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {}: {stderr}", output.status);
        let lines = std::str::from_utf8(&output.stdout)?.lines();
        lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Says it of the incident `id`; fails unless the running sensor has followed and tells it
    /// everywhere. The incident as the API has it then.
    fn decide(&self, sensor: &Sensor, id: &str, words: &[&str], state: &str) -> Result<Value> {
        let from = sensor.agent().position();
        let (verb, rest) = words.split_first().context("no verb")?;
        let told = self.say(sensor, &[&[*verb, id, "--who", WHO][..], rest].concat())?;
        let told = told.first().context("no line")?;
        ensure!(told["by"] == "sensor" && told["effective"] == true, "{told}");
        ensure!(told["state"] == state, "{told}");
        let is = |line: &Value| line["id"] == id && line["state"] == state;
        sensor.agent().wait_for(&format!("a line that is {state}"), from, PATIENCE, is)?;
        let incident = sensor.incident_that(&format!("an incident that is {state}"), is)?;
        open_are_counted(sensor)?;
        let left = fs::read_dir(self.state.path().join("requests"))?.count();
        ensure!(left == 0, "{left} files are left of what was answered");
        Ok(incident)
    }

    /// The suppression of the incident `id`, as the command line tells it.
    fn suppression(&self, sensor: &Sensor, id: &str) -> Result<Value> {
        let all = self.say(sensor, &["suppressions"])?;
        all.into_iter().find(|one| one["name"] == id).context("no suppression of that incident")
    }
}

fn finding(incident: &Value) -> Option<&Value> {
    incident["findings"].as_array()?.iter().find(|finding| {
        finding["detector"] == DETECTOR && finding["evidence"].to_string().contains(LIBRARY)
    })
}

/// Waits until as many incidents are counted as open as the API tells.
fn open_are_counted(sensor: &Sensor) -> Result<()> {
    let counted = sensor.scrape_until("a count of the open incidents", |scrape| {
        let Ok(all) = sensor.incidents() else { return false };
        let open: f64 = all.iter().filter(|one| one["state"] == "open").map(|_| 1.0).sum();
        same(scrape.sum("halfsecond_incidents_open", &[]), open)
    });
    counted.map(drop)
}

/// Waits for the first start that a suppression has matched since the sensor runs, by the metrics and
/// by the store.
fn matched(desk: &Desk, sensor: &Sensor, id: &str, matches: u64) -> Result<()> {
    sensor.scrape_until("a suppressed finding", |scrape| {
        scrape.sum("halfsecond_findings_suppressed_total", &[("rule", "incident")]) >= 1.0
    })?;
    wait_until("a match in the store", PATIENCE, || {
        let found = desk.suppression(sensor, id)?;
        Ok((found["matches"].as_u64() >= Some(matches)).then_some(()))
    })
}

/// Each decision, the last of which suppresses the incident; then the sensor is killed. Its id.
fn decided(desk: &Desk, machine: &Arc<Machine>) -> Result<String> {
    let sensor = desk.sensor(machine)?;
    let incident = desk.preloaded(|| {
        sensor.incident_that("an open incident", |one| {
            one["state"] == "open" && finding(one).is_some()
        })
    })?;
    let id = incident["id"].as_str().context("no id")?;
    for (count, (words, state)) in DECISIONS.into_iter().enumerate() {
        let incident = desk.decide(&sensor, id, words, state)?;
        let decisions = incident["decisions"].as_array().context("no decisions")?;
        ensure!(decisions.len() == count + 1, "{decisions:?}");
        ensure!(decisions.iter().all(|one| one["who"] == WHO), "{decisions:?}");
    }
    let suppression = desk.suppression(&sensor, id)?;
    ensure!(suppression["standing"] == "unmatched", "{suppression}");
    desk.preloaded(|| matched(desk, &sensor, id, 1))?;
    ensure!(sensor.kill()?.code().is_none(), "it was not killed");
    Ok(id.to_owned())
}

/// The next sensor, which still knows it, until the suppression has ended and the incident is open.
fn outlived(desk: &Desk, machine: &Arc<Machine>, id: &str) -> Result<()> {
    let sensor = desk.sensor(machine)?;
    let is = |state: &str| {
        let state = state.to_owned();
        move |one: &Value| one["id"] == id && one["state"] == state.as_str()
    };
    let known = sensor.incident_that("the incident, still suppressed", is("suppressed"))?;
    let decisions = known["decisions"].as_array().map(Vec::len);
    ensure!(decisions == Some(DECISIONS.len()), "{:?}", known["decisions"]);
    desk.preloaded(|| matched(desk, &sensor, id, 2))?;
    sensor.incident_that("the incident, suppressed by what was known", is("suppressed"))?;

    let short = ["suppress", "--for", "1s", "--why", "not for long"];
    desk.decide(&sensor, id, &short, "suppressed")?;
    wait_until("a suppression that has expired", PATIENCE, || {
        Ok((desk.suppression(&sensor, id)?["standing"] == "expired").then_some(()))
    })?;
    let from = sensor.agent().position();
    desk.preloaded(|| {
        sensor.agent().wait_for("a line that it is open", from, PATIENCE, is("open"))?;
        let open = sensor.incident_that("the incident, open again", is("open"))?;
        let found = finding(&open).context("no finding")?;
        ensure!(found["suppressed_by"].is_null(), "{found}");
        Ok(())
    })?;
    open_are_counted(&sensor)?;
    sensor.stop().map(drop)
}

/// What the store holds while no sensor runs.
fn stored(desk: &Desk, id: &str) -> Result<()> {
    let store = IncidentReader::open(desk.state.path())?;
    let incident = store.get(id)?.context("it is not in the store")?;
    ensure!(incident.state == Standing::Open, "{:?}", incident.state);
    let verbs: Vec<Verb> = incident.decisions.iter().map(|one| one.verb).collect();
    ensure!(verbs == [&VERBS[..], &[Verb::Suppress]].concat(), "{verbs:?}");
    Ok(())
}

#[test]
fn what_is_decided_about_an_incident_is_taken_up_told_and_known_after_a_kill() {
    let machine = Machine::without_user().unwrap();
    let desk = Desk::new().unwrap();
    let id = decided(&desk, &machine).unwrap();
    outlived(&desk, &machine, &id).unwrap();
    stored(&desk, &id).unwrap();
    // The end of a suppression is told at every start.
    let sensor = desk.sensor(&machine).unwrap();
    let told = sensor.agent().wait_for_log("a suppression has expired", PATIENCE).unwrap();
    assert!(told.contains(&id), "{told}");
    sensor.stop().unwrap();
}

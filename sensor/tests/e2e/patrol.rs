//! What changes without an event is found by looking: rounds over what runs.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
    victim,
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/quiet_hook.c");
const PROGRAM: &str = "quiet-victim";

/// The running program, ended when dropped.
struct Running(Child);

impl Running {
    fn start(path: &Path) -> Result<Self> {
        let mut command = Command::new(path);
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Unreaped, so the pid is still this child's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn build(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id,-z,norelro,-z,lazy", SOURCE, "-o"]);
    must(cc.arg(&path), "", PATIENCE)?;
    Ok(path)
}

#[test]
fn a_slot_that_a_guarded_program_changes_without_a_system_call_is_found() -> Result<()> {
    let machine = Machine::acquire()?;
    let dir = tempfile::Builder::new()
        .prefix("halfsecond-patrol-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let program = build(dir.path(), PROGRAM)?;
    let more = format!("[patrol]\nevery = \"1s\"\n{}", victim::guarded(&program));
    let state = State::new()?;
    let settings = Settings { more: &more, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings)?;
    let mut running = Running::start(&program)?;
    let mut said = BufReader::new(running.0.stdout.take().context("no output")?).lines();
    let parent = said.next().context("it said nothing")??;
    // Looked at after its start, and in a round at least.
    sensor.scrape_until("rounds that find nothing", |scrape| {
        scrape.sum("halfsecond_verify_checks_total", &[("outcome", "clean")]) >= 3.0
    })?;
    let before = sensor.incidents()?;
    ensure!(before.is_empty(), "{before:#?}");
    running.0.stdin.as_mut().context("no input")?.write_all(b"now\n")?;
    let answer = said.next().context("it said nothing")??;
    ensure!(answer == format!("rewired {parent}"), "{answer}");
    let incident = sensor.incident_that("the changed slot", |incident| {
        incident["findings"].as_array().is_some_and(|findings| {
            findings.iter().any(|finding| finding["detector"] == "got_redirected")
        })
    })?;
    let text = incident.to_string();
    ensure!(text.contains("getppid") && text.contains(PROGRAM), "{incident:#}");
    ensure!(incident["severity"] == "critical", "{incident:#}");
    drop(running);
    sensor.stop()?;
    Ok(())
}

//! A guarded program that refuses to be checked is told, whichever way it refuses.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
    victim,
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/hostile.c");

/// The running program, ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Unreaped, so the pid is still this child's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_guarded_program_that_refuses_to_be_checked_is_told() -> Result<()> {
    let machine = Machine::acquire()?;
    let dir = tempfile::Builder::new()
        .prefix("halfsecond-refusal-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for (mode, why) in [("state", "its loader says that it is at work"), ("back", "its link map")] {
        let program = dir.path().join(format!("refuses-{mode}"));
        let mut cc = Command::new("cc");
        must(cc.args(["-O1", "-Wl,--build-id", SOURCE, "-o"]).arg(&program), "", PATIENCE)?;
        let more = format!("[patrol]\nevery = \"1s\"\n{}", victim::guarded(&program));
        let state = State::new()?;
        let settings = Settings { more: &more, ..Settings::default() };
        let sensor = Sensor::start(&machine, state.path(), settings)?;
        let mut command = Command::new(&program);
        command.arg(mode).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running(command.spawn()?);
        let mut said = BufReader::new(running.0.stdout.take().context("no output")?).lines();
        let lines = [said.next().context("no line")??, said.next().context("no line")??];
        ensure!(lines == ["ready", "done"], "{lines:?}");
        let incident = sensor.incident_that("the refusal", |incident| {
            incident["findings"].as_array().is_some_and(|findings| {
                findings.iter().any(|finding| finding["detector"] == "blinded")
            })
        })?;
        let text = incident.to_string();
        ensure!(text.contains(why) && text.contains("slots were compared"), "{incident:#}");
        ensure!(incident["severity"] == "high", "{incident:#}");
        drop(running);
        sensor.stop()?;
    }
    Ok(())
}

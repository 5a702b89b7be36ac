//! Each way code gets into a process through its loader, done by a real process, and what the sensor
//! says of it. Changes of the loader's own files are tried in `tests/watch`, what can be asked without
//! a sensor in `tests/cli` (`libs`) and `tests/verify` (`audit`).

mod environment;
mod mapping;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
    victim::{PROGRAM, Victim},
};

/// What is done to the program, what must be found at least, and a word that the evidence holds.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    act: fn(&Victim) -> Result<Child>,
    detector: &'static str,
    severity: &'static str,
    evidence: &'static str,
}

/// The table, by what is used.
const CASES: [&[Case]; 2] = [environment::CASES, mapping::CASES];

fn waiting(command: &mut Command) -> Result<Child> {
    Ok(command.arg("wait").stdin(Stdio::piped()).spawn()?)
}

fn preloading(victim: &Victim, library: &Path) -> Result<Child> {
    waiting(victim.command().env("LD_PRELOAD", library))
}

/// A library that the program has never had.
fn extra(victim: &Victim) -> Result<std::path::PathBuf> {
    let path = victim.path("libextra.so");
    let source = victim.path("extra.c");
    fs::write(&source, "int extra(void) { return 1; }\n")?;
    must(victim.cc("libextra.so").args(["-shared", "-fPIC"]).arg(&source), "", PATIENCE)?;
    Ok(path)
}

/// The first finding of the detector that is bad enough and holds the word.
fn finding<'a>(line: &'a Value, case: &Case) -> Option<&'a Value> {
    const ORDER: [&str; 5] = ["info", "low", "medium", "high", "critical"];
    let rank = |severity: &str| ORDER.iter().position(|one| *one == severity);
    line["findings"].as_array()?.iter().find(|finding| {
        finding["detector"] == case.detector
            && finding["severity"].as_str().and_then(rank) >= rank(case.severity)
            && finding["evidence"].to_string().contains(case.evidence)
            && finding["process"]["exe"].as_str().is_some_and(|exe| exe.ends_with(PROGRAM))
    })
}

fn found(machine: &Arc<Machine>, victim: &Victim, learned: &Path, case: &Case) -> Result<String> {
    let state = State::copy_of(learned)?;
    let guarded = victim.guarded();
    let settings = Settings { more: &guarded, ..Settings::default() };
    let sensor = Sensor::start(machine, state.path(), settings)?;
    let mut child = (case.act)(victim)?;
    let line = sensor.incident_that(case.name, |line| finding(line, case).is_some());
    drop(child.stdin.take());
    child.wait()?;
    let line = line?;
    sensor.stop()?;
    let Some(found) = finding(&line, case) else { bail!("gone again: {line:#}") };
    let title = found["title"].as_str().context("no title")?;
    Ok(format!("| {} | {} | {} | {title} |", case.name, case.detector, found["severity"]))
}

#[test]
fn each_way_into_a_process_is_found() {
    let machine = Machine::acquire().unwrap();
    for case in CASES.concat() {
        // What one does to the libraries must not help the next.
        let victim = Victim::build().unwrap();
        let learned = victim.learned(&machine).unwrap();
        match found(&machine, &victim, learned.path(), &case) {
            Ok(row) => println!("{row}"),
            Err(error) => panic!("{}: {error:?}", case.name),
        }
    }
}

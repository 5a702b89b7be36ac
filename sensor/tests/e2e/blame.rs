//! Who made a program start slowly: the right module is named, whatever it burns its time in, on a
//! machine that has nothing else to do and on one that has.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    lab::Machine,
    running::{Sensor, Settings, State},
    victim::Victim,
};

/// Starts with the slow library: a shift of 20 ms takes five of them.
const STARTS: usize = 7;

/// What burns.
#[derive(Clone, Copy, Debug)]
struct Case {
    library: &'static str,
    flag: &'static str,
    metric: &'static str,
}

/// 20 ms each, less than a single start is suspected for.
const CASES: [Case; 3] = [
    Case { library: "libouter.so", flag: "-DRESOLVER_MS=20", metric: "link_cpu" },
    Case { library: "libouter.so", flag: "-DCONSTRUCTOR_MS=20", metric: "constructor_cpu" },
    // What the program does not even name.
    Case { library: "libinner.so", flag: "-DRESOLVER_MS=20", metric: "link_cpu" },
];

/// A process that takes one core, ended when dropped.
struct Load(Child);

// === impl Load ===

impl Load {
    /// One for each core.
    fn everywhere() -> Result<Vec<Self>> {
        let cores = thread::available_parallelism()?.get();
        (0..cores)
            .map(|_| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
                Ok(Self(command.spawn()?))
            })
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Unreaped, so the pid is still this child's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The timing of a `link_time_shift` of the program.
fn timing<'a>(line: &'a Value, metric: &str) -> Option<&'a Value> {
    let findings = line["findings"].as_array()?;
    let mut shifts = findings.iter().filter(|finding| finding["detector"] == "link_time_shift");
    shifts.find_map(|finding| {
        let evidence = finding["evidence"].as_array()?;
        evidence.iter().find(|one| one["kind"] == "timing" && one["metric"] == metric)
    })
}

/// Gives the evidence.
fn blamed(machine: &Arc<Machine>, victim: &Victim, learned: &Path, case: Case) -> Result<Value> {
    let state = State::copy_of(learned)?;
    let guarded = victim.guarded();
    let settings = Settings { more: &guarded, ..Settings::default() };
    let sensor = Sensor::start(machine, state.path(), settings)?;
    // One clean start shows the sensor where the program is entered.
    victim.start_watched(&sensor, 1)?;
    victim.library(case.library, case.flag)?;
    victim.start_watched(&sensor, STARTS)?;
    let line =
        sensor.incident_that("a link_time_shift", |line| timing(line, case.metric).is_some())?;
    let timing = timing(&line, case.metric).context("no timing")?;
    let module =
        timing["module"].as_str().with_context(|| format!("nobody is blamed: {line:#}"))?;
    ensure!(Path::new(module) == victim.path(case.library), "{module} is blamed: {line:#}");
    let share = timing["module_seconds"].as_f64().context("no share")?;
    ensure!(share > 0.01, "a share of {share} s: {line:#}");
    victim.library(case.library, "-DRESOLVER_MS=0")?;
    let timing = timing.clone();
    sensor.stop()?;
    Ok(timing)
}

/// Gives the evidence of each case.
fn all_are_blamed(loaded: bool) -> Result<Vec<Value>> {
    let machine = Machine::acquire()?;
    let victim = Victim::build()?;
    let state = victim.learned(&machine)?;
    let _load = if loaded { Load::everywhere()? } else { Vec::new() };
    let blame = |case| blamed(&machine, &victim, state.path(), case).context(format!("{case:?}"));
    CASES.into_iter().map(blame).collect()
}

#[test]
fn module_that_slows_a_start_is_named_on_an_idle_machine() {
    for timing in all_are_blamed(false).unwrap() {
        println!("{timing}");
    }
}

#[test]
fn module_that_slows_a_start_is_named_with_every_core_loaded() {
    for timing in all_are_blamed(true).unwrap() {
        println!("{timing}");
    }
}

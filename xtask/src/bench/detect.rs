//! How long it takes from a hook to its finding: harmless programs redirect a slot of their own at
//! an instant that they tell, and the sensor, otherwise idle, has to find each.
//!
//! Every trial runs under a path of its own, as a subject of its own: what is found again in the same
//! subject joins the incident that is there, and is not told anew. All paths are names of one file,
//! so that the sensor knows the program as it knows an sshd.

mod lines;
mod row;
mod victim;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::process;
use crate::repo;
use crate::sensor::{self, Sensor, Start};
use lines::{Line, Lines};
pub(super) use row::Row;
use row::Sample;
use victim::{Instant as Installed, Route, Victim};

/// Longer than any finding that still counts as found.
const PATIENCE: Duration = Duration::from_secs(10);
/// Uncounted trials before those that count: no program that is guarded is new to its sensor.
const REHEARSALS: usize = 2;
/// Between two trials: the sensor is idle, and its rounds lie differently to each.
const PAUSE: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_millis(7);
const STEPS: usize = 31;

const DETECTOR: &str = "got_redirected";

/// Runs `trials` of every route, each route under a sensor of its own; keeps every sample in
/// `detect.csv` in `folder`.
pub(super) fn measure(folder: &Path, trials: usize) -> Result<Vec<Row>> {
    let folder = folder.join("detect");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let mut rows = Vec::new();
    for route in Route::ALL {
        let row = one_route(&folder, route, trials)
            .with_context(|| format!("{route}; see {}/halfsecond.log", folder.display()))?;
        println!("{row}");
        rows.push(row);
    }
    let csv: String = rows.iter().map(Row::csv).collect();
    fs::write(folder.join("detect.csv"), format!("route,trial,read_seconds,told_seconds\n{csv}"))?;
    Ok(rows)
}

fn one_route(folder: &Path, route: Route, trials: usize) -> Result<Row> {
    let folder = folder.join(route.name());
    let program = victim::build(&folder, route)?;
    let (sensor, told) = start(&folder, &program)?;
    process::settle(sensor.pid())?;
    let mut samples = Vec::new();
    for trial in 0..REHEARSALS + trials {
        let counted = (trial + 1).saturating_sub(REHEARSALS);
        eprint!("\rdetect: {route}, trial {counted} of {trials} ");
        // Not a synchronisation: the sensor's time between two attacks.
        thread::sleep(PAUSE + STEP * u32::try_from(trial % STEPS).unwrap_or(0));
        let sample = one_trial(&folder, &program, trial, route, &told)?;
        if trial >= REHEARSALS {
            samples.push(sample);
        }
    }
    eprintln!();
    sensor.stop()?;
    Ok(Row::new(route.to_string(), samples))
}

/// A sensor as it ships, but for its state and for what it guards; and what it says.
fn start(folder: &Path, program: &Path) -> Result<(Sensor, Lines)> {
    let state = folder.join("state");
    fs::create_dir_all(&state)?;
    let listen = sensor::free_address()?;
    let (config, log) = (folder.join("halfsecond.toml"), folder.join("halfsecond.log"));
    let text = format!(
        "state_dir = \"{}\"\n[http]\nlisten = \"{listen}\"\n[[guarded]]\npath = \"{}\"\n",
        state.display(),
        program.display()
    );
    fs::write(&config, text)?;
    let agent = repo::target().join("release/halfsecond");
    let (reader, writer) = io::pipe()?;
    let start = Start {
        agent: &agent,
        config: &config,
        log: &log,
        listen,
        lines: Stdio::from(writer),
        level: None,
        record: None,
    };
    Ok((start.run()?, Lines::follow(reader)))
}

/// What the sensor makes of one hook; nothing where it makes nothing of it in time.
fn one_trial(
    folder: &Path,
    program: &Path,
    trial: usize,
    route: Route,
    told: &Lines,
) -> Result<Option<Sample>> {
    let own = name_of_its_own(folder, program, trial)?;
    let mut victim = Victim::start(&own)?;
    let installed = victim.redirect(route)?;
    let deadline = Instant::now() + PATIENCE;
    let sample = loop {
        match told.next(deadline) {
            Ok(Some(line)) => {
                if let Some(sample) = sample(&line, victim.pid(), installed)? {
                    break Some(sample);
                }
            }
            Ok(None) => break None,
            Err(ended) => bail!("the sensor ends: {ended}"),
        }
    };
    victim.end()?;
    Ok(sample)
}

fn name_of_its_own(folder: &Path, program: &Path, trial: usize) -> Result<PathBuf> {
    let own = folder.join(format!("trial-{trial}"));
    fs::create_dir(&own)?;
    let own = own.join(victim::NAME);
    fs::hard_link(program, &own).with_context(|| format!("no name {}", own.display()))?;
    Ok(own)
}

/// From a line of the sensor's, if it tells of the slot of this process.
fn sample(line: &Line, pid: u32, installed: Installed) -> Result<Option<Sample>> {
    let incident: Value = serde_json::from_str(&line.text).context("the sensor writes no JSON")?;
    let findings = incident["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = findings.iter().find(|finding| {
        finding["detector"] == DETECTOR && finding["process"]["pid"].as_u64() == Some(pid.into())
    });
    let Some(found) = found else { return Ok(None) };
    let read = found["ktime_ns"].as_u64().context("a finding without its clock")?;
    ensure!(
        read >= installed.monotonic_ns,
        "process {pid}: found {} ns before it was there",
        installed.monotonic_ns - read
    );
    Ok(Some(Sample {
        read: Duration::from_nanos(read - installed.monotonic_ns),
        told: Duration::from_nanos(line.realtime_ns.saturating_sub(installed.realtime_ns)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALLED: Installed = Installed { monotonic_ns: 1_000_000, realtime_ns: 5_000_000 };

    fn line(detector: &str, pid: u32, ktime_ns: u64) -> Line {
        let text = format!(
            r#"{{"findings":[{{"detector":"relro_reopened","process":{{"pid":7}},"ktime_ns":1}},
            {{"detector":"{detector}","process":{{"pid":{pid}}},"ktime_ns":{ktime_ns}}}]}}"#
        );
        Line { realtime_ns: 9_000_000, text }
    }

    #[test]
    fn both_clocks_count_from_the_hook() {
        let sample = sample(&line(DETECTOR, 7, 3_000_000), 7, INSTALLED).unwrap().unwrap();
        assert_eq!(sample.read, Duration::from_millis(2));
        assert_eq!(sample.told, Duration::from_millis(4));
    }

    #[test]
    fn another_process_and_another_detector_are_not_the_hooks_finding() {
        assert!(sample(&line(DETECTOR, 8, 3_000_000), 7, INSTALLED).unwrap().is_none());
        assert!(sample(&line("remote_write", 7, 3_000_000), 7, INSTALLED).unwrap().is_none());
    }

    #[test]
    fn a_finding_from_before_the_hook_is_an_error() {
        assert!(sample(&line(DETECTOR, 7, 999_999), 7, INSTALLED).is_err());
    }
}

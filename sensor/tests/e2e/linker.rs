//! Each way code gets into a process through its loader, done by a real process, and what the sensor
//! says of it. The table is in this file's modules; what belongs to it and is tried elsewhere, where
//! less is needed for it, is:
//!
//! | case | test |
//! | --- | --- |
//! | environment of 128 KB, of 5,000 and of 20,000 variables, decoys, none at all | `kernel/environ` |
//! | each variable that a loader obeys, and no other; a 32-bit program's | `kernel/environ` |
//! | allocators and tools of the distribution, and others of their name | units of `preload_env` |
//! | ld.so.preload by path, relative path, dirfd, symbolic link, rename from another directory, \
//!   hard link, mmap, `io_uring`; written, appended, removed, there for a moment | `watch/ways` |
//! | ld.so.preload in a mount namespace, in an overlay, by a bind mount over it | `watch/roots` |
//! | ld.so.conf, ld.so.conf.d, ld.so.cache, the loader itself, musl's | `watch/files` |
//! | ld.so.cache by ldconfig and by hand; package managers, and who only has their name | \
//!   `watch/agent` |
//! | what changed while no sensor ran | `watch/kept` |
//! | library deleted, replaced by a rename, in a memfd, in a container, of a static program: who \
//!   has it mapped | `cli/libs` |
//! | a library that is not what its package brought, or nobody's | units of `package`, `analysis` |
//! | a library of 200 GB, a file system that hangs | units of `package::digest`, `cli/libs` |
//! | slots by constructor, without RELRO, by audit, by IFUNC, by dlopen, in musl | `verify/attacks` |
//! | static, 32-bit and musl programs, `ld.so prog`: what is compared and what is not | \
//!   `verify/benign`, `cli/doctor` |
//! | audit asked for by nobody, by the environment, by the program | `verify/audit` |
//! | who made a start slow | `e2e/blame` |
//! | containers of one image | `kernel/function` |

mod environment;
mod mapping;
mod programs;
mod search;

mod dlopen;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    lab::{Machine, must, wait_until},
    running::{PATIENCE, Sensor, Settings, State},
    victim::{Victim, guarded},
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
const CASES: [&[Case]; 4] = [environment::CASES, mapping::CASES, search::CASES, programs::CASES];

/// Why a case cannot be tried on this machine.
#[derive(Debug)]
struct NotHere(String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}

fn waiting(command: &mut Command) -> Result<Child> {
    Ok(command.arg("wait").stdin(Stdio::piped()).spawn()?)
}

fn preloading(victim: &Victim, library: &Path) -> Result<Child> {
    waiting(victim.command().env("LD_PRELOAD", library))
}

/// A library that the program has never had: by another name each time and without a build-id, so
/// that what is found in one case is not taken for what was found in another.
fn extra(victim: &Victim) -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("libextra{}.so", NUMBER.fetch_add(1, Ordering::Relaxed));
    victim.part("libextra.so", &name, |path| {
        let source = victim.path("extra.c");
        fs::write(&source, "int extra(void) { return 1; }\n")?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wl,--build-id=none", "-o"]).arg(path).arg(&source);
        must(&mut cc, "", PATIENCE).map(drop)
    })
}

/// The first finding of the detector on this process that is bad enough and holds the word.
fn finding<'a>(line: &'a Value, case: &Case, pid: u32) -> Option<&'a Value> {
    const ORDER: [&str; 5] = ["info", "low", "medium", "high", "critical"];
    let rank = |severity: &str| ORDER.iter().position(|one| *one == severity);
    line["findings"].as_array()?.iter().find(|finding| {
        finding["detector"] == case.detector
            && finding["severity"].as_str().and_then(rank) >= rank(case.severity)
            && finding["evidence"].to_string().contains(case.evidence)
            && finding["process"]["pid"] == pid
    })
}

/// A sensor that knows the victim, guards all that the cases start, and takes what comes a second
/// later for another incident.
fn knowing(machine: &Arc<Machine>, victim: &Victim) -> Result<(State, Sensor)> {
    let state = victim.learned(machine)?;
    let guarded = programs::guarded(victim).iter().map(|path| guarded(path)).collect::<String>();
    let more = format!("[detect]\nincident_window = \"1s\"\n{}{guarded}", victim.guarded());
    let settings = Settings { more: &more, ..Settings::default() };
    let sensor = Sensor::start(machine, state.path(), settings)?;
    Ok((state, sensor))
}

/// A line about what was found, or why the case is not for this machine.
fn found(sensor: &Sensor, victim: &Victim, case: &Case) -> Result<String> {
    let mut child = match (case.act)(victim) {
        Err(error) if error.is::<NotHere>() => {
            return Ok(format!("| {} | not tried: {error} |", case.name));
        }
        child => child?,
    };
    let pid = child.id();
    let line = sensor.incident_that(case.name, |line| finding(line, case, pid).is_some());
    // One that waits for no input ends too.
    child.kill()?;
    child.wait()?;
    let line = line?;
    let Some(found) = finding(&line, case, pid) else { bail!("gone again: {line:#}") };
    let title = found["title"].as_str().context("no title")?;
    Ok(format!("| {} | {} | {} | {title} |", case.name, case.detector, found["severity"]))
}

/// Waits until nothing is open that the next case's finding could be counted with.
fn all_closed(sensor: &Sensor) -> Result<()> {
    wait_until("closed incidents", PATIENCE, || {
        Ok(sensor.incidents()?.iter().all(|one| one["state"] == "closed").then_some(()))
    })
}

#[test]
fn each_way_into_a_process_is_found() {
    let machine = Machine::without_user().unwrap();
    let victim = Victim::build().unwrap();
    let (_state, sensor) = knowing(&machine, &victim).unwrap();
    let mut failed = Vec::new();
    for case in CASES.concat() {
        // An open incident counts what it has already, but for places: no two cases use the same.
        if case.detector != "library_writable_path" {
            all_closed(&sensor).unwrap();
        }
        match found(&sensor, &victim, &case) {
            Ok(row) => println!("{row}"),
            Err(error) => {
                println!("| {} | FAILED: {error:?} |", case.name);
                failed.push(case.name);
            }
        }
        // What one does to the libraries must not help the next.
        victim.restore().unwrap();
    }
    assert!(failed.is_empty(), "{failed:?}");
    sensor.stop().unwrap();
}

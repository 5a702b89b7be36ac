//! Each way code gets into a process through its loader, done by a real process, and what the sensor
//! says of it. Changes of the loader's own files are tried in `tests/watch`, what can be asked without
//! a sensor in `tests/cli` (`libs`) and `tests/verify` (`audit`).

mod dlopen;

use std::{
    fs::{self, File},
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
    victim::{PROGRAM, Victim},
};

/// What is done to the program, what must be found at least, and a word that the evidence holds.
struct Case {
    name: &'static str,
    act: fn(&Victim) -> Result<Child>,
    detector: &'static str,
    severity: &'static str,
    evidence: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "LD_PRELOAD behind 128 KB of environment",
        act: padded,
        detector: "preload_env",
        severity: "high",
        evidence: "LD_PRELOAD",
    },
    Case {
        name: "LD_PRELOAD behind 5000 variables",
        act: crowded,
        detector: "preload_env",
        severity: "high",
        evidence: "LD_PRELOAD",
    },
    Case {
        name: "LD_PRELOAD set twice",
        act: twice,
        detector: "preload_env",
        severity: "high",
        evidence: "/nowhere/second.so",
    },
    Case {
        name: "LD_PRELOAD through a symbolic link",
        act: linked,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "libextra.so",
    },
    Case {
        name: "LD_AUDIT",
        act: audited,
        detector: "preload_env",
        severity: "high",
        evidence: "LD_AUDIT",
    },
    Case {
        name: "library replaced by a rename",
        act: replaced,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "libinner.so",
    },
    Case {
        name: "library overwritten in place",
        act: overwritten,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "libinner.so",
    },
    Case {
        name: "library that every user can write",
        act: writable,
        detector: "library_writable_path",
        severity: "high",
        evidence: "writable_by_all",
    },
    Case {
        name: "library of another user",
        act: foreign,
        detector: "library_writable_path",
        severity: "high",
        evidence: "foreign_owner",
    },
    Case {
        name: "library below /tmp",
        act: in_tmp,
        detector: "library_writable_path",
        severity: "high",
        evidence: "anyones_directory",
    },
    Case {
        name: "memfd with a plausible name",
        act: memfd,
        detector: "library_writable_path",
        severity: "high",
        evidence: "/memfd:libc.so.6",
    },
    Case {
        name: "library deleted before it is mapped",
        act: deleted,
        detector: "library_writable_path",
        severity: "high",
        evidence: "deleted",
    },
    Case {
        name: "forged audit state",
        act: forged,
        detector: "audit_unrequested",
        severity: "critical",
        evidence: "libouter.so",
    },
];

/// What the loader's way to a library shows.
const WAYS: &[Case] = &[
    Case {
        name: "library found by its module's RUNPATH",
        act: replaced,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "\"found_by\":\"RUNPATH /",
    },
    Case {
        name: "library from the current directory",
        act: from_current,
        detector: "library_writable_path",
        severity: "high",
        evidence: "LD_LIBRARY_PATH \\\"\\\" means the current directory",
    },
    Case {
        name: "library from a RUNPATH that every user can write to",
        act: from_open_runpath,
        detector: "library_writable_path",
        severity: "high",
        evidence: "where every user may put files; it was found there",
    },
];

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

fn padded(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let mut command = victim.command();
    // Variables are handed over in the order of their names; no single one may be longer.
    command.env("AAAA", "x".repeat(120 << 10)).env("AAAB", "x".repeat(8 << 10));
    waiting(command.env("LD_PRELOAD", library))
}

fn crowded(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let mut command = victim.command();
    command.envs((0..5_000).map(|at| (format!("A{at:04}"), "x")));
    waiting(command.env("LD_PRELOAD", library))
}

fn twice(victim: &Victim) -> Result<Child> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/c/raw_exec.c");
    must(victim.cc("raw_exec").arg(source), "", PATIENCE)?;
    let mut command = Command::new(victim.path("raw_exec"));
    Ok(command.arg("twice").arg(victim.path(PROGRAM)).stdin(Stdio::piped()).spawn()?)
}

fn linked(victim: &Victim) -> Result<Child> {
    let link = victim.path("innocent.so");
    symlink(extra(victim)?, &link)?;
    preloading(victim, &link)
}

fn audited(victim: &Victim) -> Result<Child> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/audit.c");
    must(victim.cc("libaudit.so").args(["-shared", "-fPIC", source]), "", PATIENCE)?;
    waiting(victim.command().env("LD_AUDIT", victim.path("libaudit.so")))
}

fn replaced(victim: &Victim) -> Result<Child> {
    victim.library("libinner.so", "-DRESOLVER_MS=1")?;
    waiting(&mut victim.command())
}

fn overwritten(victim: &Victim) -> Result<Child> {
    let other = victim.other("libinner.so", "-DCONSTRUCTOR_MS=1")?;
    fs::copy(other, victim.path("libinner.so"))?;
    waiting(&mut victim.command())
}

fn writable(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    fs::set_permissions(&library, fs::Permissions::from_mode(0o777))?;
    preloading(victim, &library)
}

fn foreign(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    chown(&library, Some(65_534), None)?;
    preloading(victim, &library)
}

fn in_tmp(victim: &Victim) -> Result<Child> {
    let dir = tempfile::Builder::new().prefix("halfsecond-linker-").tempdir_in("/tmp")?;
    let library = dir.path().join("libextra.so");
    fs::copy(extra(victim)?, &library)?;
    let child = preloading(victim, &library)?;
    // Removed once it is mapped: the program says nothing, but it maps before it reads.
    crate::lab::wait_until("the mapping", PATIENCE, || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id()))?;
        Ok(maps.contains("libextra.so").then_some(()))
    })?;
    Ok(child)
}

/// A copy elsewhere, found because an empty element means where the program was started.
fn from_current(victim: &Victim) -> Result<Child> {
    let elsewhere = victim.path("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::copy(victim.path("libinner.so"), elsewhere.join("libinner.so"))?;
    let mut command = victim.command();
    waiting(command.current_dir(elsewhere).env("LD_LIBRARY_PATH", "/nonexistent:"))
}

/// By its name alone, so that the program's own list decides.
fn from_open_runpath(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    fs::set_permissions(victim.path("."), fs::Permissions::from_mode(0o1777))?;
    preloading(victim, Path::new(library.file_name().context("no name")?))
}

/// A descriptor's file in front of the libraries.
fn by_descriptor(victim: &Victim, file: &OwnedFd) -> Result<Child> {
    rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?;
    preloading(victim, Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn memfd(victim: &Victim) -> Result<Child> {
    let file = memfd_create("libc.so.6", MemfdFlags::empty())?;
    std::io::copy(&mut File::open(extra(victim)?)?, &mut File::from(file.try_clone()?))?;
    by_descriptor(victim, &file)
}

fn deleted(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let file = OwnedFd::from(File::open(&library)?);
    fs::remove_file(library)?;
    by_descriptor(victim, &file)
}

fn forged(victim: &Victim) -> Result<Child> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/forge_audit.c");
    let inner = ["-Wl,--no-as-needed", "-l:libinner.so"];
    let outer = victim.other("libouter.so", "-DRESOLVER_MS=0")?;
    let mut cc = victim.cc("libforge.so");
    must(cc.args(["-shared", "-fPIC", source]), "", PATIENCE)?;
    // As if the library in place had been built with it.
    let mut cc = victim.cc("libouter.so");
    let slow_start = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slow_start.c");
    cc.args(["-shared", "-fPIC", "-fno-stack-protector", "-Wl,-soname,libouter.so"]);
    cc.args(["-DNAME=outer", "-DCALLS=inner", slow_start, source]).args(inner);
    must(&mut cc, "", PATIENCE)?;
    fs::remove_file(outer)?;
    waiting(&mut victim.command())
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

fn tried(machine: &Arc<Machine>, case: &Case) -> Result<String> {
    // What one does to the libraries must not help the next.
    let victim = Victim::build()?;
    let learned = victim.learned(machine)?;
    found(machine, &victim, learned.path(), case).context(case.name)
}

#[test]
fn each_way_into_a_process_is_found() {
    let machine = Machine::acquire().unwrap();
    for case in CASES {
        println!("{}", tried(&machine, case).unwrap());
    }
}

#[test]
fn a_library_says_how_it_was_found_and_odd_places_on_the_way_are_told() {
    let machine = Machine::acquire().unwrap();
    for case in WAYS {
        println!("{}", tried(&machine, case).unwrap());
    }
}
